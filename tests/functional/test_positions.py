"""Models by position and returned: copies, in which what was shared is shared, between the arguments too."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.dags import Group

X = jnp.array([0.5, -1.5])


def pair() -> tuple[Group, Group]:
    """Two modules that share a parameter."""
    p = px.Param(jnp.array(1.0))
    return Group([p, px.Param(jnp.array(2.0))]), Group([[p]])


def written(one: Group, two: Group) -> tuple[Array, Group, Group]:
    """Writes through the first what it reads through the second."""
    a, b = px.tree_extract(one)
    a.set(b + 3.0)
    return vars(two)["a"][0] * 1.0, one, two


def first(tree: Any) -> Any:  # a tuple is JAX's, which keeps no sharing between its items
    return px.tree_unref(jax.tree.map(lambda a: a[0], px.tree_ref(tree)))


def in_vmap(f: Callable[..., Any]) -> Callable[..., Any]:
    mapped = pxf.vmap(in_axes=(0, None, None))(lambda lane, *args: f(*args))
    return lambda *args: first(mapped(jnp.zeros(2), *args))


# Ways to call a function of two modules by position; each returns what the function does.
CALLS: dict[str, Callable[..., Any]] = {
    "jit": pxf.jit,
    "jit, one static": lambda f: lambda *args: pxf.jit(static_argnums=0)(lambda n, *args: f(*args))(3, *args),
    "vmap": in_vmap,
    "cond": lambda f: lambda *args: pxf.cond(f, f)(True, *args),
    "switch": lambda f: lambda *args: pxf.switch([f, f])(1, *args),
    "scan": lambda f: lambda *args: first(pxf.scan(lambda x, *args: (args, f(*args)), length=1)(*args)[1]),
}


def test_two_arguments_share_a_parameter_which_stays_one() -> None:
    one, two = pair()
    y, new_one, new_two = pxf.jit(written)(one, two)
    assert float(y) == 5.0, "what is written through one is read through the other"
    assert vars(new_one)["a"] is vars(new_two)["a"][0], "and so it is in what is returned"
    assert px.tree_extract(one, extract_fn=float) == (1.0, 2.0), "an argument by position is a copy"


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(CALLS, repeat=2)])
def test_two_arguments_through_two_transforms(outer: str, inner: str) -> None:
    y, one, two = CALLS[outer](CALLS[inner](written))(*pair())
    assert float(y) == 5.0
    assert one.a is two.a[0]


def test_gradients_of_arguments_that_share() -> None:
    a = pxnn.Linear(2, 2)
    b = pxnn.shared(a)
    weight, bias = a.nn.weight.get(), px.get(a.nn.bias)

    def use(x: Array, a: pxnn.Linear, b: pxnn.Linear) -> Array:
        total: Array = b(jnp.tanh(a(x))).sum()
        return total

    def raw(weight: Array) -> Array:
        return jnp.sum(weight @ jnp.tanh(weight @ X + bias) + bias)

    expected = jax.grad(raw)(weight)
    first, _ = pxf.grad(argnums=1)(use)(X, a, b)
    second, _ = pxf.grad(argnums=2)(use)(X, a, b)
    (one, two), _ = pxf.grad(argnums=(1, 2))(use)(X, a, b)
    for grads in (first, second, one, two):
        np.testing.assert_allclose(grads.nn.weight.get(), expected, rtol=1e-6)
    assert one.nn.weight is two.nn.weight, "one gradient, in both places"


def test_an_ensemble_returned_by_vmap() -> None:
    def make(seed: Array) -> tuple[pxnn.Linear, pxnn.Linear]:
        a = pxnn.Linear(2, 2, rkg=px.RandomKeyGenerator(seed))
        return a, pxnn.shared(a)

    a, b = pxf.vmap()(make)(jnp.arange(3))
    assert a.nn.weight is b.nn.weight
    for n in range(3):
        alone, _ = make(jnp.array(n))
        np.testing.assert_array_equal(a.nn.weight.get()[n], alone.nn.weight.get())


def test_one_parameter_has_one_axis() -> None:
    one, two = pair()
    for module in (one, two):
        for param in px.tree_extract(module):
            if param.ndim == 0:
                param.set(jnp.ones(3))
    with pytest.raises(ValueError, match=r"in_axes of vmap gives the axes 0 and None to one parameter, Param\(\[3\]"):
        pxf.vmap(in_axes=(0, None))(lambda one, two: one.a + two.a[0])(one, two)
    with pytest.raises(ValueError, match=r"out_axes of vmap gives the axes 0 and None to one parameter"):
        pxf.vmap(in_axes=(0, 0), out_axes=(0, None))(lambda one, two: (one, two))(one, two)
    assert pxf.vmap()(lambda one, two: one.a + two.a[0])(one, two).tolist() == [2.0, 2.0, 2.0]


def test_generators_by_position_give_every_lane_its_own_keys() -> None:
    rkg = px.RandomKeyGenerator(1)
    own = jax.random.split(jax.random.PRNGKey(1), 4)[1:]
    expected = jnp.stack([jax.random.split(key)[1] for key in own])
    draw = pxf.vmap(in_axes=(0, None))(lambda x, rkg: rkg())
    np.testing.assert_array_equal(draw(jnp.zeros(3), rkg), expected)
    np.testing.assert_array_equal(pxf.jit(draw)(jnp.zeros(3), rkg), expected)
    assert rkg.key.tolist() == [0, 1], "a copy drew"
    with pytest.raises(RuntimeError, match=r"every lane of vmap would draw the same from this RandomKeyGenerator"):
        pxf.vmap()(lambda x: rkg())(jnp.zeros(3))
    assert rkg.key.tolist() == [0, 1]

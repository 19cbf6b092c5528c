"""Models by position, as a carry, and returned: copies, in which what was shared is shared.

A program here is `f(x, model) -> (y, model)`, and by hand `g(x, values) -> (y, values)` on the unique values of the
model. Each transform turns a program into another of the same signature.
"""

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
from tests.dags import Block, Group, occurrences, outline, random_dag, unique

Program = Callable[[Array, Any], tuple[Array, Any]]
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


def advance(x: Array, model: Block) -> tuple[Array, Block]:
    """Reads and writes place by place, so that a shared parameter is written several times."""
    total = x.sum()
    for n, (_, param) in enumerate(occurrences(model)):
        if isinstance(param, px.DynamicParam):
            param.set(jax.tree.map(lambda a, n=n, total=total: 0.9 * a + 0.01 * n * total, param.get()))
            total = total + sum(jnp.sin(a).sum() for a in jax.tree.leaves(param.get()))
    return x * total, model


def by_hand(places: list[tuple[int, int]]) -> Program:
    def run(x: Array, values: list[Any]) -> tuple[Array, list[Any]]:
        total, values = x.sum(), [*values]
        for n, index in places:
            values[index] = jax.tree.map(lambda a, n=n, total=total: 0.9 * a + 0.01 * n * total, values[index])
            total = total + sum(jnp.sin(a).sum() for a in jax.tree.leaves(values[index]))
        return x * total, values

    return run


def stacked(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.stack([a, 2 * a]), tree)


def mean(tree: Any) -> Any:
    return jax.tree.map(lambda a: a.mean(0), tree)


def vmap(f: Program) -> Program:
    return lambda x, model: mean(pxf.vmap()(f)(jnp.stack([x, -x]), stacked(model)))


def vmap_by_hand(g: Program) -> Program:
    return lambda x, values: mean(jax.vmap(g)(jnp.stack([x, -x]), stacked(values)))


def summed(f: Program) -> Callable[..., Any]:
    def loss(x: Array, model: Any) -> Any:
        y, model = f(x, model)
        return y.sum(), y, model

    return loss


def grad(f: Program) -> Program:
    def run(x: Array, model: Any) -> tuple[Array, Any]:
        (value, (y, after)), (grads, _) = pxf.value_and_grad(argnums=1, has_aux=True)(summed(f))(x, model)
        return y + value, jax.tree.map(jnp.add, after, grads)

    return run


def grad_by_hand(g: Program) -> Program:
    def run(x: Array, values: Any) -> tuple[Array, Any]:
        def loss(values: Any) -> Any:
            y, after = g(x, values)
            return y.sum(), (y, after)

        (value, (y, after)), grads = jax.value_and_grad(loss, has_aux=True)(values)
        return y + value, jax.tree.map(jnp.add, after, grads)

    return run


def scan(f: Program) -> Program:
    return lambda x, model: pxf.scan(lambda _, x, model: (f(x, model), None), length=2)(x, model)[0]


def scan_outputs(f: Program) -> Program:
    def run(x: Array, model: Any) -> tuple[Array, Any]:
        _, ys = pxf.scan(lambda _, x, model: ((x, model), f(x, model)), length=1)(x, model)
        y, after = ys
        return y[0], jax.tree.map(lambda a: a[0], after)

    return run


def while_loop(f: Program) -> Program:
    def step(n: Any, x: Any, model: Any) -> Any:
        return n + 1, *f(x, model)

    return lambda x, model: pxf.while_loop(step, lambda n, x, model: n < 2)(jnp.array(0), x, model)[1:]


def twice(g: Program) -> Program:
    return lambda x, values: g(*g(x, values))


# Each with the same by hand.
TRANSFORMS: dict[str, tuple[Callable[[Program], Program], Callable[[Program], Program]]] = {
    "jit": (pxf.jit, jax.jit),
    "vmap": (vmap, vmap_by_hand),
    "value_and_grad": (grad, grad_by_hand),
    "scan": (scan, twice),
    "scan, outputs": (scan_outputs, lambda g: g),
    "while_loop": (while_loop, twice),
    "cond": (lambda f: lambda x, model: pxf.cond(f, lambda x, model: (2 * x, model))(True, x, model), lambda g: g),
    "switch": (lambda f: lambda x, model: pxf.switch([lambda x, m: (2 * x, m), f])(1, x, model), lambda g: g),
}
# Loops cannot be differentiated backwards, where the number of steps is not known.
PAIRS = [names for names in itertools.product(TRANSFORMS, repeat=2) if names != ("while_loop", "value_and_grad")]


def check(names: tuple[str, ...], seed: int) -> None:
    model = random_dag(seed, depth=3, bare=False)
    params = unique(model, px.DynamicParam)
    numbers = {id(param): index for index, param in enumerate(params)}
    places = [(n, numbers[id(p)]) for n, (_, p) in enumerate(occurrences(model)) if id(p) in numbers]
    f: Program = advance
    g = by_hand(places)
    for name in names:
        transform, transform_by_hand = TRANSFORMS[name]
        f, g = transform(f), transform_by_hand(g)
    values, before = [param.get() for param in params], outline(model)
    y, after = f(X, model)
    expected_y, expected = g(X, values)
    np.testing.assert_allclose(y, expected_y, rtol=1e-4, atol=1e-5)
    assert outline(after) == before
    assert not {*map(id, unique(after, px.DynamicParam))} & {*map(id, params)}, "copies"
    assert all(param.get() is value for param, value in zip(params, values, strict=True)), "nothing is written"
    found = [param.get() for param in unique(after, px.DynamicParam)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_model_by_position_is_a_copy_with_its_sharing(name: str) -> None:
    for seed in (1, 2, 3):
        check((name,), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("names", PAIRS, ids=" in ".join)
def test_through_every_pair(names: tuple[str, str], seed: int) -> None:
    check(names, seed)


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

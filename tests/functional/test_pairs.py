"""Every transform inside every other, on random shared models, against raw JAX with explicit state.

A program here has the signature `f(x, *, model) -> y`, and by hand `g(x, state) -> (y, state)` where the state is the
values of the unique parameters and the random key. Each transform turns a program into another of the same signature.
"""

import itertools
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
from tests.dags import Block, outline, random_dag, unique

Program = Callable[..., Array]
State = tuple[list[Any], Array]
ByHand = Callable[[Array, State], tuple[Array, State]]


def _sum(tree: Any) -> Array:
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), start=jnp.array(0.0))


def _advance(values: list[Any], x: Array) -> list[Any]:
    advanced: list[Any] = jax.tree.map(lambda a: 0.9 * a + 0.1 * jnp.tanh(x.mean()), values)
    return advanced


def _noise(key: Array) -> Array:
    """A number that tells keys apart; to draw a normal one would double what is compiled."""
    return (key % 1009).astype(jnp.float32).sum() / 1009


def base(x: Array, *, model: Block) -> Array:
    params = unique(model, px.DynamicParam)
    values = [param.get() for param in params]
    for param, value in zip(params, _advance(values, x), strict=True):
        param.set(value)
    return x * jnp.tanh(_sum(values)) + _noise(px.RKG())


def base_by_hand(x: Array, state: State) -> tuple[Array, State]:
    values, key = state
    key, drawn = jax.random.split(key)
    return x * jnp.tanh(_sum(values)) + _noise(drawn), (_advance(values, x), key)


def vmap(f: Program) -> Program:
    mapped = pxf.vmap({"model": 0})(f)

    def run(x: Array, *, model: Block) -> Array:
        for param in unique(model, px.DynamicParam):
            param.set(jax.tree.map(lambda a: jnp.stack([a, 2 * a]), param.get()))
        y = mapped(jnp.stack([x, -x]), model=model)
        for param in unique(model, px.DynamicParam):
            param.set(jax.tree.map(lambda a: a.mean(0), param.get()))
        return y.mean(0)

    return run


def vmap_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        values, key = state
        lanes = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), values)
        y, (values, keys) = jax.vmap(g)(jnp.stack([x, -x]), (lanes, jax.random.split(key, 3)[1:]))
        return y.mean(0), (jax.tree.map(lambda a: a.mean(0), values), keys[0])

    return run


def grad(f: Program) -> Program:
    @pxf.grad({"model": True})
    def differentiate(x: Array, *, model: Block) -> Array:
        return f(x, model=model).sum()

    def run(x: Array, *, model: Block) -> Array:
        return x + _sum(differentiate(x, model=model))

    return run


def value_and_grad(f: Program) -> Program:
    @pxf.value_and_grad({"model": True}, argnums=0, has_aux=True)
    def loss(x: Array, *, model: Block) -> tuple[Array, Array]:
        y = f(x, model=model)
        return y.sum(), y

    def run(x: Array, *, model: Block) -> Array:
        value: Array
        x_grad: Array
        (value, (y,)), (x_grad, grads) = loss(x, model=model)
        return y + value + x_grad + _sum(grads)

    return run


def _pure_loss(g: ByHand) -> Callable[..., tuple[Array, tuple[Array, State]]]:
    def loss(values: list[Any], x: Array, key: Array) -> tuple[Array, tuple[Array, State]]:
        y, state = g(x, (values, key))
        return y.sum(), (y, state)

    return loss


def grad_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        grads, (_, after) = jax.grad(_pure_loss(g), has_aux=True)(state[0], x, state[1])
        return x + _sum(grads), after

    return run


def value_and_grad_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        differentiate = jax.value_and_grad(_pure_loss(g), argnums=(0, 1), has_aux=True)
        (value, (y, after)), (grads, x_grad) = differentiate(state[0], x, state[1])
        return y + value + x_grad + _sum(grads), after

    return run


FACTORS = (1.0, 0.5)


def scan(f: Program) -> Program:
    def step(factor: Array, carry: Array, *, model: Block) -> tuple[tuple[Array], Array]:
        y = f(factor * carry, model=model)
        return (y,), y.sum()

    def run(x: Array, *, model: Block) -> Array:
        (y,), ys = pxf.scan(step, jnp.array(FACTORS))(x, model=model)
        return y + ys.sum()

    return run


def scan_by_hand(g: ByHand) -> ByHand:
    def step(carry: tuple[Array, State], factor: Array) -> tuple[tuple[Array, State], Array]:
        y, state = g(factor * carry[0], carry[1])
        return (y, state), y.sum()

    def run(x: Array, state: State) -> tuple[Array, State]:
        (y, state), ys = jax.lax.scan(step, (x, state), jnp.array(FACTORS))
        return y + ys.sum(), state

    return run


def while_loop(f: Program) -> Program:
    def step(n: Array, carry: Array, *, model: Block) -> tuple[Array, Array]:
        return n + 1, f(carry, model=model)

    def goes_on(n: Array, carry: Array, *, model: Block) -> Array:
        return n < 2

    def run(x: Array, *, model: Block) -> Array:
        return pxf.while_loop(step, goes_on)(jnp.array(0), x, model=model)[1]

    return run


def while_loop_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        _, y, state = jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, *g(s[1], s[2])), (0, x, state))
        return y, state

    return run


def cond(f: Program) -> Program:
    def otherwise(x: Array, *, model: Block) -> Array:
        return -f(2 * x, model=model)

    choose = pxf.cond(f, otherwise)

    def run(x: Array, *, model: Block) -> Array:
        return choose(x.sum() > 0, x, model=model)

    return run


def cond_by_hand(g: ByHand) -> ByHand:
    def otherwise(x: Array, state: State) -> tuple[Array, State]:
        y, state = g(2 * x, state)
        return -y, state

    return lambda x, state: jax.lax.cond(x.sum() > 0, g, otherwise, x, state)


def switch(f: Program) -> Program:
    branches: list[Program] = [f, lambda x, *, model: x, lambda x, *, model: f(x + 1, model=model)]
    choose = pxf.switch(branches)

    def run(x: Array, *, model: Block) -> Array:
        return choose(jnp.where(x.sum() > 0, 2, 0), x, model=model)

    return run


def switch_by_hand(g: ByHand) -> ByHand:
    branches = [g, lambda x, state: (x, state), lambda x, state: g(x + 1, state)]
    return lambda x, state: jax.lax.switch(jnp.where(x.sum() > 0, 2, 0), branches, x, state)


TRANSFORMS: dict[str, tuple[Callable[[Program], Program], Callable[[ByHand], ByHand]]] = {
    "jit": (pxf.jit, jax.jit),
    "vmap": (vmap, vmap_by_hand),
    "grad": (grad, grad_by_hand),
    "value_and_grad": (value_and_grad, value_and_grad_by_hand),
    "scan": (scan, scan_by_hand),
    "while_loop": (while_loop, while_loop_by_hand),
    "cond": (cond, cond_by_hand),
    "switch": (switch, switch_by_hand),
}
PAIRS = [*itertools.product(TRANSFORMS, TRANSFORMS)]
TRIPLES = random.Random(0).sample([*itertools.product(TRANSFORMS, TRANSFORMS, TRANSFORMS)], 24)


def has_no_gradient(names: tuple[str, ...]) -> bool:
    """JAX does not differentiate a while loop backwards."""
    inner = names.index("while_loop") if "while_loop" in names else 0
    return any("grad" in name for name in names[:inner])


@pytest.mark.parametrize("names", [(name,) for name in TRANSFORMS], ids="-".join)
def test_alone(names: tuple[str, ...]) -> None:
    check(names)


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_pairs(names: tuple[str, ...]) -> None:
    check(("jit", *names))  # compiled as a whole, which is faster


@pytest.mark.slow
@pytest.mark.parametrize("names", [*PAIRS, *TRIPLES], ids="-".join)
def test_pairs_and_triples_uncompiled(names: tuple[str, ...]) -> None:
    check(names)


def check(names: tuple[str, ...]) -> None:
    program: Program = base
    by_hand: ByHand = base_by_hand
    for name in reversed(names):
        transform, transform_by_hand = TRANSFORMS[name]
        program, by_hand = transform(program), transform_by_hand(by_hand)

    model = random_dag(sum(map(len, names)), depth=2, bare=False)
    params, before = unique(model, px.DynamicParam), outline(model)
    state = [param.get() for param in params], px.RKG.key.get()
    for x in (jnp.array([0.5, -0.2]), jnp.array([-0.5, 0.3])):
        if has_no_gradient(names):
            with pytest.raises(ValueError, match="while_loop"):
                program(x, model=model)
            assert px.RKG.key.get() is state[1]
        else:
            y = program(x, model=model)
            expected, state = by_hand(x, state)
            np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
        assert all(now is then for now, then in zip(unique(model, px.DynamicParam), params, strict=True))
        assert outline(model) == before
        for param, value in zip(params, state[0], strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), param.get(), value)
        np.testing.assert_array_equal(px.RKG.key.get(), state[1])

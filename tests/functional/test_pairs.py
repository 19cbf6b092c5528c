"""Every transform inside every other, on random shared models, against raw JAX with explicit state.

A program is `f(x, *, model) -> y`. By position, where a model is a copy, it is `f(x, model) -> (y, model)`, and by hand
`g(x, state) -> (y, state)`, where the state is the values of the unique parameters and the random key. Each transform
turns a program into another of the same signature.
"""

import itertools
import random
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
from tests.dags import Block, occurrences, outline, random_dag, unique

Program = Callable[..., Array]
OfCopies = Callable[[Array, Any], tuple[Array, Any]]
State = tuple[list[Any], Array]
ByHand = Callable[[Array, State], tuple[Array, State]]


def _sum(tree: Any) -> Array:
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), start=jnp.array(0.0))


def _advance(n: int, total: Array, value: Any) -> Any:
    """What a program writes at its place n."""
    return jax.tree.map(lambda a: 0.9 * a + 0.01 * n * jnp.sin(total), value)


def _noise(key: Array) -> Array:
    """A number that tells keys apart; to draw a normal one would double what is compiled."""
    return (key % 1009).astype(jnp.float32).sum() / 1009


def base(x: Array, *, model: Block) -> Array:
    """Reads and writes place by place, so that a shared parameter is written several times."""
    total = x.sum()
    for n, (_, param) in enumerate(occurrences(model)):
        if isinstance(param, px.DynamicParam):
            param.set(_advance(n, total, param.get()))
            total = total + _sum(jax.tree.map(jnp.sin, param.get()))
    return x * jnp.sin(total) + _noise(px.RKG())


def base_by_hand(model: Block) -> ByHand:
    numbers = {id(param): number for number, param in enumerate(unique(model, px.DynamicParam))}
    places = [(n, numbers[id(param)]) for n, (_, param) in enumerate(occurrences(model)) if id(param) in numbers]

    def run(x: Array, state: State) -> tuple[Array, State]:
        (values, key), total = state, x.sum()
        values = [*values]
        for n, number in places:
            values[number] = _advance(n, total, values[number])
            total = total + _sum(jax.tree.map(jnp.sin, values[number]))
        key, drawn = jax.random.split(key)
        return x * jnp.sin(total) + _noise(drawn), (values, key)

    return run


def _stacked(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.stack([a, 2 * a]), tree)


def _mean(tree: Any) -> Any:
    return jax.tree.map(lambda a: a.mean(0), tree)


def vmap(f: Program) -> Program:
    mapped = pxf.vmap({"model": 0})(f)

    def run(x: Array, *, model: Block) -> Array:
        for param in unique(model, px.DynamicParam):
            param.set(_stacked(param.get()))
        y = mapped(jnp.stack([x, -x]), model=model)
        for param in unique(model, px.DynamicParam):
            param.set(_mean(param.get()))
        return y.mean(0)

    return run


def vmap_of_copies(f: OfCopies) -> OfCopies:
    return lambda x, model: _mean(pxf.vmap()(f)(jnp.stack([x, -x]), _stacked(model)))


def vmap_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        values, key = state
        y, (values, keys) = jax.vmap(g)(jnp.stack([x, -x]), (_stacked(values), jax.random.split(key, 3)[1:]))
        return y.mean(0), (_mean(values), keys[0])

    return run


def grad(f: Program) -> Program:
    gradient: Any = pxf.grad({"model": True})(lambda x, *, model: f(x, model=model).sum())
    return lambda x, *, model: x + _sum(gradient(x, model=model))


def value_and_grad(f: Program) -> Program:
    @pxf.value_and_grad({"model": True}, argnums=0, has_aux=True)
    def loss(x: Array, *, model: Block) -> tuple[Array, Array]:
        y = f(x, model=model)
        return y.sum(), y

    def run(x: Array, *, model: Block) -> Array:
        value: Array
        x_grad: Array
        (value, (y,)), (x_grad, grads) = loss(x, model=model)
        for param, grad in zip(unique(model, px.DynamicParam), unique(grads["model"], px.DynamicParam), strict=True):
            param.set(jax.tree.map(jnp.add, param.get(), grad.get()))
        return y + value + x_grad

    return run


def value_and_grad_of_copies(f: OfCopies) -> OfCopies:
    def loss(x: Array, model: Block) -> Any:
        y, model = f(x, model)
        return y.sum(), y, model

    def run(x: Array, model: Block) -> tuple[Array, Block]:
        differentiate = pxf.value_and_grad(argnums=(0, 1), has_aux=True)(loss)
        (value, (y, after)), ((x_grad, grads), _) = differentiate(x, model)
        return y + value + x_grad, jax.tree.map(jnp.add, after, grads)

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
        (value, (y, (values, key))), (grads, x_grad) = differentiate(state[0], x, state[1])
        return y + value + x_grad, (jax.tree.map(jnp.add, values, grads), key)

    return run


def jacobian(transform: Any) -> Callable[[Program], Program]:
    def wrap(f: Program) -> Program:
        derivatives = transform({"model": True})(lambda x, *, model: f(x, model=model).sum())
        return lambda x, *, model: x + _sum(derivatives(x, model=model))

    return wrap


def jacobian_by_hand(transform: Any) -> Callable[[ByHand], ByHand]:
    def wrap(g: ByHand) -> ByHand:
        def run(x: Array, state: State) -> tuple[Array, State]:
            derivatives, (_, after) = transform(_pure_loss(g))(state[0], x, state[1])
            return x + _sum(derivatives), after

        return run

    return wrap


def raw_hessian(loss: Any) -> Any:
    return jax.jacfwd(jax.jacrev(loss, has_aux=True), has_aux=True)


def jvp(f: Program) -> Program:
    def run(x: Array, *, model: Block) -> Array:
        ones = {"model": jax.tree.map(jnp.ones_like, model)}
        y, change = pxf.jvp({"model": True})(f)(ones, x, model=model)
        return y + change

    return run


def jvp_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        values, key = state
        ones = jax.tree.map(jnp.ones_like, values)
        y, change, after = jax.jvp(lambda values: g(x, (values, key)), (values,), (ones,), has_aux=True)
        return y + change, after

    return run


def vjp(f: Program) -> Program:
    def run(x: Array, *, model: Block) -> Array:
        y, pullback = pxf.vjp({"model": True})(f)(x, model=model)
        return y + _sum(pullback(jnp.arange(1.0, 3.0)))

    return run


def vjp_by_hand(g: ByHand) -> ByHand:
    def run(x: Array, state: State) -> tuple[Array, State]:
        values, key = state
        y, pullback, after = jax.vjp(lambda values: g(x, (values, key)), values, has_aux=True)
        return y + _sum(pullback(jnp.arange(1.0, 3.0))), after

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


def scanned_copies(f: OfCopies) -> OfCopies:
    """The model is among the outputs of the steps, of which there is one."""

    def run(x: Array, model: Block) -> tuple[Array, Block]:
        _, (y, after) = pxf.scan(lambda _, *carry: (carry, f(*carry)), length=1)(x, model)
        return y[0], jax.tree.map(lambda a: a[0], after)

    return run


def while_loop(f: Program) -> Program:
    def step(n: Array, x: Array, *, model: Block) -> tuple[Array, Array]:
        return n + 1, f(x, model=model)

    loop = pxf.while_loop(step, lambda n, x, *, model: n < 2)
    return lambda x, *, model: loop(jnp.array(0), x, model=model)[1]


def cond(f: Program) -> Program:
    def otherwise(x: Array, *, model: Block) -> Array:
        return f(-2 * x, model=model)

    return lambda x, *, model: pxf.cond(f, otherwise)(x.sum() > 0, x, model=model)


def switch(f: Program) -> Program:
    branches: list[Program] = [f, lambda x, *, model: x, lambda x, *, model: f(x + 1, model=model)]
    return lambda x, *, model: pxf.switch(branches)(jnp.where(x.sum() > 0, 2, 0), x, model=model)


# By position and by hand a program looks the same: what differs is whose scan, while_loop, cond and switch it is given.


def pure_scan(scan: Any) -> Callable[[Any], Any]:
    def transform(g: Any) -> Any:
        def step(carry: Any, factor: Array) -> Any:
            y, state = g(factor * carry[0], carry[1])
            return (y, state), y.sum()

        def run(x: Array, state: Any) -> Any:
            (y, state), ys = scan(step, (x, state), jnp.array(FACTORS))
            return y + ys.sum(), state

        return run

    return transform


def pure_while_loop(loop: Any) -> Callable[[Any], Any]:
    return lambda g: lambda x, state: loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, *g(*s[1:])), (0, x, state))[1:]


def pure_cond(cond: Any) -> Callable[[Any], Any]:
    return lambda g: lambda x, state: cond(x.sum() > 0, g, lambda x, state: g(-2 * x, state), x, state)


def pure_switch(switch: Any) -> Callable[[Any], Any]:
    def transform(g: Any) -> Any:
        branches = [g, lambda x, state: (x, state), lambda x, state: g(x + 1, state)]
        return lambda x, state: switch(jnp.where(x.sum() > 0, 2, 0), branches, x, state)

    return transform


TRANSFORMS: dict[str, Callable[[Program], Program]] = {
    "jit": pxf.jit,
    "vmap": vmap,
    "grad": grad,
    "value_and_grad": value_and_grad,
    "jacrev": jacobian(pxf.jacrev),
    "jacfwd": jacobian(pxf.jacfwd),
    "hessian": jacobian(pxf.hessian),
    "jvp": jvp,
    "vjp": vjp,
    "checkpoint": pxf.checkpoint,
    "scan": scan,
    "while_loop": while_loop,
    "cond": cond,
    "switch": switch,
}
OF_COPIES: dict[str, Callable[[OfCopies], OfCopies]] = {
    "jit": pxf.jit,
    "checkpoint": pxf.checkpoint,
    "vmap": vmap_of_copies,
    "value_and_grad": value_and_grad_of_copies,
    "scan": pure_scan(lambda step, carry, xs: pxf.scan(lambda x, *carry: step(carry, x), xs)(*carry)),
    "scan, outputs": scanned_copies,
    "while_loop": pure_while_loop(lambda below, step, s: pxf.while_loop(lambda *s: step(s), lambda *s: below(s))(*s)),
    "cond": pure_cond(lambda pred, f, g, *args: pxf.cond(f, g)(pred, *args)),
    "switch": pure_switch(lambda index, fs, *args: pxf.switch(fs)(index, *args)),
}
BY_HAND: dict[str, Callable[[ByHand], ByHand]] = {
    "jit": jax.jit,
    "vmap": vmap_by_hand,
    "grad": grad_by_hand,
    "value_and_grad": value_and_grad_by_hand,
    "jacrev": jacobian_by_hand(lambda loss: jax.jacrev(loss, has_aux=True)),
    "jacfwd": jacobian_by_hand(lambda loss: jax.jacfwd(loss, has_aux=True)),
    "hessian": jacobian_by_hand(raw_hessian),
    "jvp": jvp_by_hand,
    "vjp": vjp_by_hand,
    "checkpoint": jax.checkpoint,
    "scan": pure_scan(jax.lax.scan),
    "scan, outputs": lambda g: g,
    "while_loop": pure_while_loop(jax.lax.while_loop),
    "cond": pure_cond(jax.lax.cond),
    "switch": pure_switch(jax.lax.switch),
}


def nested(program: Any, table: Mapping[str, Callable[[Any], Any]], names: tuple[str, ...]) -> Any:
    """A program through the transforms of these names, the first one outermost."""
    return reduce(lambda program, name: table[name](program), reversed(names), program)


def has_no_gradient(names: tuple[str, ...]) -> bool:
    """JAX does not differentiate a while loop backwards."""
    inner = names.index("while_loop") if "while_loop" in names else 0
    return any(name in ("grad", "value_and_grad", "jacrev", "hessian", "vjp") for name in names[:inner])


PAIRS = [*itertools.product(TRANSFORMS, repeat=2)]
TRIPLES = random.Random(0).sample([*itertools.product(TRANSFORMS, repeat=3)], 24)
PAIRS_OF_COPIES = [names for names in itertools.product(OF_COPIES, repeat=2) if not has_no_gradient(names)]


def test_a_gradient_in_a_compiled_function() -> None:
    """The loss (wx)² moves w by its gradient, twice, as in raw JAX, where w is given and returned."""

    @pxf.jit
    def step(x: Array, *, w: px.Param) -> Any:
        value, grads = pxf.value_and_grad({"w": True})(lambda x, *, w: (w * x) ** 2)(x, w=w)
        w -= 0.1 * grads["w"]
        return value

    @jax.jit
    def by_hand(x: Array, w: Array) -> tuple[Array, Array]:
        value, grad = jax.value_and_grad(lambda w: (w * x) ** 2)(w)
        return value, w - 0.1 * grad

    w, raw, x = px.Param(jnp.array(2.0)), jnp.array(2.0), jnp.array(3.0)
    for _ in range(2):
        expected, raw = by_hand(x, raw)
        agree((step(x, w=w), w.get()), (expected, raw))


@pytest.mark.parametrize("names", [(name,) for name in TRANSFORMS], ids="-".join)
def test_alone(names: tuple[str, ...]) -> None:
    check(names)


OFTEN = {"vmap", "value_and_grad", "scan"}  # with each of them outside and inside of every other


def _marked(names: tuple[str, ...]) -> Any:
    return pytest.param(names, marks=[pytest.mark.slow] if OFTEN.isdisjoint(names) else [], id="-".join(names))


@pytest.mark.thorough
@pytest.mark.parametrize("names", [*map(_marked, PAIRS)])
def test_pairs(names: tuple[str, ...]) -> None:
    check(("jit", *names), depth=1)  # compiled as a whole, which is faster


def _is_refused_late(names: tuple[str, ...]) -> bool:
    """Whether JAX refuses when it goes back, after a forward pass that has written."""
    return names[0] == "vjp" and has_no_gradient(names)


UNCOMPILED = [names for names in (*PAIRS, *TRIPLES) if not _is_refused_late(names)]


@pytest.mark.slow
@pytest.mark.parametrize("names", UNCOMPILED, ids="-".join)
def test_pairs_and_triples_uncompiled(names: tuple[str, ...]) -> None:
    check(names)


def agree(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, expected)


def check(names: tuple[str, ...], depth: int = 2) -> None:
    model = random_dag(sum(map(len, names)), depth=depth, bare=False)
    program, by_hand = nested(base, TRANSFORMS, names), nested(base_by_hand(model), BY_HAND, names)
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
            agree(y, expected)
        assert all(now is then for now, then in zip(unique(model, px.DynamicParam), params, strict=True))
        assert outline(model) == before
        agree([param.get() for param in params], state[0])
        np.testing.assert_array_equal(px.RKG.key.get(), state[1])


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
@pytest.mark.parametrize("name", OF_COPIES)
def test_a_model_by_position_is_a_copy_with_its_sharing(name: str, seed: int) -> None:
    check_copies((name,), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("names", PAIRS_OF_COPIES, ids="-".join)
def test_pairs_of_copies(names: tuple[str, ...], seed: int) -> None:
    check_copies(names, seed)


def check_copies(names: tuple[str, ...], seed: int) -> None:
    model = random_dag(seed, depth=3, bare=False)
    program = nested(lambda x, model: (base(x, model=model), model), OF_COPIES, names)
    params, before = unique(model, px.DynamicParam), outline(model)
    values, x, key = [param.get() for param in params], jnp.array([0.5, -1.5]), px.RKG.key.get()
    y, after = program(x, model)
    expected, (expected_values, expected_key) = nested(base_by_hand(model), BY_HAND, names)(x, (values, key))
    agree(y, expected)
    assert outline(after) == before
    assert not {*map(id, unique(after, px.DynamicParam))} & {*map(id, params)}, "copies"
    assert all(param.get() is value for param, value in zip(params, values, strict=True)), "nothing is written"
    agree([param.get() for param in unique(after, px.DynamicParam)], expected_values)
    np.testing.assert_array_equal(px.RKG.key.get(), expected_key)

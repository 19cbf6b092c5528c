"""Optimisers that look further than the gradient, against the same steps with optax alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.oracles import close

pytestmark = pytest.mark.usefixtures("standard_promotion")

CURVATURES = jnp.array([1.0, 10.0, 100.0])
START = jnp.array([1.0, 2.0, 3.0])


def energy(w: Any) -> Array:
    """A quadratic of a parameter, or of an array."""
    return 0.5 * (CURVATURES * jnp.square(px.get(w))).sum()


@pxf.jit(static_argnums=(0,))
def step(scale: float | None, *, w: px.Param, optim: pxu.Optim) -> None:
    value, grads = pxf.value_and_grad({"w": True})(lambda *, w: energy(w))(w=w)
    optim.step(w, grads["w"], scale, value=value, value_fn=energy)


def by_hand(optimiser: Any, steps: int, scale: float) -> Array:
    def scaled(w: Array) -> Array:
        return scale * energy(w)

    @jax.jit
    def step(w: Array, state: Any) -> Any:
        value, grad = jax.value_and_grad(scaled)(w)
        updates, state = optimiser.update(grad, state, w, value=value, grad=grad, value_fn=scaled)
        return optax.apply_updates(w, updates), state

    w, state = START, optimiser.init(START)
    for _ in range(steps):
        w, state = step(w, state)
    return w


def test_lbfgs_finds_the_minimum() -> None:
    w = px.Param(START)
    optim = pxu.Optim(optax.lbfgs(), w)
    for _ in range(12):
        step(None, w=w, optim=optim)
    close(w.get(), jnp.zeros(3), 1e-4)


@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize("make", [optax.lbfgs, optax.polyak_sgd, lambda: optax.MultiSteps(optax.polyak_sgd(), 2)])
def test_as_with_optax_alone(make: Callable[[], Any], scale: float | None) -> None:
    w = px.Param(START)
    optim = pxu.Optim(make, w)
    for _ in range(6):
        step(scale, w=w, optim=optim)
    close(w.get(), by_hand(make(), 6, scale or 1.0), 1e-5)


def test_a_plateau_lowers_the_rate() -> None:
    w = px.Param(jnp.array([0.0]))
    optim = pxu.Optim(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(0.5, patience=2)), w)
    moves = []
    for _ in range(6):
        before = w.get()
        optim.step(w, px.Param(jnp.array([1.0])), value=3.0)  # never better
        moves.append(float((before - w.get())[0]))
    assert moves[0] == 1.0
    assert moves[-1] == 0.25


def test_a_tree_of_optimisers_passes_the_value_on() -> None:
    pair = [px.Param(jnp.array([1.0])), px.Param(jnp.array([2.0]))]
    optim = pxu.OptimTree(optax.polyak_sgd(10.0), px.Param, pair)
    optim.step(pair, [px.Param(jnp.array([2.0])), px.Param(jnp.array([4.0]))], value=jnp.array(8.0))
    # Polyak's step is value / ‖gradient‖², here 8 / 4 and 8 / 16.
    close([param.get() for param in pair], [jnp.array([1.0 - 4.0]), jnp.array([2.0 - 2.0])])


@pytest.mark.thorough
def test_a_shared_parameter_is_tried_in_all_places() -> None:
    w = px.Param(jnp.array([3.0]))
    pair = {"one": w, "same": w}

    def product(pair: dict[str, px.Param]) -> Array:  # w² if both move, 3 w if one does
        return (pair["one"] * pair["same"]).sum()

    optim = pxu.Optim(optax.lbfgs(), pair)
    for _ in range(5):
        value, grads = pxf.value_and_grad({"pair": True})(lambda *, pair: product(pair))(pair=pair)
        optim.step(pair, grads["pair"], value=value, value_fn=product)
    close(w.get(), jnp.zeros(1), 1e-4)


@pytest.mark.thorough
def test_a_search_draws_the_same_every_time_and_advances_nothing() -> None:
    w, dropout = px.Param(START), pxnn.Dropout(0.5)

    def noisy(w: px.Param) -> Array:
        return energy(dropout(w.get(), key=px.RKG()))

    px.RKG.seed(1)
    value, grads = pxf.value_and_grad({"w": True})(lambda *, w: noisy(w))(w=w)
    key = px.RKG.key.get()
    optim = pxu.Optim(optax.lbfgs(), w)
    optim.step(w, grads["w"], value=value, value_fn=noisy)
    assert (px.RKG.key.get() == key).all()
    known = optax.tree_utils.tree_get(optim.state.get().optax, "value")
    close(known, noisy(w))  # it draws with that key


@pytest.mark.thorough
def test_what_a_function_writes_stays_in_its_copy() -> None:
    w = px.Param(START)

    def writes(w: px.Param) -> Array:
        value = energy(w)
        w.set(w.get() + 100.0)
        return value

    value, grads = pxf.value_and_grad({"w": True})(lambda *, w: energy(w))(w=w)
    pxu.Optim(optax.lbfgs(), w).step(w, grads["w"], value=value, value_fn=writes)
    close(w.get(), by_hand(optax.lbfgs(), 1, 1.0), 1e-5)


class Planted(Exception):
    """Raised on purpose."""


def test_what_raises_changes_nothing() -> None:
    w = px.Param(START)
    optim = pxu.Optim(optax.lbfgs(), w)
    before, key = jax.tree.leaves(optim.state.get()), px.RKG.key.get()

    def raises(w: px.Param) -> Array:
        px.RKG()
        raise Planted

    with pytest.raises(Planted):
        optim.step(w, px.Param(jnp.ones(3)), value=1.0, value_fn=raises)
    assert all(one is other for one, other in zip(before, jax.tree.leaves(optim.state.get()), strict=True))
    assert w.get() is START
    assert px.RKG.key.get() is key


def steps_of(optim: pxu.Optim, tree: Any, steps: int) -> None:
    """Steps down the sum of squares of all parameters."""

    def squares(tree: Any) -> Array:
        return sum((jnp.square(param.get() - 1).sum() for param in px.tree_extract(tree)), start=jnp.array(0.0))

    for _ in range(steps):
        value, grads = pxf.value_and_grad({"tree": pxu.M(px.Param)})(lambda *, tree: squares(tree))(tree=tree)
        optim.step(tree, grads["tree"], value=value, value_fn=squares)


@pytest.mark.thorough
def test_the_memory_of_lbfgs_is_of_all_its_parameters() -> None:
    """Its ρ = 1 / (Δwᵀ Δg) are sums over all of them, and so those of none when one is taken away or added."""
    a, b = px.Param(jnp.zeros(2)), px.Param(jnp.zeros(2))
    optim = pxu.Optim(optax.lbfgs(), [a, b])
    for other in ([a], [a, b, px.Param(jnp.zeros(2))]):
        with pytest.raises(ValueError, match=r"retarget.*\[0\]\.weights_memory in optax's mixes them: call init"):
            optim.retarget(other)
    steps_of(optim, [a, b], 2)
    memory = optim.state.get()[0].weights_memory
    optim.retarget({"x": b, "y": a})  # the same ones at other paths
    assert (optim.state.get()[0].weights_memory == memory).all()
    noise = optax.add_noise(0.1, 0.5, 0)
    pxu.Optim(noise, [a]).retarget([a, b])  # a key is not made from parameters


@pytest.mark.thorough
def test_frozen_layers_are_not_searched() -> None:
    stack = pxc.Stack(lambda: pxnn.Linear(2, 2), 3)
    weights = pxu.M(pxnn.LayerParam)(stack)
    stack.freeze_only([1])
    optim = pxu.Optim(optax.lbfgs(), weights)
    value, grads = pxf.value_and_grad({"stack": pxu.M(pxnn.LayerParam)})(
        lambda *, stack: jnp.square(stack.blocks.nn.weight.get()).sum() + jnp.square(stack.blocks.nn.bias.get()).sum()
    )(stack=stack)
    with pytest.raises(ValueError, match=r"Stack.freeze_only has frozen layers.*weights_memory.*L-BFGS"):
        optim.step(stack, grads["stack"], value=value, value_fn=lambda stack: value)
    pxu.Optim(optax.polyak_sgd(), weights).step(stack, grads["stack"], value=value)


def test_what_an_optimiser_does_not_take_is_not_given() -> None:
    """Sharpness-aware minimisation takes extra arguments, but neither value nor gradient."""
    w, optimiser = px.Param(START), optax.contrib.sam(optax.sgd(0.001), optax.sgd(0.01))
    pxu.Optim(optimiser, w).step(w, px.Param(jnp.ones(3)), value=energy(START), value_fn=energy)
    updates, _ = optimiser.update(jnp.ones(3), optimiser.init(START), START)
    close(w.get(), START + updates)


@pytest.mark.parametrize("wrap", ["masked", "multi_transform"])
def test_a_search_over_some_of_the_parameters(wrap: str) -> None:
    pair = [px.Param(jnp.zeros(2)), px.Param(jnp.zeros(2))]
    optimisers: dict[Any, Any] = {"a": optax.lbfgs(), "b": optax.sgd(0.1)}
    optimiser = (
        optax.masked(optax.lbfgs(), lambda params: {path: path == "[0]" for path in params})
        if wrap == "masked"
        else optax.multi_transform(optimisers, lambda params: {path: "ba"[path == "[0]"] for path in params})
    )
    with pytest.raises(TypeError, match=r"a line search needs the gradients, and the function, of the same ones"):
        steps_of(pxu.Optim(optimiser, pair), pair, 1)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, TypeError, r"Optim.step expected value= and value_fn=, which this optimiser needs"),
        ({"value": 1.0}, TypeError, r"Optim.step expected value_fn=, which"),
        ({"value": START, "value_fn": energy}, ValueError, r"value to be one number.*array of shape \(3,\)"),
        ({"value": 1.0, "value_fn": lambda w: w.get()}, ValueError, r"value to be one number.*array of shape \(3,\)"),
    ],
)
def test_what_is_missing_is_named(given: dict[str, Any], error: type[Exception], words: str) -> None:
    w = px.Param(START)
    with pytest.raises(error, match=words):
        pxu.Optim(optax.lbfgs(), w).step(w, px.Param(jnp.ones(3)), **given)

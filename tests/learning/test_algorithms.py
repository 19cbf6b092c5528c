"""The algorithms against raw JAX by hand.

The network is u_l = tanh(W_l h_{l−1} + b_l), without tanh at the end, with the last node clamped.
"""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.utils as pxu
from tests.learning.chains import Chain
from tests.oracles import close

SIZES = [5, 8, 7, 6, 3]
BATCH, STEPS, LR_NODES, LR_WEIGHTS = 6, 4, 0.1, 0.2
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(BATCH, SIZES[0])), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(BATCH, SIZES[-1])), jnp.float32)
Raw = list[tuple[Array, Array]]


class Counted(Chain):
    calls = 0

    def __init__(self) -> None:
        super().__init__(SIZES, seed=3, bias=True)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        Counted.calls += 1
        return super().__call__(x, y)

    def raw(self) -> Raw:
        return [(layer.nn.weight.get(), px.get(layer.nn.bias)) for layer in self.layers]


def forward(weights: Raw, x: Array) -> list[Array]:
    states: list[Array] = []
    for w, b in weights:
        x = x @ w.T + b[None]
        x = x if len(states) == len(weights) - 1 else jnp.tanh(x)
        states.append(x)
    return states


def energy(weights: Raw, hidden: list[Array], y: Array) -> Array:
    """Summed over the samples."""
    total = jnp.zeros(())
    for layer, (below, h) in enumerate(pairwise([X, *hidden, y])):
        w, b = weights[layer]
        u = below @ w.T + b[None]
        total += 0.5 * ((h - (jnp.tanh(u) if layer < len(weights) - 1 else u)) ** 2).sum()
    return total


def descend(values: Any, grads: Any, rate: float) -> Any:
    return jax.tree.map(lambda value, grad: value - rate * grad, values, grads)


def train(algorithm: pxl.Algorithm, batches: int = 2) -> tuple[Counted, Raw, pxl.Report]:
    model = Counted()
    before = model.raw()
    nodes, weights = pxu.Optim(optax.sgd(LR_NODES)), pxu.Optim(optax.sgd(LR_WEIGHTS), pxl.WEIGHTS(model))
    for _ in range(batches):
        report = algorithm(X, Y, model=model, nodes=nodes, weights=weights)
    assert all(vode.h.get() is None and vode.cache.get() is None for vode in model.vodes)
    assert model.status is None
    assert nodes.state.get() is None
    return model, before, report


def test_backpropagation() -> None:
    """Against jax.grad of the loss of the plain network."""
    model, raw, report = train(pxl.Backprop())

    @jax.jit
    def update(raw: Raw) -> tuple[Array, Raw]:
        loss, grads = jax.value_and_grad(lambda raw: 0.5 * ((Y - forward(raw, X)[-1]) ** 2).sum(1).mean())(raw)
        return loss, descend(raw, grads, LR_WEIGHTS)

    for _ in range(2):
        predictions = forward(raw, X)[-1]
        loss, raw = update(raw)
    close(model.raw(), raw)
    close((report.loss, report.energies, report.predictions), (loss, loss[None], predictions))


@pytest.mark.thorough
@pytest.mark.parametrize("beta", [1.0, 0.3, -0.8])
def test_nudging(beta: float) -> None:
    model, raw, report = train(pxl.Nudging(beta, STEPS))

    @jax.jit
    def update(raw: Raw) -> tuple[list[Array], Raw]:
        *hidden, u = forward(raw, X)
        target, expected = u - beta * (u - Y), []
        for _ in range(STEPS):
            value, grads = jax.value_and_grad(energy, argnums=1)(raw, hidden, target)
            expected.append(value / BATCH)
            hidden = descend(hidden, grads, LR_NODES)
        return expected, descend(raw, jax.grad(energy)(raw, hidden, target), LR_WEIGHTS / BATCH / beta)

    for _ in range(2):
        predictions = forward(raw, X)[-1]
        expected, raw = update(raw)
    close(list(report.energies), expected)
    close(model.raw(), raw)
    close((report.loss, report.predictions), (0.5 * ((Y - predictions) ** 2).sum() / BATCH, predictions))


def test_nudging_all_the_way_is_pc() -> None:
    nudged, _, report = train(pxl.Nudging(1.0, STEPS))
    model, _, expected = train(pxl.PC(STEPS))
    close(report.energies, expected.energies)
    close(nudged.raw(), model.raw())


@pytest.mark.thorough
def test_a_schedule_of_nudging_compiles_once() -> None:
    model = Counted()
    nodes, weights = pxu.Optim(optax.sgd(LR_NODES)), pxu.Optim(optax.sgd(LR_WEIGHTS), pxl.WEIGHTS(model))
    pxl.Nudging(0.5)(X, Y, model=model, nodes=nodes, weights=weights)
    before = Counted.calls
    for beta in (0.6, -0.6):
        pxl.Nudging(beta)(X, Y, model=model, nodes=nodes, weights=weights)
    assert Counted.calls == before


def test_nudging_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="beta other than 0"):
        pxl.Nudging(0.0)


@pytest.mark.thorough
@pytest.mark.parametrize("steps", [1, STEPS])
def test_incremental_predictive_coding(steps: int) -> None:
    model, raw, report = train(pxl.IPC(steps))

    @jax.jit
    def update(raw: Raw) -> tuple[list[Array], Raw]:
        hidden, expected = forward(raw, X)[:-1], []
        for _ in range(steps):
            value, (by_w, by_h) = jax.value_and_grad(energy, argnums=(0, 1))(raw, hidden, Y)
            expected.append(value / BATCH)
            raw, hidden = descend(raw, by_w, LR_WEIGHTS / BATCH), descend(hidden, by_h, LR_NODES)
        return expected, raw

    for _ in range(2):
        expected, raw = update(raw)
    close(list(report.energies), expected)
    close(model.raw(), raw)


def test_one_incremental_step_moves_the_last_layer_as_backpropagation_does() -> None:
    """At forward values only the output has an error, which reaches no further than the weights that lead to it."""
    model, before, _ = train(pxl.IPC(1), batches=1)
    reference, _, _ = train(pxl.Backprop(), batches=1)
    close(model.raw()[-1], reference.raw()[-1])
    for layer in range(len(SIZES) - 2):
        np.testing.assert_array_equal(model.raw()[layer][0], before[layer][0])
        np.testing.assert_array_equal(model.raw()[layer][1], before[layer][1])

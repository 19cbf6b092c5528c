"""Running statistics move once for each training batch, with the forward pass, as in the same steps by hand in raw JAX.

The network is u₁ = tanh(N₁(W₁x + b₁)), u₂ = W₂N₂(h₁) + b₂, with h₂ clamped to the target. N₂ sees a state that moves
during inference, so that its statistics would move with it, if they moved at every step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.oracles import Network, close, linears

SIZES = (4, 6, 3)
BATCH, STEPS, MOMENTUM, EPS = 8, 5, 0.7, 1e-3
LR_NODES, LR_WEIGHTS = 0.1, 0.2
RNG = np.random.default_rng(0)
XS = (2 * RNG.normal(size=(3, BATCH, SIZES[0])) + 1).astype(np.float32)
YS = RNG.normal(size=(3, BATCH, SIZES[-1])).astype(np.float32)
Raw = dict[str, Array]
Statistics = dict[str, tuple[Array, Array]]


class Model(Network):
    calls = 0

    def __init__(self) -> None:
        super().__init__(linears(SIZES, seed=2))
        self.norms = {"1": norm(), "2": norm()}

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        Model.calls += 1
        return super().__call__(x, y)

    def apply_layer(self, number: int, x: Array) -> Any:
        first, second = self.layers
        return second(self.norms["2"](x)) if number else self.norms["1"](first(x))

    def raw(self) -> Raw:
        named = {"1": self.layers[0], "2": self.layers[1], "n1": self.norms["1"], "n2": self.norms["2"]}
        return {
            f"{kind}{name}": getattr(layer.nn, kind).get()
            for name, layer in named.items()
            for kind in ("weight", "bias")
        }

    def statistics(self) -> Statistics:
        states = {name: layer.state.get() for name, layer in self.norms.items()}
        return {name: (state.mean, state.var) for name, state in states.items()}


def norm() -> pxnn.BatchNorm:
    return pxnn.BatchNorm(SIZES[1], "batch", EPS, momentum=MOMENTUM)


def move(old: tuple[Array, Array] | None, x: Array) -> tuple[Array, Array]:
    new = x.mean(0), ((x - x.mean(0)[None]) ** 2).mean(0)
    if old is None:
        return new
    return MOMENTUM * old[0] + (1 - MOMENTUM) * new[0], MOMENTUM * old[1] + (1 - MOMENTUM) * new[1]


def linear(weights: Raw, name: str, x: Array) -> Array:
    return x @ weights[f"weight{name}"].T + weights[f"bias{name}"][None]


def normalise(weights: Raw, name: str, x: Array, statistics: Statistics) -> Array:
    mean, var = (value[None] for value in statistics[name])
    return weights[f"weightn{name}"][None] * (x - mean) / jnp.sqrt(var + EPS) + weights[f"biasn{name}"][None]


def hidden(weights: Raw, x: Array, statistics: Statistics) -> Array:
    return jnp.tanh(normalise(weights, "1", linear(weights, "1", x), statistics))


def output(weights: Raw, h: Array, statistics: Statistics) -> Array:
    return linear(weights, "2", normalise(weights, "2", h, statistics))


def energy(weights: Raw, h: Array, x: Array, y: Array, statistics: Statistics) -> Array:
    return 0.5 * (((h - hidden(weights, x, statistics)) ** 2).sum() + ((y - output(weights, h, statistics)) ** 2).sum())


def initial(weights: Raw, x: Array, old: Statistics) -> tuple[Array, Statistics]:
    """The forward pass, and the statistics that it leaves."""
    first = {"1": move(old.get("1"), linear(weights, "1", x))}
    h = hidden(weights, x, first)
    return h, {**first, "2": move(old.get("2"), h)}


def relaxed(weights: Raw, h: Array, x: Array, y: Array, statistics: Statistics) -> tuple[Array, list[Array]]:
    history = []
    for _ in range(STEPS):
        value, grad = jax.value_and_grad(energy, argnums=1)(weights, h, x, y, statistics)
        history.append(value / BATCH)
        h = h - LR_NODES * grad
    return h, history


def optimisers(model: Model) -> dict[str, pxu.Optim]:
    weights = pxu.Optim(optax.sgd(LR_WEIGHTS), pxl.WEIGHTS(model))
    return {"nodes": pxu.Optim(optax.sgd(LR_NODES)), "weights": weights}


@pytest.mark.thorough
@pytest.mark.parametrize("mode", [None, px.Module.MODE.TRAIN])
@pytest.mark.parametrize("unroll", [False, True])
def test_training_equals_the_same_by_hand(mode: px.Module.MODE | None, unroll: bool) -> None:
    model = Model()
    if mode is not None:
        model.mode(mode)
    raw, optims, statistics = model.raw(), optimisers(model), Statistics()
    before = Model.calls
    for x, y in zip(XS, YS, strict=True):
        history = pxl.PC(STEPS, unroll)(x, y, model=model, **optims).energies
        h, statistics = initial(raw, jnp.asarray(x), statistics)
        h, expected = relaxed(raw, h, jnp.asarray(x), jnp.asarray(y), statistics)
        grads = jax.grad(energy)(raw, h, x, y, statistics)
        raw = jax.tree.map(lambda weight, grad: weight - LR_WEIGHTS / BATCH * grad, raw, grads)
        close(list(history), expected)
        close(model.raw(), raw)
        close(model.statistics(), statistics)
        assert model.mode() is mode
        assert [layer.mode() for layer in model.norms.values()] == [mode] * 2
        assert [layer.inference for layer in model.norms.values()] == [False] * 2
        calls, before = Model.calls - before, Model.calls
    assert calls == 0, "the modes of the inside are not seen as another structure outside"


@pytest.mark.thorough
def test_only_initialising_moves_them() -> None:
    model = Model()
    optims = optimisers(model)
    x, y = XS[0], YS[0]
    pxl.initialise(x, y, model=model)
    h, statistics = initial(model.raw(), jnp.asarray(x), {})
    close(model.vodes[0].h.get(), h)
    close(model.statistics(), statistics)
    held = [layer.state.get() for layer in model.norms.values()]

    energies = pxl.energies(x, model=model)
    close(energies.sum(), energy(model.raw(), h, jnp.asarray(x), jnp.asarray(y), statistics))
    pxl.infer(x, STEPS, model=model, optim=optims["nodes"])
    pxl.learn(x, model=model, optim=optims["weights"])
    prediction = pxl.predict(XS[1], model)
    raw = model.raw()
    close(prediction, output(raw, hidden(raw, jnp.asarray(XS[1]), statistics), statistics))
    close(pxl.predict(XS[1][:2], model), prediction[:2])  # samples do not see each other
    assert all(layer.state.get() is old for layer, old in zip(model.norms.values(), held, strict=True))
    assert not model.norms["1"].is_eval


@pytest.mark.thorough
def test_in_eval_mode_nothing_moves_them() -> None:
    """Fine-tuning at fixed statistics: one layer's, or all."""
    model = Model()
    optims = optimisers(model)
    pxl.PC(STEPS)(XS[0], YS[0], model=model, **optims)
    before = model.statistics()
    model.norms["1"].eval()
    pxl.PC(STEPS)(XS[1], YS[1], model=model, **optims)
    middle = model.statistics()
    close(middle["1"], before["1"])
    assert float(jnp.abs(middle["2"][0] - before["2"][0]).max()) > 1e-3
    model.eval()
    pxl.PC(STEPS)(XS[2], YS[2], model=model, **optims)
    close(model.statistics(), middle)
    model.train()
    pxl.PC(STEPS)(XS[2], YS[2], model=model, **optims)
    assert float(jnp.abs(model.statistics()["1"][0] - middle["1"][0]).max()) > 1e-3

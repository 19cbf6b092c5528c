"""Gradients and inference against formulas in numpy.

The network is u₁ = f(W₁x + b₁), u₂ = f(W₂h₁ + b₂), u₃ = W₃h₂ + b₃, with h₃ clamped to the target. With ∂e/∂h and ∂e/∂u
of each node's energy e, and a the argument of f (which is the identity at the end):

    ∂E/∂h_l = ∂e_l/∂h_l + W_{l+1}ᵀ (f'(a_{l+1}) ∂e_{l+1}/∂u_{l+1})
    ∂E/∂W_l = (f'(a_l) ∂e_l/∂u_l) h_{l-1}ᵀ,  ∂E/∂b_l = f'(a_l) ∂e_l/∂u_l
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from numpy.typing import NDArray

import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients

Floats = NDArray[np.float64]
SIZES = [4, 6, 5, 3]
BATCH = 7


class Model(Chain):
    def __init__(self, act_fn: Callable[[Array], Array], energy_fns: list[Any]) -> None:
        super().__init__(SIZES, act_fn, seed=1, bias=True)
        for vode, energy_fn in zip(self.vodes, energy_fns, strict=True):
            vode.energy_fn = energy_fn

    def states(self) -> list[Array]:
        return [vode.h.get() for vode in self.vodes]


@dataclass
class Activation:
    in_jax: Callable[[Array], Array]
    in_numpy: Callable[[Floats], Floats]
    derivative: Callable[[Floats], Floats]


ACTIVATIONS = {
    "linear": Activation(lambda x: x, lambda a: a, np.ones_like),
    "tanh": Activation(jnp.tanh, np.tanh, lambda a: 1 - np.tanh(a) ** 2),
}


@dataclass
class Energy:
    """An energy, its sum over the elements for each sample, and its derivatives with respect to h and u."""

    in_jax: Any
    value: Callable[[Floats, Floats], Floats]
    by_h: Callable[[Floats, Floats], Floats]
    by_u: Callable[[Floats, Floats], Floats]


def softmax(u: Floats) -> Floats:
    e = np.exp(u - u.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def with_precision(precision: float) -> Energy:
    def in_jax(vode: Any) -> Any:
        return 0.5 * precision * (vode.get("h") - vode.get("u")) ** 2

    return Energy(
        in_jax,
        lambda h, u: 0.5 * precision * ((h - u) ** 2).sum(-1),
        lambda h, u: precision * (h - u),
        lambda h, u: precision * (u - h),
    )


SQUARED = Energy(pxc.se_energy, **{k: v for k, v in vars(with_precision(1.0)).items() if k != "in_jax"})
CROSS_ENTROPY = Energy(
    pxc.ce_energy,
    lambda h, u: -(h * np.log(softmax(u))).sum(-1),
    lambda h, u: -np.log(softmax(u)),
    lambda h, u: h.sum(-1, keepdims=True) * softmax(u) - h,
)
ENERGIES = {
    "squared error": [SQUARED] * 3,
    "cross entropy": [SQUARED, SQUARED, CROSS_ENTROPY],
    "custom precisions": [with_precision(0.5), with_precision(3.0), with_precision(1.5)],
}


@dataclass
class ByHand:
    """The network in numpy."""

    activation: Activation
    energies: list[Energy]
    weights: list[Floats]
    biases: list[Floats]

    def arguments(self, x: Floats, h: list[Floats]) -> list[Floats]:
        return [below @ w.T + b for below, w, b in zip([x, *h], self.weights, self.biases, strict=False)]

    def predictions(self, a: list[Floats]) -> list[Floats]:
        return [*(self.activation.in_numpy(each) for each in a[:-1]), a[-1]]

    def initial(self, x: Floats, y: Floats) -> list[Floats]:
        h: list[Floats] = []
        for _ in self.weights:
            h.append(self.predictions([*self.arguments(x, h)[: len(h) + 1], x])[len(h)])
        return [*h[:-1], y]

    def energy(self, x: Floats, h: list[Floats]) -> Floats:
        u = self.predictions(self.arguments(x, h))
        return np.asarray(sum(energy.value(*hu) for energy, *hu in zip(self.energies, h, u, strict=True)))

    def gradients(self, x: Floats, h: list[Floats]) -> tuple[list[Floats], list[Floats], list[Floats]]:
        a = self.arguments(x, h)
        u = self.predictions(a)
        slopes = [*(self.activation.derivative(each) for each in a[:-1]), np.ones_like(a[-1])]
        by_a = [slope * energy.by_u(*hu) for slope, energy, *hu in zip(slopes, self.energies, h, u, strict=True)]
        by_h = [energy.by_h(*hu) for energy, *hu in zip(self.energies, h, u, strict=True)]
        for below, delta, w in zip(range(2), by_a[1:], self.weights[1:], strict=True):
            by_h[below] = by_h[below] + delta @ w
        by_w = [delta.T @ below for delta, below in zip(by_a, [x, *h[:-1]], strict=True)]
        return by_h, by_w, [delta.sum(0) for delta in by_a]


def build(activation: str, energies: str) -> tuple[Model, ByHand, Floats, Floats]:
    used = ENERGIES[energies]
    model = Model(ACTIVATIONS[activation].in_jax, [energy.in_jax for energy in used])
    definitions = [layer.nn for layer in model.layers]
    weights = [np.asarray(nn.weight, np.float64) for nn in definitions]
    by_hand = ByHand(ACTIVATIONS[activation], used, weights, [np.asarray(nn.bias, np.float64) for nn in definitions])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, SIZES[0])).astype(np.float32).astype(np.float64)
    return model, by_hand, x, np.eye(SIZES[-1])[rng.integers(SIZES[-1], size=BATCH)]


def as_jax(array: Floats) -> Array:
    return jnp.asarray(array, jnp.float32)


@pytest.mark.parametrize("energies", ENERGIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_the_energy(activation: str, energies: str) -> None:
    """At states away from the forward pass, of every value node, the clamped one too, and every weight."""
    model, by_hand, x, y = build(activation, energies)
    rng = np.random.default_rng(1)
    h = [state + rng.normal(size=state.shape).astype(np.float32) for state in by_hand.initial(x, y)]
    for vode, state in zip(model.vodes, h, strict=True):
        vode.set("h", as_jax(state))
    h = [np.asarray(vode.h, np.float64) for vode in model.vodes]

    @pxf.jit
    @pxf.value_and_grad({"model": pxu.M(pxc.VodeParam | pxnn.LayerParam)})
    def energy(x: Array, *, model: Model) -> Array:
        return pxl.energies(x, model=model).sum()

    value, grads = energy(as_jax(x), model=model)
    by_h, by_w, by_b = by_hand.gradients(x, h)
    np.testing.assert_allclose(value, by_hand.energy(x, h).sum(), rtol=1e-5)
    for node in range(3):
        nn = grads["model"].layers[node].nn
        gradients = grads["model"].vodes[node].h, nn.weight, nn.bias
        for found, expected in zip(gradients, (by_h[node], by_w[node], by_b[node]), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5, err_msg=f"node {node}")


@pytest.mark.parametrize("energies", ENERGIES)
def test_trajectory_of_inference(energies: str) -> None:
    """Every h after each of 20 steps of SGD with momentum: m ← 0.9 m + ∂E/∂h, h ← h − 0.05 m."""
    model, by_hand, x, y = build("tanh", energies)
    pxl.initialise(as_jax(x), as_jax(y), model=model)
    h = by_hand.initial(x, y)
    for found, expected in zip(model.states(), h, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)

    trajectory, history = [], []
    momentum = [np.zeros_like(state) for state in h[:-1]]
    for _ in range(20):
        history.append(by_hand.energy(x, h).mean())
        momentum = [0.9 * m + gradient for m, gradient in zip(momentum, by_hand.gradients(x, h)[0], strict=False)]
        h = [*(state - 0.05 * m for state, m in zip(h, momentum, strict=False)), y]
        trajectory.append(h)

    @pxf.value_and_grad({"model": pxl.NODES})
    def energy(x: Array, *, model: Model) -> Array:
        return pxl.energies(x, model=model).sum()

    def step(_: None, *, model: Model, optim: pxu.Optim) -> tuple[tuple[()], list[Array]]:
        optim.step(model, energy(as_jax(x), model=model)[1]["model"])
        return (), model.states()

    @pxf.jit
    def states(*, model: Model, optim: pxu.Optim) -> list[Array]:
        optim.init(pxl.NODES(model))
        return pxf.scan(step, length=20)(model=model, optim=optim)[1]

    initial = model.states()
    optim = pxu.Optim(optax.sgd(0.05, momentum=0.9))
    for node, found in enumerate(states(model=model, optim=optim)):
        states_by_hand = [each[node] for each in trajectory]
        np.testing.assert_allclose(found, states_by_hand, atol=1e-5, rtol=1e-5, err_msg=f"node {node}")

    for vode, state in zip(model.vodes, initial, strict=True):
        vode.h.set(state)
    optim.clear()
    found = pxl.infer(as_jax(x), 20, model=model, optim=optim)
    np.testing.assert_allclose(found, history, atol=1e-5, rtol=1e-5)
    for state, expected in zip(model.states(), trajectory[-1], strict=True):
        np.testing.assert_allclose(state, expected, atol=1e-5, rtol=1e-5)


def test_equilibrium_of_a_linear_network() -> None:
    """The energy is quadratic in h, so inference ends where a linear system says: H h = g."""
    model, by_hand, x, y = build("linear", "squared error")
    pxl.initialise(as_jax(x), as_jax(y), model=model)
    history = pxl.infer(as_jax(x), 400, model=model, optim=pxu.Optim(optax.sgd(0.3)))
    w, b = by_hand.weights, by_hand.biases
    eye = np.eye(SIZES[1]), np.eye(SIZES[2])
    matrix = np.block([[eye[0] + w[1].T @ w[1], -w[1].T], [-w[1], eye[1] + w[2].T @ w[2]]])
    right = np.concatenate([x @ w[0].T + b[0] - b[1] @ w[1], b[1] + (y - b[2]) @ w[2]], axis=1)
    expected = np.linalg.solve(matrix, right.T).T
    found = np.concatenate([np.asarray(state) for state in model.states()[:2]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.all(np.diff(np.asarray(history)) <= 1e-7)
    assert history[-1] < 0.9 * history[0]


@pytest.mark.parametrize("energies", ENERGIES)
def test_the_energy_falls(energies: str) -> None:
    model, _, x, y = build("tanh", energies)
    pxl.initialise(as_jax(x), as_jax(y), model=model)
    history = np.asarray(pxl.infer(as_jax(x), 30, model=model, optim=pxu.Optim(optax.sgd(0.05))))
    assert history.shape == (30,)
    assert np.all(np.diff(history) < 0)


def test_a_sample_moves_the_same_in_a_batch_of_any_size() -> None:
    whole, _, x, y = build("tanh", "squared error")
    alone, *_ = build("tanh", "squared error")
    for model, size in ((whole, BATCH), (alone, 1)):
        pxl.initialise(as_jax(x[:size]), as_jax(y[:size]), model=model)
        pxl.infer(as_jax(x[:size]), 5, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    for one, other in zip(whole.states(), alone.states(), strict=True):
        np.testing.assert_allclose(one[:1], other, atol=1e-6)


def test_frozen_nodes_are_not_inferred() -> None:
    model, _, x, y = build("tanh", "squared error")
    model.vodes[0].h.frozen = True
    pxl.initialise(as_jax(x), as_jax(y), model=model)
    before = model.states()
    pxl.infer(as_jax(x), 5, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    moved = [bool((one != other).any()) for one, other in zip(before, model.states(), strict=True)]
    assert moved == [False, True, False]


def test_inference_needs_states() -> None:
    model, _, x, y = build("tanh", "squared error")
    words = r"expected all nodes to have a state, found none in \.vodes\[0\]\.h, .*: call"
    with pytest.raises(ValueError, match=words):
        pxl.infer(as_jax(x), 5, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    pxl.initialise(as_jax(x), as_jax(y), model=model)
    with pytest.raises(ValueError, match=r"lane counts disagree: 2 in argument 0 .*, 7 in model\.vodes\[0\]\.h"):
        pxl.infer(as_jax(x[:2]), 5, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    for steps in (0, 5.0):
        with pytest.raises(ValueError, match=f"steps expected a positive int, found {steps}"):
            pxl.infer(as_jax(x), steps=steps, model=model, optim=pxu.Optim(optax.sgd(0.1)))  # type: ignore[arg-type]  # a float


def test_the_contents_of_the_cache_do_not_matter() -> None:
    """A forward pass outside leaves entries in the cache; inference and energies start from none."""
    results = []
    for filled in (False, True):
        model, _, x, y = build("tanh", "squared error")
        pxl.initialise(as_jax(x), as_jax(y), model=model)
        if filled:
            for vode in model.vodes:
                vode.cache.set({"u": vode.h.get(), "E": jnp.zeros(BATCH), "other": jnp.zeros(BATCH)})
        first = pxl.energies(as_jax(x), model=model)
        assert all(vode.cache.get() is None for vode in model.vodes)
        if filled:
            for vode in model.vodes:
                vode.cache.set({"E": jnp.zeros(BATCH)})
        results.append((first, pxl.infer(as_jax(x), 3, model=model, optim=pxu.Optim(optax.sgd(0.1)))))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_inference_follows_the_rules_of_the_present_status() -> None:
    """In a status without the prediction of the first node: E = ½h² + ½(y − W₂h)², where h starts at tanh(W₁x)."""
    model = Chain([4, 5, 3])
    tforms = {"nothing": lambda vode, key, value, rkg: jnp.zeros_like(value)}
    model.vodes[0] = pxc.Vode(ruleset={"alone": ("u <- u:nothing",)}, tforms=tforms)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(BATCH, size)), jnp.float32) for size in (4, 3))
    first, second = model.weights

    def energy(h: Array, weight: Array) -> Array:
        return 0.5 * (h**2).sum(axis=1) + 0.5 * ((y - h @ weight.T) ** 2).sum(axis=1)

    h = jnp.tanh(x @ first.T)
    moved = h - 0.1 * jax.grad(lambda h: energy(h, second).sum())(h)
    with pxu.step(model, "alone"):
        grads, report = gradients(pxl.PC(1), model, x, y)
        pxl.initialise(x, y, model=model)
        np.testing.assert_allclose(pxl.energies(x, model=model), energy(h, second), rtol=1e-5)
        history = pxl.infer(x, 1, model=model, optim=pxu.Optim(optax.sgd(0.1)))
        assert model.status == "alone"
    np.testing.assert_allclose(history[0], energy(h, second).mean(), rtol=1e-5)
    np.testing.assert_allclose(report.history.total, history, rtol=1e-6)
    np.testing.assert_allclose(model.vodes[0].h.get(), moved, atol=1e-6)
    expected = jax.grad(lambda weight: energy(moved, weight).mean())(second)
    np.testing.assert_allclose(grads[".layers[1].nn.weight"], expected, atol=1e-6)
    assert not grads[".layers[0].nn.weight"].any()


def test_a_model_has_one_status() -> None:
    model, _, x, y = build("tanh", "squared error")
    pxl.initialise(as_jax(x), as_jax(y), model=model)
    model.vodes[1].status = "other"
    words = r"expected a model of one status, found None in .*, 'other' in \.vodes\[1\]: .* step\(model, status\)"
    with pytest.raises(ValueError, match=words):
        pxl.infer(as_jax(x), 5, model=model, optim=pxu.Optim(optax.sgd(0.1)))

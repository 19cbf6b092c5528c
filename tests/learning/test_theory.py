"""Equilibrium energies, Hessians and best steps of linear networks, against numpy and long inference in 64 bits."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, relative_difference
from tests.oracles import Network, enable_x64, linears

RNG = np.random.default_rng(0)
SIZES = [4, 3, 5, 2]
X, Y = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 2))


def identity(x: Array) -> Array:
    return x


def weights_of(sizes: list[int]) -> list[np.ndarray]:
    return [RNG.normal(size=(b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]


def chain(weights: list[np.ndarray], act_fn: Any = identity) -> Chain:
    model = Chain([weights[0].shape[1], *map(len, weights)], act_fn)
    for layer, weight in zip(model.layers, weights, strict=True):
        layer.nn.weight.set(jnp.asarray(weight))
    return model


def test_two_layers_of_one_unit_by_hand() -> None:
    """½(h − ax)² + ½(y − bh)² is least at h = (ax + by) / (1 + b²), where it is ½(y − abx)² / (1 + b²)."""
    a, b, x, y = 2.0, 3.0, 0.5, -1.0
    h = (a * x + b * y) / (1 + b**2)
    expected = 0.5 * (h - a * x) ** 2 + 0.5 * (y - b * h) ** 2
    found = pxl.linear_energy([jnp.array([[a]]), jnp.array([[b]])], jnp.array([[x]]), jnp.array([[y]]))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    np.testing.assert_allclose(pxl.linear_hessian([jnp.array([[a]]), jnp.array([[b]])]), [[1 + b**2]])


@pytest.mark.thorough
@pytest.mark.parametrize("sizes", [[4, 2], [4, 3, 2], SIZES, [4, 6, 6, 6, 6, 6, 2]])
def test_the_least_energy_and_its_curvature_by_least_squares(sizes: list[int]) -> None:
    """Of all residuals, stacked into A h − b, which numpy minimises."""
    weights = weights_of(sizes)
    hidden = sum(sizes[1:-1])
    starts = np.cumsum([0, *sizes[1:]])
    energies = []
    a = np.zeros((starts[-1], hidden))
    for layer, weight in enumerate(weights):
        rows = slice(starts[layer], starts[layer + 1])
        if layer < len(weights) - 1:
            a[rows, rows] = np.eye(len(weight))
        if layer > 0:
            a[rows, starts[layer - 1] : starts[layer]] = -weight
    for x, y in zip(X, Y, strict=True):
        b = np.zeros(starts[-1])
        b[: sizes[1]] += weights[0] @ x
        b[starts[-2] :] -= y
        h = np.linalg.lstsq(a, b, rcond=None)[0]
        energies.append(0.5 * np.sum((a @ h - b) ** 2))
    with enable_x64(True):
        matrices = [jnp.asarray(weight) for weight in weights]
        np.testing.assert_allclose(pxl.linear_energy(matrices, jnp.asarray(X), jnp.asarray(Y)), energies, rtol=1e-9)
        if hidden:
            np.testing.assert_allclose(pxl.linear_hessian(matrices), a.T @ a, rtol=1e-12, atol=1e-12)


def test_the_blocks_of_the_hessian() -> None:
    weights = weights_of(SIZES)
    h = np.asarray(pxl.linear_hessian([pxnn.LayerParam(jnp.asarray(weight, jnp.float32)) for weight in weights]))
    np.testing.assert_allclose(h[:3, :3], np.eye(3) + weights[1].T @ weights[1], atol=1e-6)
    np.testing.assert_allclose(h[3:, 3:], np.eye(5) + weights[2].T @ weights[2], atol=1e-6)
    np.testing.assert_allclose(h[3:, :3], -weights[1], atol=1e-6)
    np.testing.assert_allclose(h, h.T)


@pytest.mark.thorough
def test_long_inference_ends_there_and_contracts_at_the_best_rate() -> None:
    """With the best step, the slowest error shrinks by (κ − 1) / (κ + 1) in each step, no matter of which sign."""
    with enable_x64(True):
        weights, x, y = weights_of([4, 6, 6, 6, 2]), jnp.asarray(X), jnp.asarray(Y)
        model = chain(weights)
        matrices = model.weights
        found = pxl.conditioning(pxl.linear_hessian(matrices))
        eigenvalues = np.linalg.eigvalsh(np.asarray(pxl.linear_hessian(matrices)))
        np.testing.assert_allclose(found.number, eigenvalues[-1] / eigenvalues[0])
        np.testing.assert_allclose(found.step, 2 / (eigenvalues[0] + eigenvalues[-1]))
        np.testing.assert_allclose(found.rate, max(abs(1 - found.step * eigenvalues)))

        pxl.initialise(x, y, model=model)
        least = pxl.linear_energy(matrices, x, y)
        gaps = []
        for _ in range(2):
            pxl.infer(x, 100, model=model, optim=pxu.Optim(optax.sgd(float(found.step))))
            gaps.append(float((pxl.energies(x, model=model) - least).sum()))
        # The energy is quadratic in the error.
        np.testing.assert_allclose((gaps[1] / gaps[0]) ** (1 / 200), float(found.rate), rtol=1e-3)
        for step in (0.9 * float(found.step), 1.1 * float(found.step)):
            assert np.abs(1 - step * eigenvalues).max() > float(found.rate), "no other step is as good"
        pxl.infer(x, 6000, model=model, optim=pxu.Optim(optax.sgd(float(found.step))))
        np.testing.assert_allclose(pxl.energies(x, model=model), least, rtol=1e-10)


@pytest.mark.thorough
def test_the_gradient_of_the_least_energy_is_what_pc_learns_from() -> None:
    """By the envelope theorem: ∂E/∂h = 0, so that dE*/dW = ∂E/∂W at fixed states."""
    with enable_x64(True):
        model, x, y = chain(weights_of([4, 6, 6, 2])), jnp.asarray(X), jnp.asarray(Y)
        step = float(pxl.conditioning(pxl.linear_hessian(model.weights)).step)
        learned, _ = gradients(pxl.PC(3000), model, x, y, optax.sgd(step))
        expected = jax.grad(lambda weights: pxl.linear_energy(weights, x, y).mean())(model.weights)
        assert relative_difference(learned, dict(zip(learned, expected, strict=True))) < 1e-9


def test_state_hessian_of_a_linear_chain() -> None:
    model = chain([weight.astype(np.float32) for weight in weights_of(SIZES)])
    x, y = jnp.float32(X), jnp.float32(Y)
    pxl.initialise(x, y, model=model)
    states = [vode.h.get() for vode in model.vodes]
    found = pxl.state_hessian(x, model=model)
    expected = pxl.linear_hessian(model.weights)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (6, 8, 8)), atol=1e-5)
    assert all(vode.h.get() is state for vode, state in zip(model.vodes, states, strict=True)), "nothing is written"


@pytest.mark.thorough
def test_state_hessian_of_a_nonlinear_network_equals_jax() -> None:
    model = Network(linears(SIZES), jnp.tanh)
    x, y = jnp.float32(X), jnp.float32(Y)
    pxl.initialise(x, y, model=model)
    model.vodes[0].h += 0.3
    layers = [(layer.nn.weight.get(), px.get(layer.nn.bias)) for layer in model.layers]

    def energy(h: Array, x: Array, y: Array) -> Array:
        states = [x, h[:3], h[3:], y]
        total = jnp.array(0.0)
        for number, (weight, bias) in enumerate(layers):
            u = weight @ states[number] + bias
            total += 0.5 * jnp.sum((states[number + 1] - (u if number == 2 else jnp.tanh(u))) ** 2)
        return total

    h = jnp.concatenate([model.vodes[0].h.get(), model.vodes[1].h.get()], axis=-1)
    found = pxl.state_hessian(x, model=model)
    np.testing.assert_allclose(found, jax.vmap(jax.hessian(energy))(h, x, y), atol=1e-5)
    assert found.shape == (6, 8, 8)
    assert not np.allclose(found[0], found[1])
    conditions = pxl.conditioning(found)
    np.testing.assert_allclose(conditions.number, np.linalg.cond(np.asarray(found)), rtol=1e-3)


def test_state_hessian_with_precisions_and_of_stacks() -> None:
    """p of a node takes the place of 1; a stack joins the states of its layers."""
    model = Network(linears([4, 3, 2], bias=False), identity)
    model.vodes[0].precision = pxnn.LayerParam(jnp.array([1.0, 2.0, 3.0]))
    pxl.initialise(jnp.float32(X), jnp.float32(Y), model=model)
    w = model.layers[1].nn.weight.get()
    expected = np.diag([1.0, 2.0, 3.0]) + w.T @ w
    np.testing.assert_allclose(pxl.state_hessian(jnp.float32(X), model=model)[0], expected, atol=1e-5)

    deep = pxl.ResidualNetwork(2, 3, 1, depth=4)
    x = jnp.ones((2, 2))
    pxl.initialise(x, jnp.ones((2, 1)), model=deep)
    sizes = sum(int(np.prod(param.shape[1:])) for param in px.tree_extract(deep, filter_fn=pxl.NODES.apply))
    hessians = pxl.state_hessian(x, model=deep)
    assert hessians.shape == (2, sizes, sizes)
    np.testing.assert_allclose(hessians, hessians.swapaxes(1, 2), atol=1e-6)


def test_within_jit() -> None:
    weights = [jnp.float32(weight) for weight in weights_of(SIZES)]
    compiled = pxf.jit(lambda *weights: pxl.conditioning(pxl.linear_hessian(weights)))(*weights)
    for found, expected in zip(compiled, pxl.conditioning(pxl.linear_hessian(weights)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    saddle = pxf.jit(pxl.conditioning)(jnp.diag(jnp.array([-1.0, 2.0])))
    np.testing.assert_array_equal(saddle, [-1.0, 2.0, np.nan, np.nan, np.nan])


def test_mistakes() -> None:
    a, b = jnp.ones((3, 4)), jnp.ones((2, 3))
    x, y = jnp.ones((5, 4)), jnp.ones((5, 2))
    for weights in ([b, a], [a.T, b.T], [a, jnp.ones(3)]):
        with pytest.raises(ValueError, match=r"from input to output, of shapes \(out_features, in_features\).*found"):
            pxl.linear_energy(weights, x, y)
    with pytest.raises(ValueError, match="at least 1 layers, found 0"):
        pxl.linear_energy([], x, y)
    with pytest.raises(ValueError, match="at least 2 layers, found 1"):
        pxl.linear_hessian([a])
    for samples, targets in ((y, x), (x, y[:1]), (x[0], y[0])):
        with pytest.raises(ValueError, match=r"samples of shape \(batch, 4\) and targets of shape \(batch, 2\), found"):
            pxl.linear_energy([a, b], samples, targets)
    for matrix in (a, jnp.ones(3), jnp.ones((0, 0))):
        with pytest.raises(ValueError, match="square matrices, found an array of shape"):
            pxl.conditioning(matrix)
    with pytest.raises(ValueError, match="symmetric, found a matrix that is not"):
        pxl.conditioning(jnp.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="smallest eigenvalue is -1: gradient descent does not converge"):
        pxl.conditioning(jnp.diag(jnp.array([-1.0, 2.0])))
    model = Network(linears([4, 2]), identity)
    with pytest.raises(ValueError, match=r"initialise\(x, y, model=model\) first"):
        pxl.state_hessian(x, model=model)
    pxl.initialise(x, y, model=model)
    with pytest.raises(ValueError, match="inferred nodes, found that all are observed"):
        pxl.state_hessian(x, model=model)
    linear_energy = Network(linears([4, 3, 2]), identity)
    linear_energy.vodes[0].energy_fn = pxc.ce_energy
    pxl.initialise(x, y, model=linear_energy)
    with pytest.raises(ValueError, match=r"ce_energy in \.vodes\[0\]"):
        pxl.state_hessian(x, model=linear_energy)

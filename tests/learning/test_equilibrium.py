"""Where inference ends, against closed forms.

A linear network with weights W_1 … W_L, input x and target y has its equilibrium where, with P_l = W_L ⋯ W_l,

    E* = ½ rᵀ S⁻¹ r,  r = y − P_1 x,  S = I + Σ_{l=2..L} P_l P_lᵀ

(Innocenti et al., Only Strict Saddles in the Energy Landscape of Predictive Coding Networks?, 2024), and the states
solve h_l − W_l h_{l−1} = W_{l+1}ᵀ (h_{l+1} − W_{l+1} h_l) for l = 1 … L − 1, a linear system.
"""

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, relative_difference
from tests.oracles import enable_x64

SIZE, BATCH = 5, 3
RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.normal(size=(BATCH, SIZE)), jnp.float32) for _ in range(2))
MOMENTUM = optax.sgd(0.2, momentum=0.9)


def identity(x: Array) -> Array:
    return x


def equilibrium(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The energy, and all hidden states, of one sample."""
    products = [reduce(np.matmul, weights[start:][::-1]) for start in range(len(weights))]
    residual = y - products[0] @ x
    s = np.eye(SIZE) + sum(product @ product.T for product in products[1:])
    energy = 0.5 * residual @ np.linalg.solve(s, residual)
    count = len(weights) - 1
    system, right = np.eye(count * SIZE), np.zeros(count * SIZE)
    block = [slice(SIZE * layer, SIZE * (layer + 1)) for layer in range(count)]
    for layer, above in enumerate(weights[1:]):
        system[block[layer], block[layer]] += above.T @ above
        if layer > 0:
            system[block[layer], block[layer - 1]] -= weights[layer]
        if layer < count - 1:
            system[block[layer], block[layer + 1]] -= above.T
    right[block[0]] += weights[0] @ x
    right[block[-1]] += weights[-1].T @ y
    return float(energy), np.linalg.solve(system, right).reshape(count, SIZE)


@pytest.mark.parametrize("depth", [3, 10, 20])
def test_a_linear_network(depth: int) -> None:
    model = Chain([SIZE] * (depth + 1), identity).orthogonal()
    pxl.initialise(X, Y, model=model)
    history = pxl.infer(X, 2000, model=model, optim=pxu.Optim(MOMENTUM))
    weights = [np.asarray(w, np.float64) for w in model.weights]
    expected = [equilibrium(weights, np.asarray(x), np.asarray(y)) for x, y in zip(X, Y, strict=True)]
    np.testing.assert_allclose(pxl.energies(X, model=model), [energy for energy, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(history[-1], np.mean([energy for energy, _ in expected]), rtol=1e-5)
    for number, vode in enumerate(model.vodes[:-1]):
        np.testing.assert_allclose(vode.h.get(), np.stack([states[number] for _, states in expected]), atol=2e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("precision", [None, 2.0])
@pytest.mark.parametrize("act_fn", [jnp.tanh, identity], ids=["tanh", "linear"])
def test_errors_and_states_have_the_same_equilibrium(act_fn: Any, precision: float | None) -> None:
    """Also of a node with a precision p, where ½p e² takes the place of ½e², and which learns p with the weights."""
    model = Chain([SIZE, 7, 6, SIZE], act_fn)
    if precision is not None:
        model.vodes[0].precision = pxnn.LayerParam(jnp.full(7, precision))
    by_states, report = gradients(pxl.PC(1000), model, X, Y, MOMENTUM)
    by_errors, other = gradients(pxl.EPC(1000), model, X, Y, optax.sgd(0.2))
    np.testing.assert_allclose(other.energies[-1], report.energies[-1], rtol=1e-4)
    assert relative_difference(by_errors, by_states) < 1e-4


@pytest.mark.thorough
def test_errors_and_the_states_they_stand_for() -> None:
    model = Chain([SIZE, 7, 6, SIZE])

    @pxf.jit
    def infer(x: Array, y: Array, *, model: Chain, optim: pxu.Optim) -> Array:
        pxl.initialise(x, y, model=model)
        history = pxl.relax_errors(x, 3, model=model, optim=optim)
        return history.total

    history = infer(X, Y, model=model, optim=pxu.Optim(optax.sgd(0.1)))

    def forward(errors: list[Array]) -> list[Array]:
        states, h = [], X
        for w, e in zip(model.weights[:-1], errors, strict=True):
            h = jnp.tanh(h @ w.T) + e
            states.append(h)
        return states

    def energy(errors: list[Array]) -> Array:
        output = forward(errors)[-1] @ model.weights[-1].T
        return sum(0.5 * (e**2).sum() for e in errors) + 0.5 * ((Y - output) ** 2).sum()

    errors = [jnp.zeros((BATCH, 7)), jnp.zeros((BATCH, 6))]
    for found in history:
        np.testing.assert_allclose(found, energy(errors) / BATCH, rtol=1e-5)
        errors = [e - 0.1 * grad for e, grad in zip(errors, jax.grad(energy)(errors), strict=True)]
    for vode, e in zip(model.vodes, errors, strict=False):
        np.testing.assert_allclose(vode.h.get(), e, atol=1e-6)
    pxl.states_from_errors(X, model=model)
    for vode, h in zip(model.vodes, forward(errors), strict=False):
        np.testing.assert_allclose(vode.h.get(), h, atol=1e-6)
    np.testing.assert_array_equal(model.vodes[-1].h.get(), Y)


def test_learning_from_errors_is_learning_at_their_states() -> None:
    """Every weight learns from its own error: ∂E/∂W_l = −(f'(W_l h_{l−1}) ∘ e_l) h_{l−1}ᵀ."""
    model = Chain([SIZE, 7, 6, SIZE])
    found, _ = gradients(pxl.EPC(4), model, X, Y, optax.sgd(0.1))
    pxl.initialise(X, Y, model=model)
    pxf.jit(static_argnums=1)(pxl.relax_errors)(X, 4, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    errors = [vode.h.get() for vode in model.vodes[:-1]]
    pxl.states_from_errors(X, model=model)
    h = [X, *(vode.h.get() for vode in model.vodes[:-1])]
    w = model.weights
    slopes = [1 - jnp.tanh(below @ weight.T) ** 2 for below, weight in zip(h, w[:-1], strict=False)]
    deltas = [*(slope * e for slope, e in zip(slopes, errors, strict=True)), Y - h[2] @ w[2].T]
    expected = {path: -(delta.T @ below) / BATCH for path, delta, below in zip(found, deltas, h, strict=True)}
    assert relative_difference(found, expected) < 1e-5


def global_gradients(model: Chain, errors: list[Array], x: Array, y: Array) -> dict[str, Array]:
    """By hand, of E(e, W) = Σ ½e² + ½|y − W_L h_{L−1}|², a mean over samples, with h_l = tanh(W_l h_{l−1}) + e_l."""

    def energy(weights: list[Array]) -> Array:
        h = x
        for w, e in zip(weights[:-1], errors, strict=True):
            h = jnp.tanh(h @ w.T) + e
        total: Array = sum(0.5 * (e**2).sum() for e in errors) + 0.5 * ((y - h @ weights[-1].T) ** 2).sum()
        return total / len(x)

    paths = [f".layers[{number}].nn.weight" for number in range(len(model.layers))]
    return dict(zip(paths, jax.grad(energy)(model.weights), strict=True))


@pytest.mark.thorough
@pytest.mark.parametrize("steps", [1, 4])
def test_the_gradient_at_fixed_errors_goes_through_all_states(steps: int) -> None:
    model = Chain([SIZE, 7, 6, SIZE])
    found, report = gradients(pxl.EPC(steps, gradient="global"), model, X, Y, optax.sgd(0.1))
    _, local = gradients(pxl.EPC(steps), model, X, Y, optax.sgd(0.1))
    np.testing.assert_array_equal(report.energies, local.energies)
    pxl.initialise(X, Y, model=model)
    pxf.jit(static_argnums=1)(pxl.relax_errors)(X, steps, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    errors = [vode.h.get() for vode in model.vodes[:-1]]
    assert relative_difference(found, global_gradients(model, errors, X, Y)) < 1e-5


def test_before_inference_the_global_gradient_is_that_of_backpropagation() -> None:
    """At e = 0, where the local gradient is that of the output layer alone."""
    model = Chain([SIZE, 7, 6, SIZE])
    stays = optax.sgd(0.0)
    found, _ = gradients(pxl.EPC(1, gradient="global"), model, X, Y, stays)
    local, _ = gradients(pxl.EPC(1), model, X, Y, stays)
    expected, _ = gradients(pxl.Backprop(), model, X, Y)
    assert relative_difference(found, expected) < 1e-5
    *hidden, last = found
    np.testing.assert_allclose(local[last], expected[last], rtol=1e-5, atol=1e-7)
    for path in hidden:
        np.testing.assert_array_equal(local[path], 0)


def test_both_gradients_differ_by_what_passes_through_the_states() -> None:
    """dE(e, W)/dW − ∂E(h, W)/∂W = ∂E(h, W)/∂h · ∂h(e, W)/∂W, by hand."""
    model = Chain([SIZE, 7, 6, SIZE])
    local, _ = gradients(pxl.EPC(4), model, X, Y, optax.sgd(0.1))
    found, _ = gradients(pxl.EPC(4, gradient="global"), model, X, Y, optax.sgd(0.1))
    pxl.initialise(X, Y, model=model)
    pxf.jit(static_argnums=1)(pxl.relax_errors)(X, 4, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    errors = [vode.h.get() for vode in model.vodes[:-1]]

    def states(weights: list[Array]) -> list[Array]:
        h = [X]
        for w, e in zip(weights[:-1], errors, strict=True):
            h.append(jnp.tanh(h[-1] @ w.T) + e)
        return h[1:]

    def energy(h: list[Array], weights: list[Array]) -> Array:
        below = [X, *h]
        u = [jnp.tanh(below[number] @ weights[number].T) for number in range(2)] + [below[2] @ weights[2].T]
        return jnp.stack([0.5 * jnp.sum((a - b) ** 2) for a, b in zip([*h, Y], u, strict=True)]).sum() / BATCH

    h, through = jax.vjp(states, model.weights)
    (expected,) = through(jax.grad(energy)(h, model.weights))
    differences = {path: found[path] - local[path] for path in found}
    *hidden, last = differences
    assert (
        relative_difference({path: differences[path] for path in hidden}, dict(zip(hidden, expected, strict=False)))
        < 1e-4
    )
    np.testing.assert_allclose(found[last], local[last], rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("precision", [None, 2.0])
def test_at_equilibrium_both_gradients_are_the_same(precision: float | None) -> None:
    """Where ∂E/∂h = 0; also that of a precision."""
    with enable_x64(True):
        model, x, y = Chain([SIZE, 7, 6, SIZE]), jnp.float64(X), jnp.float64(Y)
        for layer in model.layers:
            layer.nn.weight.set(jnp.float64(layer.nn.weight.get()))
        if precision is not None:
            model.vodes[0].precision = pxnn.LayerParam(jnp.full(7, precision))
        for steps, least, most in ((4, 1e-2, 1.0), (800, 0.0, 1e-12)):
            local, _ = gradients(pxl.EPC(steps), model, x, y, optax.sgd(0.1))
            found, _ = gradients(pxl.EPC(steps, gradient="global"), model, x, y, optax.sgd(0.1))
            assert least <= relative_difference(local, found) < most


def test_another_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match=r'EPC expected the gradient "local", .*"global", .*found \'globl\''):
        pxl.EPC(gradient="globl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps expected a positive int"):
        pxl.EPC(0, gradient="global")


@pytest.mark.thorough
def test_errors_lose_no_digits() -> None:
    """At 20 layers the errors are small against the states, but float32 gives what float64 does."""
    x, y = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6))
    model = Chain([6] * 21)
    single, _ = gradients(pxl.EPC(2), model, jnp.float32(x), jnp.float32(y))
    with enable_x64(True):
        for layer in model.layers:
            layer.nn.weight.set(jnp.float64(layer.nn.weight.get()))
        double, _ = gradients(pxl.EPC(2), model, jnp.float64(x), jnp.float64(y))
    assert relative_difference({path: jnp.float32(grad) for path, grad in double.items()}, single) < 1e-5


def test_nodes_with_another_energy_are_refused() -> None:
    model = Chain([SIZE, 7, SIZE])
    model.vodes[0].energy_fn = lambda vode: vode.get("h")
    with pytest.raises(ValueError, match=r"EPC expected .* se_energy .* found others in \.vodes\[0\]: use PC"):
        gradients(pxl.EPC(1), model, X, Y)
    assert model.vodes[0].h.get() is None


def test_what_interrupts_the_inference_of_errors_leaves_the_states() -> None:
    class Broken(pxl.Solver):
        def solve(self, problem: pxl.Problem, steps: int) -> pxl.Solution:
            raise RuntimeError("broken")

    model = Chain([SIZE, 7, SIZE])
    pxl.initialise(X, Y, model=model)
    before = model.vodes[0].h.get()
    with pytest.raises(RuntimeError, match="broken"):
        pxl.relax_errors(X, 2, model=model, optim=Broken())
    assert model.vodes[0].h.get() is before

"""Monte Carlo predictive coding against stationary distributions in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

CHAINS = 20_000


class Gaussian(pxc.EnergyModule):
    """h ~ N(x, 1) and y ~ N(w h, 1), one-dimensional: the curvature of E with respect to h is λ = 1 + w²."""

    def __init__(self, w: float = 2.0, mean: float = 0.0) -> None:
        super().__init__()
        self.mean = pxnn.LayerParam(jnp.array([mean]))
        self.w = pxnn.LayerParam(jnp.array([w]))
        self.latent, self.output = pxc.Vode(), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        prediction: Array = self.output(self.w * self.latent(x + self.mean), output="u")
        if y is not None:
            self.output.set("h", y)
        return prediction


def stationary_variance(curvature: float, rate: float, momentum: float) -> float:
    """Of (h, v) with v' = m v − lr λ h + √(2 lr (1 − m)) ξ, h' = h + v': solves Σ = A Σ Aᵀ + Q."""
    a = np.array([[1 - rate * curvature, momentum], [-rate * curvature, momentum]])
    q = 2 * rate * (1 - momentum) * np.ones((2, 2))
    sigma = np.linalg.solve(np.eye(4) - np.kron(a, a), q.ravel())
    return float(sigma[0])


@pytest.mark.thorough
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rate", [0.3, 0.1, 0.03, pytest.param(0.003, marks=pytest.mark.slow)])
def test_the_stationary_distribution(rate: float, momentum: float) -> None:
    w, y = 2.0, 3.0
    curvature = 1 + w * w
    model = Gaussian(w)
    x = jnp.zeros((CHAINS, 1))
    pxl.initialise(x, jnp.full((CHAINS, 1), y), model=model)
    steps = int(min(4000, 20 / (rate * curvature) * (1 + 9 * momentum)))
    pxl.infer(x, steps, model=model, optim=pxu.Optim(pxl.langevin(rate, momentum)))
    samples = np.asarray(model.latent.h.get(), np.float64)
    exact_mean, exact_variance = w * y / curvature, 1 / curvature
    expected = stationary_variance(curvature, rate, momentum)
    if momentum == 0:
        assert expected == pytest.approx(exact_variance / (1 - rate * curvature / 2))
    assert abs(samples.mean() - exact_mean) < 4 * np.sqrt(expected / CHAINS)
    assert abs(samples.var() / expected - 1) < 4 * np.sqrt(2 / CHAINS)


def test_without_temperature_it_is_momentum_sgd() -> None:
    gradients = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    ours, theirs = pxl.langevin(0.1, 0.7, temperature=0.0), optax.sgd(0.1, momentum=0.7)
    state, other = ours.init(gradients), theirs.init(gradients)
    for factor in (1.0, -0.5, 2.0):
        scaled = jax.tree.map(lambda grad, factor=factor: factor * grad, gradients)
        updates, state = ours.update(scaled, state)
        expected, other = theirs.update(scaled, other)
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-6), updates, expected)


def test_beside_an_optimiser_of_all_parameters() -> None:
    optimiser = optax.multi_transform({"moves": optax.sgd(0.5), "samples": pxl.langevin(0.1)}, {"w": "moves"})
    w = {"w": jnp.ones(2)}
    updates, _ = optimiser.update(w, optimiser.init(w))
    np.testing.assert_allclose(updates["w"], [-0.5, -0.5])


def test_every_batch_has_its_own_noise_and_the_key_goes_on() -> None:
    model, optim = Gaussian(), pxu.Optim(pxl.langevin(0.1))
    x = jnp.zeros((4, 1))
    found = []
    for _ in range(2):
        pxl.initialise(x, x, model=model)
        pxl.infer(x, 1, model=model, optim=optim)
        found.append(model.latent.h.get())
    assert not jnp.array_equal(*found)
    px.RKG.seed(0)
    key, noise_key = jax.random.split(jax.random.PRNGKey(0))
    pxl.initialise(x, x, model=model)
    pxl.infer(x, 1, model=model, optim=optim)
    np.testing.assert_allclose(model.latent.h.get(), np.sqrt(0.2) * jax.random.normal(noise_key, (4, 1)), rtol=1e-6)
    np.testing.assert_array_equal(px.RKG.key.get(), key)


@pytest.mark.parametrize("arguments", [(0.0,), (0.1, 1.0), (0.1, 0.0, -1.0)])
def test_arguments_out_of_range(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="langevin expected a positive learning_rate, 0 <= momentum < 1 and"):
        pxl.langevin(*arguments)


@pytest.mark.parametrize("name", ["learning_rate", "momentum", "temperature"])
def test_a_parameter_is_not_a_number(name: str) -> None:
    with pytest.raises(TypeError, match=f"langevin expected a number as {name}, found a Param: use optax.inject_hyper"):
        pxl.langevin(**{"learning_rate": 0.1, name: px.Param(jnp.array(0.1))})  # type: ignore[arg-type]  # what is tested


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_density_is_learned_from_data(seed: int) -> None:
    """y ~ N(w μ, w² + 1) is to have the mean 1 and variance 5 of the data."""
    px.RKG.seed(seed)
    model = Gaussian(w=1.0, mean=0.0)
    rates = optax.exponential_decay(0.1, 500, 0.2)
    weights = pxu.Optim(optax.sgd(rates), pxl.WEIGHTS(model))
    nodes = pxu.Optim(pxl.langevin(0.01))
    x = jnp.zeros((1000, 1))
    rng = np.random.default_rng(seed)
    y = jnp.asarray(1 + np.sqrt(5) * (lambda z: (z - z.mean()) / z.std())(rng.normal(size=(1000, 1))), jnp.float32)
    found = []
    for number in range(1500):
        pxl.PC(100)(x, y, model=model, nodes=nodes, weights=weights)
        if number >= 1000:
            w, mean = float(model.w.get()[0]), float(model.mean.get()[0])
            found.append((w * mean, w * w + 1))
    mean, variance = np.mean(found, 0)
    assert abs(mean - 1) < 0.05
    assert abs(variance / 5 - 1) < 0.05

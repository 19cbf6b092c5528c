"""Energies against their formulas in numpy, and against the log densities that they stand for."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

SHAPES = [(), (3,), (2, 3), (2, 3, 4)]


def node(energy_fn: Any, h: Any, u: Any) -> pxc.Vode[pxc.VodeParam]:
    return pxc.Vode(energy_fn).set("h", h).set("u", u)


def draw(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(u: np.ndarray) -> np.ndarray:
    e = np.exp(u - u.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_squared_error(shape: tuple[int, ...]) -> None:
    h, u = draw(0, shape), draw(1, shape)
    terms = pxc.se_energy(node(pxc.se_energy, h, u))
    assert isinstance(terms, jax.Array)
    assert terms.shape == shape
    np.testing.assert_allclose(terms, 0.5 * (h - u) ** 2, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_cross_entropy(shape: tuple[int, ...]) -> None:
    h, u = draw(0, shape), draw(1, shape)
    terms = pxc.ce_energy(node(pxc.ce_energy, h, u))
    assert terms.shape == shape
    np.testing.assert_allclose(terms, -h * np.log(softmax(u)), rtol=1e-5, atol=1e-6)


def test_cross_entropy_has_no_precision() -> None:
    vode = node(pxc.ce_energy, draw(0, (3,)), draw(1, (3,)))
    vode.precision = pxnn.LayerParam(jnp.ones(3))
    with pytest.raises(ValueError, match="ce_energy has no precision, but the node was given one"):
        vode.energy()


@pytest.mark.parametrize("shape", SHAPES)
def test_zero(shape: tuple[int, ...]) -> None:
    terms = pxc.zero_energy(node(pxc.zero_energy, draw(0, shape), None))
    assert terms.shape == shape
    assert not np.any(terms)


def test_parameters_are_read_as_their_values() -> None:
    vode = node(pxc.se_energy, px.Param(jnp.array([3.0])), px.Param(jnp.array([1.0])))
    assert pxc.se_energy(vode).tolist() == [2.0]


# As multiples of the largest number of the dtype.
LOGITS = [[1e-3, -1e-3], [1, -1], [-1, 1], [1, 1], [np.inf, 0], [0, -np.inf], [-np.inf, -np.inf], [np.inf, -np.inf]]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("target", [0, 1])
def test_cross_entropy_is_finite_for_any_logits(target: int, dtype: Any) -> None:
    """The energy of each sample, and its gradient."""
    largest = float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]  # jax
    logits, targets = jnp.asarray(largest * np.array(LOGITS), dtype), np.eye(2)[[target] * len(LOGITS)]
    values, pull_back = jax.vjp(lambda u: node(pxc.ce_energy, jnp.asarray(targets, dtype), u).energy(), logits)
    (gradients,) = pull_back(jnp.ones_like(values))
    assert values.dtype == dtype
    assert values.shape == (len(LOGITS),)
    assert jnp.isfinite(values).all()
    assert jnp.isfinite(gradients).all()


def test_cross_entropy_of_several_positions_is_finite_for_any_logits() -> None:
    logits = 3e38 * jnp.array([[[1.0, -1.0]] * 3])
    assert jnp.isfinite(node(pxc.ce_energy, jnp.array([[[0.0, 1.0]] * 3]), logits).energy()).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_sum_in_half_precision_that_is_representable(dtype: Any) -> None:
    vode = node(pxc.se_energy, jnp.full((1, 100), 28, dtype), jnp.zeros((1, 100), dtype))
    np.testing.assert_allclose(np.float32(vode.energy()), 0.5 * 28**2 * 100, rtol=0.01)


def test_cross_entropy_gradient_is_softmax_minus_target() -> None:
    h, u = np.eye(4, dtype=np.float32)[2], draw(0, (4,))
    gradient = jax.grad(lambda u: pxc.ce_energy(node(pxc.ce_energy, h, u)).sum())(u)
    np.testing.assert_allclose(gradient, softmax(u) - h, atol=1e-6)


@pytest.mark.parametrize(("energy_fn", "missing"), [(pxc.se_energy, "u"), (pxc.ce_energy, "u"), (pxc.zero_energy, "h")])
def test_a_missing_entry_is_named(energy_fn: Any, missing: str) -> None:
    vode = node(energy_fn, None if missing == "h" else jnp.ones(2), None)
    with pytest.raises(ValueError, match=rf"needs its {missing}, which is not set.*STATUS\.INIT"):
        vode.energy()


PRECISIONS = {"one for all": np.float32(0.3), "each its own": np.array([0.1, 1.0, 20.0], np.float32)}


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
def test_precision(precision: Any) -> None:
    h, u = draw(0, (3,)), draw(1, (3,))
    vode = node(pxc.se_energy, h, u).set("precision", jnp.asarray(precision))
    np.testing.assert_allclose(vode.energy(), 0.5 * precision * (h - u) ** 2, rtol=1e-6)


@pytest.mark.parametrize("precision", [None, 0.25, 4.0])
def test_with_its_log_normaliser_it_is_a_density(precision: float | None) -> None:
    """exp(−E) integrates to one: by the trapezium rule, in numpy."""
    h = np.linspace(-40, 40, 20001).astype(np.float32)
    vode = node(partial(pxc.se_energy, log_normaliser=True), h, jnp.full(h.shape, 0.5))
    if precision is not None:
        vode.set("precision", jnp.full(h.shape, precision))
    density = np.exp(-np.asarray(vode.energy(), np.float64))
    assert np.trapezoid(density, h) == pytest.approx(1.0, abs=1e-4)
    variance = 1.0 if precision is None else 1 / precision
    assert np.trapezoid(density * (h - 0.5) ** 2, h) == pytest.approx(variance, rel=1e-3)


def test_a_precision_can_be_learned() -> None:
    """dE/dp = ½(h − u)² − 1 / 2p, so that it is least where p is one over the mean squared error."""
    vode = pxc.Vode(partial(pxc.se_energy, log_normaliser=True))
    vode.precision = pxnn.LayerParam(jnp.array(2.0))
    h, u = draw(0, (4,)), draw(1, (4,))

    @pxf.grad({"vode": pxu.M(pxnn.LayerParam)})
    def energy(*, vode: pxc.Vode[pxc.VodeParam]) -> Array:
        return vode.set("h", h).set("u", u).energy().sum()

    error = (h - u) ** 2
    np.testing.assert_allclose(energy(vode=vode)["vode"].precision, (0.5 * error - 1 / 4).sum(), rtol=1e-5)
    vode.precision.set(jnp.array(1 / error.mean()))
    np.testing.assert_allclose(energy(vode=vode)["vode"].precision, 0, atol=1e-5)

"""The residual network of μPC against its equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc

IN, WIDTH, OUT, DEPTH = 6, 8, 3, 5


@pytest.mark.parametrize("scaled", [True, False])
def test_its_equations(scaled: bool) -> None:
    model = pxl.ResidualNetwork(IN, WIDTH, OUT, DEPTH, jax.nn.relu, scaled, rkg=px.RandomKeyGenerator(0))
    first, middle, last = (np.asarray(param.get()) for param in px.tree_extract(pxl.WEIGHTS(model)))
    weights = [first, *middle, last]
    assert [w.shape for w in weights] == [(WIDTH, IN), *[(WIDTH, WIDTH)] * (DEPTH - 2), (OUT, WIDTH)]
    hidden = 1 / math.sqrt(WIDTH * DEPTH)
    scales = [1 / math.sqrt(IN), *[hidden] * (DEPTH - 2), 1 / WIDTH] if scaled else [1.0] * DEPTH
    x = np.linspace(-1, 1, 2 * IN, dtype=np.float32).reshape(2, IN)
    h = scales[0] * x @ weights[0].T
    for a, w in zip(scales[1:-1], weights[1:-1], strict=True):
        h = h + a * np.maximum(h, 0) @ w.T
    expected = scales[-1] * np.maximum(h, 0) @ weights[-1].T
    np.testing.assert_allclose(pxl.predict(x, model), expected, rtol=1e-5, atol=1e-6)
    # At the forward values no hidden node has an error.
    y = np.ones((2, OUT), np.float32)
    pxl.initialise(x, y, model=model)
    np.testing.assert_allclose(pxl.energies(x, model=model), 0.5 * ((y - expected) ** 2).sum(1), rtol=1e-5)


def test_its_weights() -> None:
    scaled = pxl.ResidualNetwork(400, 50, 10, 3, rkg=px.RandomKeyGenerator(0))
    w = np.asarray(px.tree_extract(scaled.first)[0].get())
    assert abs(w.mean()) < 4 / math.sqrt(w.size)
    assert abs(w.var() - 1) < 4 * math.sqrt(2 / w.size)
    plain = pxl.ResidualNetwork(IN, WIDTH, OUT, DEPTH, scaled=False, rkg=px.RandomKeyGenerator(0))
    expected = pxnn.Linear(IN, WIDTH, bias=False, rkg=px.RandomKeyGenerator(0))
    np.testing.assert_array_equal(px.tree_extract(plain.first)[0], expected.nn.weight)


def test_one_layer_is_not_a_network() -> None:
    with pytest.raises(ValueError, match="expected a depth of at least 2 layers, found 1"):
        pxl.ResidualNetwork(IN, WIDTH, OUT, 1)


@pytest.mark.thorough
def test_the_size_of_its_signals_does_not_depend_on_width_and_depth() -> None:
    """With h_1 of variance |x|² / in_features = 1, the variance of the last state is at most (1 + 1/L)^L < e."""
    x = jnp.ones((1, IN))
    for width, depth in [(64, 4), (64, 32), (512, 4)]:
        model = pxl.ResidualNetwork(IN, width, OUT, depth, rkg=px.RandomKeyGenerator(1))
        pxl.initialise(x, model=model)
        assert isinstance(model.hidden, pxc.Stack)
        last = float(jnp.square(model.hidden.vodes.h.get()[:, -1]).mean())
        assert 0.5 < last < 2 * math.e

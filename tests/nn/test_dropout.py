import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.nn.oracles import normal
from tests.oracles import close

KEY = jax.random.PRNGKey(3)


@pytest.mark.parametrize(("p", "shape"), [(0.5, (40,)), (0.2, (5, 8)), (1.0, (7,))])
def test_output_and_gradient(p: float, shape: tuple[int, ...]) -> None:
    layer, x = pxnn.Dropout(p), normal(0, shape)
    mask = np.asarray(jax.random.bernoulli(KEY, 1 - p, shape))
    scale = mask / (1 - p) if p < 1 else np.zeros(shape)
    y, gradient = jax.value_and_grad(lambda x: layer(x, key=KEY).sum())(x)
    close(layer(x, key=KEY), scale * np.asarray(x))
    close(y, (scale * np.asarray(x)).sum(), 1e-4)
    close(gradient, scale)


def test_the_mean_stays() -> None:
    y = pxnn.Dropout(0.3)(jnp.ones(100_000), key=KEY)
    assert abs(float(y.mean()) - 1) < 5 * (0.3 / 0.7 / 100_000) ** 0.5


def test_mode_and_inference_decide() -> None:
    x = jnp.ones(64)

    def is_on(layer: pxnn.Dropout) -> bool:
        return not bool((layer(x, key=KEY) == x).all())

    layer, off = pxnn.Dropout(), pxnn.Dropout(inference=True)
    assert is_on(layer), "no mode is set"
    assert not is_on(off)
    for one in (layer, off):
        one.eval()
        assert not is_on(one)
        one.train()
        assert is_on(one)


def test_no_key_is_needed_when_nothing_is_dropped() -> None:
    x = jnp.ones(3)
    layer = pxnn.Dropout(0.5)
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(pxnn.Dropout(0.0)(x), x)


def test_a_missing_key_is_refused() -> None:
    with pytest.raises(RuntimeError, match=re.escape("Dropout needs a key while training: call it with key=RKG()")):
        pxnn.Dropout()(jnp.ones(3))


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_p_is_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match=f"p to be a probability, from 0 to 1, found {p}"):
        pxnn.Dropout(p)


def test_nothing_is_a_leaf() -> None:
    assert jax.tree.leaves(pxnn.Dropout()) == []


def test_lanes_drop_differently() -> None:
    @pxf.jit()
    @pxf.vmap()
    def call(x: jax.Array, *, layer: pxnn.Dropout) -> jax.Array:
        return layer(x, key=px.RKG())

    px.RKG.seed(5)
    keys = jax.random.split(jax.random.split(jax.random.PRNGKey(5), 4)[1:][0], 2)
    y = call(jnp.ones((3, 32)), layer=pxnn.Dropout())
    assert len({tuple(row) for row in y.tolist()}) == 3
    close(y[0], 2 * np.asarray(jax.random.bernoulli(keys[1], 0.5, (32,))))

"""Every layer against equinox's, built from the same key: the same weights, outputs and gradients.

Skipped if equinox is not installed; neither the package nor its tests depend on it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.nn.oracles import first_key, normal
from tests.oracles import Network, arrays

eqx: Any = pytest.importorskip("equinox")  # without types where it is not installed

X1, X2, X3 = (4, 9), (4, 8, 7), (2, 5, 4, 6)
CONVS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Linear", (5, 3), {}, (5,)),
    ("Linear", (5, 3), {"use_bias": False}, (5,)),
    ("Conv", (1, 4, 6, 3), {}, X1),
    ("Conv", (2, 4, 2, (3, 2), (2, 1), (1, 0)), {}, X2),
    ("Conv1d", (4, 6, 3, 2, 1, 2, 2), {"padding_mode": "REFLECT"}, X1),
    ("Conv1d", (4, 6, 4), {"padding": "SAME", "padding_mode": "circular"}, X1),
    ("Conv1d", (4, 6, 4), {"padding": ((1, 3),), "groups": 2, "use_bias": False}, X1),
    ("Conv2d", (4, 8, 3, 1, 1), {}, X2),
    ("Conv2d", (4, 8, (2, 3), (2, 3)), {"padding": "SAME_LOWER", "dilation": 2}, X2),
    ("Conv2d", (4, 4, 3), {"padding": ((1, 2), (0, 1)), "padding_mode": "REPLICATE", "groups": 4}, X2),
    ("Conv3d", (2, 4, 2, 2), {"padding": "valid", "groups": 2}, X3),
    ("ConvTranspose", (1, 4, 6, 3), {}, X1),
    ("ConvTranspose", (1, 4, 6, 3, 3, 1, 2, 2, 2), {}, X1),
    ("ConvTranspose", (2, 4, 2, (3, 4), (2, 3), ((0, 1), (2, 1)), 1), {"use_bias": False}, X2),
    ("ConvTranspose", (2, 4, 2, (3, 4), (2, 3)), {"padding": "SAME", "output_padding": 1, "dilation": 2}, X2),
    ("ConvTranspose", (1, 4, 2, 4, 3), {"padding": "SAME_LOWER", "padding_mode": "CIRCULAR"}, X1),
    ("ConvTranspose", (3, 2, 4, 2, 2), {"padding": "VALID", "groups": 2}, X3),
]
POOLS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Pool", (0.0, jax.lax.add, 1, 3, 2), {"padding": 1}, X1),
    ("Pool", (jnp.inf, jax.lax.min, 3, 2), {"use_ceil": True, "stride": 2}, X3),
    ("MaxPool2d", (2,), {}, X2),
    ("MaxPool2d", ((3, 2), (2, 3), ((1, 0), (0, 1))), {}, X2),
    ("MaxPool2d", (3, 2, 1, True), {}, X2),
    ("AvgPool2d", (2, 2), {}, X2),
    ("AvgPool2d", (3, 2, 1, True), {}, X2),
    ("AdaptivePool", (4, 1, lambda v: (v**2).sum()), {}, X1),
    ("AdaptivePool", ((2, 3, 4), 3, jnp.median), {}, X3),
    ("AdaptiveAvgPool2d", (3,), {}, X2),
    ("AdaptiveMaxPool2d", ((3, 7),), {}, X2),
    ("LayerNorm", (X2,), {}, X2),
    ("LayerNorm", (5,), {"eps": 0.1, "use_weight": False}, (5,)),
    ("LayerNorm", (5,), {"use_bias": False}, (5,)),
]


def assert_same_function(ours: Callable[..., Any], theirs: Callable[..., Any], x: jax.Array) -> None:
    """Equal leaves, outputs, and gradients of a random projection of the output for all leaves and x."""
    assert len(arrays(ours)) == len(arrays(theirs))
    for one, two in zip(arrays(ours), arrays(theirs), strict=True):
        np.testing.assert_array_equal(one, two)
    direction = normal(9, jax.eval_shape(ours, x).shape)

    def loss(layer_and_x: tuple[Callable[..., Any], jax.Array]) -> Any:
        layer, x = layer_and_x
        y = layer(x)
        return (y * direction).sum(), y

    differentiate = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))
    (grads, y), (other_grads, other_y) = (differentiate((layer, x)) for layer in (ours, theirs))
    np.testing.assert_allclose(y, other_y, rtol=1e-5, atol=1e-5)
    for one, two in zip(arrays(grads), arrays(other_grads), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), CONVS)
def test_layers_with_weights(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours = getattr(pxnn, name)(*args, **kwargs, rkg=px.RandomKeyGenerator(3))
    assert_same_function(ours, getattr(eqx.nn, name)(*args, **kwargs, key=first_key(3)), normal(0, shape))


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), POOLS)
def test_layers_without(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert_same_function(getattr(pxnn, name)(*args, **kwargs), getattr(eqx.nn, name)(*args, **kwargs), normal(0, shape))


def test_half_precision() -> None:
    x = normal(0, (2, 6)).astype(jnp.bfloat16)
    ours = pxnn.Conv1d(2, 4, 3, dtype=jnp.bfloat16, rkg=px.RandomKeyGenerator(3))
    theirs = eqx.nn.Conv1d(2, 4, 3, dtype=jnp.bfloat16, key=first_key(3))
    np.testing.assert_array_equal(ours.nn.weight.get(), theirs.weight)
    np.testing.assert_array_equal(ours(x), theirs(x))
    norm, other = pxnn.LayerNorm((2, 6), dtype=jnp.bfloat16), eqx.nn.LayerNorm((2, 6), dtype=jnp.bfloat16)
    assert norm(x).dtype == other(x).dtype
    np.testing.assert_allclose(norm(x).astype(float), other(x).astype(float), rtol=0.01)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout(p: float) -> None:
    x, key = normal(0, (50,)), first_key(1)
    ours, theirs = pxnn.Dropout(p), eqx.nn.Dropout(p)
    np.testing.assert_array_equal(ours(x, key=key), theirs(x, key=key))
    ours.eval()
    np.testing.assert_array_equal(ours(x), eqx.nn.inference_mode(theirs)(x))


@pytest.mark.parametrize(("affine", "momentum", "shape"), [(True, 0.99, (3, 4, 2)), (False, 0.5, (3,))])
def test_batch_norm(affine: bool, momentum: float, shape: tuple[int, ...]) -> None:
    ours = pxnn.BatchNorm(3, "batch", 1e-3, affine, momentum)
    theirs, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", 1e-3, affine, momentum, mode="ema")

    @pxf.jit
    @pxf.vmap(axis_name="batch")
    def forward(x: jax.Array, *, layer: pxnn.BatchNorm) -> jax.Array:
        return layer(x)

    @pxf.jit
    @pxf.value_and_grad({"layer": pxu.M(pxnn.LayerParam)}, argnums=0)
    def loss(x: jax.Array, direction: jax.Array, *, layer: pxnn.BatchNorm) -> jax.Array:
        return (forward(x, layer=layer) * direction).sum()

    @eqx.filter_jit  # type: ignore[untyped-decorator]  # equinox
    def other_forward(layer: Any, x: jax.Array, state: Any) -> Any:
        return jax.vmap(layer, (0, None), (0, None), axis_name="batch")(x, state)

    @eqx.filter_jit  # type: ignore[untyped-decorator]  # equinox
    @partial(eqx.filter_value_and_grad, has_aux=True)
    def other_loss(layer_and_x: Any, direction: jax.Array, state: Any) -> Any:
        layer, x = layer_and_x
        y, state = other_forward(layer, x, state)
        return (y * direction).sum(), state

    for seed in range(3):
        x, direction = (seed + 1) * normal(seed, (5, *shape)) + seed, normal(seed + 10, (5, *shape))
        value, (x_grad, grads) = loss(x, direction, layer=ours)
        (other, state), other_grads = other_loss((theirs, x), direction, state)
        np.testing.assert_allclose(value, other, rtol=1e-4)
        for one, two in zip([*arrays(grads), x_grad], arrays(other_grads), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
        for one, two in zip(ours.state.get(), arrays(state), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5)
    ours.eval()
    y, _ = other_forward(eqx.nn.inference_mode(theirs), x, state)
    np.testing.assert_allclose(forward(x, layer=ours), y, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_layer_around_a_gru_cell() -> None:
    ours, theirs = pxnn.Layer(eqx.nn.GRUCell, 3, 4, key=first_key(0)), eqx.nn.GRUCell(3, 4, key=first_key(0))
    assert isinstance(ours.nn.weight_ih, pxnn.LayerParam)
    xs = normal(0, (6, 3))

    def step(x: jax.Array, h: jax.Array, *, cell: pxnn.Layer) -> tuple[jax.Array, jax.Array]:
        h = cell(x, h)
        return h, h

    @pxf.jit()
    @pxf.value_and_grad({"cell": pxu.M(pxnn.LayerParam)})
    def loss(xs: jax.Array, *, cell: pxnn.Layer) -> jax.Array:
        (h,), _ = pxf.scan(step, xs)(jnp.zeros(4), cell=cell)
        return (h**2).sum()

    def other_loss(cell: Any) -> Any:
        h = jnp.zeros(4)
        for x in xs:
            h = cell(x, h)
        return (h**2).sum()

    value, grads = loss(xs, cell=ours)
    other, other_grads = eqx.filter_value_and_grad(other_loss)(theirs)
    np.testing.assert_allclose(value, other, rtol=1e-5)
    for one, two in zip(arrays(grads), arrays(other_grads), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_layer_around_attention() -> None:
    arguments: dict[str, Any] = {"num_heads": 2, "query_size": 4, "dropout_p": 0.5}
    ours = pxnn.Layer(eqx.nn.MultiheadAttention, **arguments, key=first_key(0))
    theirs = eqx.nn.MultiheadAttention(**arguments, key=first_key(0))
    x, key = normal(0, (5, 4)), first_key(1)

    @pxf.jit()
    def attend(x: jax.Array, key: jax.Array | None, *, layer: pxnn.Layer) -> Any:
        return layer(x, x, x, key=key)

    np.testing.assert_allclose(attend(x, key, layer=ours), theirs(x, x, x, key=key), rtol=1e-5, atol=1e-6)
    ours.eval()
    expected = eqx.nn.inference_mode(theirs)(x, x, x)
    np.testing.assert_allclose(attend(x, None, layer=ours), expected, rtol=1e-5, atol=1e-6)
    ours.train()
    np.testing.assert_allclose(attend(x, key, layer=ours), theirs(x, x, x, key=key), rtol=1e-5, atol=1e-6)
    twin = pxnn.shared(ours)
    assert twin.nn.query_proj.weight is ours.nn.query_proj.weight


class WithForeign(Network):
    """A layer of equinox, called as `use` says, then a linear one; a value node after each."""

    def __init__(self, foreign: pxnn.Layer, use: Callable[..., jax.Array], hidden: int) -> None:
        super().__init__([foreign, pxnn.Linear(hidden, 2, rkg=px.RandomKeyGenerator(1))], lambda x: x)
        self.use = px.static(use)

    def apply_layer(self, number: int, x: jax.Array) -> Any:
        return self.layers[1](x.ravel()) if number else self.use(self.layers[0], x)


FOREIGN: dict[str, tuple[str, tuple[int, ...], Callable[..., Any], int]] = {
    "gru": ("GRUCell", (3, 4), lambda cell, x: cell(x[1], cell(x[0], jnp.zeros(4))), 4),
    "attention": ("MultiheadAttention", (1, 3), lambda layer, x: layer(x, x, x), 6),
}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "sizes", "use", "hidden"), FOREIGN.values(), ids=FOREIGN)
def test_training_in_a_predictive_coding_network(
    name: str, sizes: tuple[int, ...], use: Callable[..., Any], hidden: int
) -> None:
    """Three steps of PC, T = 4, against the same with equinox, jax and optax alone."""
    xs, ys = normal(0, (3, 5, 2, 3)), normal(1, (3, 5, 2))
    optimiser = optax.sgd(0.1, momentum=0.9)
    make = getattr(eqx.nn, name)
    model = WithForeign(pxnn.Layer(make, *sizes, key=first_key(0)), use, hidden)
    weights, nodes = pxu.Optim(optimiser, pxl.WEIGHTS(model)), pxu.Optim(optax.sgd(0.2))
    history = [pxl.PC(4)(x, y, model=model, nodes=nodes, weights=weights) for x, y in zip(xs, ys, strict=True)]

    layers = make(*sizes, key=first_key(0)), eqx.nn.Linear(hidden, 2, key=first_key(1))
    state, initial = optimiser.init(eqx.filter(layers, eqx.is_array)), arrays(layers)

    @eqx.filter_jit  # type: ignore[untyped-decorator]  # equinox
    def energies(layers: Any, h: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        def energy(h: jax.Array, x: jax.Array, y: jax.Array) -> Any:
            return 0.5 * ((h - use(layers[0], x)) ** 2).sum() + 0.5 * ((y - layers[1](h.ravel())) ** 2).sum()

        return jax.vmap(energy)(h, x, y)

    by_h = eqx.filter_jit(eqx.filter_grad(lambda h, layers, x, y: energies(layers, h, x, y).sum()))
    by_weights = eqx.filter_jit(eqx.filter_value_and_grad(lambda layers, h, x, y: energies(layers, h, x, y).mean()))
    for x, y, found in zip(xs, ys, history, strict=True):
        h = jax.jit(jax.vmap(lambda x, layers=layers: use(layers[0], x)))(x)
        np.testing.assert_allclose(found.energies[0], energies(layers, h, x, y).mean(), rtol=1e-5)
        for _ in range(4):
            h = h - 0.2 * by_h(h, layers, x, y)
        value, grads = by_weights(layers, h, x, y)
        assert value < found.energies[-1]
        updates, state = optimiser.update(grads, state)
        layers = eqx.apply_updates(layers, updates)
    trained = [*arrays(model.layers)]
    for one, two, first in zip(trained, arrays(layers), initial, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
        assert float(jnp.abs(one - first).max()) > 1e-3

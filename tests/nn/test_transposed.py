"""The transpose of a layer: its linear map is the layer's matrix, transposed, and its weight is the layer's own."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.nn.oracles import conv_matrix, first_key, normal, same_pads, uniform, value_and_gradients
from tests.oracles import close

# The arguments of a convolution, the spatial shapes of its input and output, its padding, and the output padding of its
# transpose.
Case = tuple[dict[str, Any], tuple[int, ...], tuple[int, ...], list[tuple[int, int]], int | tuple[int, ...]]
CONVS: dict[str, Case] = {
    "groups": ({"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}, (6,), (3,), [(1, 1)], 1),
    "same": ({"kernel_size": 4, "stride": 2, "padding": "SAME"}, (7,), (4,), [(1, 2)], 1),
    "mode": (
        {"kernel_size": 2, "padding": ((2, 0),), "dilation": 2, "padding_mode": "REFLECT"},
        (5,),
        (5,),
        [(2, 0)],
        0,
    ),
    "2d": ({"kernel_size": (2, 3), "stride": (2, 1), "padding": (0, 1)}, (5, 4), (2, 4), [(0, 0), (1, 1)], (1, 0)),
}


def test_of_a_linear_layer() -> None:
    layer = pxnn.Linear(3, 2)
    transposed = pxnn.Transposed(layer)
    x, direction = normal(0, (2,)), normal(1, (3,))
    y, grads, x_grad = value_and_gradients(transposed, x, direction)
    weight = np.asarray(layer.nn.weight)
    close(y, weight.T @ np.asarray(x) + np.asarray(transposed.nn.bias))
    close(grads["weight"], np.outer(x, direction))
    close(grads["bias"], direction)
    close(x_grad, weight @ np.asarray(direction))
    assert transposed.nn.weight is layer.nn.weight
    assert transposed.nn.bias is not layer.nn.bias


@pytest.mark.parametrize("case", CONVS.values(), ids=CONVS)
def test_of_a_convolution(case: Case) -> None:
    options, inputs, outputs, pads, output_padding = case
    axes = len(inputs)
    layer = pxnn.Conv(axes, 4, 6, **options)
    transposed = pxnn.Transposed(layer, output_padding=output_padding)
    assert transposed.nn.weight is layer.nn.weight

    stride, dilation = (
        value if isinstance(value := options.get(name, 1), tuple) else (value,) * axes
        for name in ("stride", "dilation")
    )
    if options.get("padding") == "SAME":
        assert pads == same_pads(inputs, [4], stride, lower=False)
    mode, groups = options.get("padding_mode", "ZEROS"), options.get("groups", 1)
    matrix = conv_matrix(np.asarray(layer.nn.weight), inputs, stride, pads, dilation, groups, mode)
    x, direction = normal(0, (6, *outputs)), normal(1, (4, *inputs))
    assert layer.nn.bias is not None
    close(layer(direction) - layer.nn.bias, np.tensordot(matrix, direction, axes + 1))

    y, grads, x_grad = value_and_gradients(transposed, x, direction)
    close(y, np.tensordot(x, matrix, axes + 1) + np.asarray(transposed.nn.bias))
    close(x_grad, np.tensordot(matrix, direction, axes + 1))
    close(grads["bias"], direction.sum(range(1, axes + 1), keepdims=True))
    # The gradient of <direction, Cᵀ x> is that of <x, C direction>.
    close(grads["weight"], value_and_gradients(layer, direction, x)[1]["weight"])


@pytest.mark.parametrize(
    ("make", "shape", "fan_in"),
    [(lambda rkg: pxnn.Linear(3, 2, rkg=rkg), (3,), 2), (lambda rkg: pxnn.Conv2d(4, 6, 3, rkg=rkg), (4, 1, 1), 6 * 9)],
)
def test_only_the_bias_is_drawn(make: Callable[[Any], Any], shape: tuple[int, ...], fan_in: int) -> None:
    """As in a layer of these sizes with a weight of its own."""
    layer, rkg = make(px.RandomKeyGenerator(0)), px.RandomKeyGenerator(7)
    weight = layer.nn.weight.get()
    transposed = pxnn.Transposed(layer, rkg=rkg)
    assert transposed.nn.bias is not None
    expected = uniform(jax.random.split(first_key(7), 2)[1], shape, fan_in)
    np.testing.assert_array_equal(transposed.nn.bias.get(), expected)
    np.testing.assert_array_equal(rkg.key.get(), jax.random.split(jax.random.PRNGKey(7), 2)[0])
    assert layer.nn.weight.get() is weight
    assert [type(param) for param in px.tree_extract(pxnn.Transposed(layer, use_bias=False))] == [pxnn.LayerParam]


def test_the_weight_of_both_directions_gets_both_gradients() -> None:
    class Autoencoder(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = pxnn.Linear(3, 2)
            self.decoder = pxnn.Transposed(self.encoder)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.decoder(jnp.tanh(self.encoder(x)))

    model, x = Autoencoder(), normal(0, (3,))
    assert pxnn.shared_params(model) == {".encoder.nn.weight": [".decoder.nn.weight"]}
    assert "  .decoder.nn.weight → .encoder.nn.weight" in repr(model).splitlines()

    def by_hand(weight: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        return ((weight.T @ jnp.tanh(weight @ x + b) + c - x) ** 2).sum()

    @pxf.jit
    @pxf.grad({"model": pxu.M(pxnn.LayerParam)})
    def gradient(x: jax.Array, *, model: Autoencoder) -> jax.Array:
        return ((model(x) - x) ** 2).sum()

    grads = gradient(x, model=model)["model"]
    params = px.tree_extract(model, extract_fn=px.get)
    expected = jax.jit(jax.grad(by_hand, argnums=(0, 1, 2)))(*params)
    jax.tree.map(close, px.tree_extract(grads, extract_fn=px.get), expected)


def test_a_shared_copy_reads_the_same_weight() -> None:
    encoder = pxnn.Linear(3, 2)
    decoder = pxnn.Transposed(encoder)
    twin = pxnn.shared(decoder)
    assert twin.nn.weight is encoder.nn.weight
    encoder.nn.weight *= 2
    x = normal(0, (2,))
    np.testing.assert_array_equal(twin(x), decoder(x))
    assert decoder.nn.bias is not None
    close(decoder(x), encoder.nn.weight.T @ x + decoder.nn.bias)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: pxnn.Transposed(pxnn.LayerNorm(3)), TypeError, "expected a Linear or a Conv, found a LayerNorm"),  # type: ignore[arg-type]  # what is tested
        (lambda: pxnn.Transposed(pxnn.Linear(3, 2), output_padding=1), ValueError, "for a Conv only, found 1"),
        (lambda: pxnn.Transposed(pxnn.Conv1d(1, 1, 3), output_padding=1), ValueError, "less than stride (1,), found 1"),
        (lambda: pxnn.Transposed(pxnn.Linear(3, 2))(jnp.ones(3)), ValueError, "x of shape (2,), one sample, found (3"),
        (
            lambda: pxnn.Transposed(pxnn.Conv1d(1, 2, 3))(jnp.ones((1, 5))),
            ValueError,
            "Transposed expected x of shape (2, axis1)",
        ),
    ],
)
def test_errors(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        make()

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.nn.oracles import (
    Pads,
    conv_matrix,
    first_key,
    linear_gradient,
    normal,
    same_pads,
    uniform,
    value_and_gradients,
)
from tests.oracles import close

# The arguments (axes, in, out, kernel), the keyword arguments, and the spatial shape of x.
Case = tuple[tuple[int, int, int, Any], dict[str, Any], tuple[int, ...]]
CONVS: list[Case] = [
    ((1, 2, 3, 3), {}, (6,)),
    ((1, 2, 4, 2), {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}, (7,)),
    ((1, 1, 2, 3), {"padding": ((2, 0),), "padding_mode": "REFLECT"}, (5,)),
    ((1, 2, 1, 4), {"padding": "SAME", "padding_mode": "CIRCULAR", "stride": 2}, (7,)),
    ((1, 2, 1, 4), {"padding": "same_lower", "use_bias": False}, (6,)),
    ((2, 2, 2, (2, 3)), {"stride": (2, 1), "padding": (1, 2), "padding_mode": "replicate"}, (4, 5)),
    ((2, 4, 4, 2), {"padding": ((0, 1), (1, 0)), "groups": 4, "dilation": (1, 2)}, (4, 4)),
    ((2, 1, 2, 3), {"padding": "VALID", "stride": 3}, (6, 5)),
    ((3, 2, 2, 2), {"padding": 1, "stride": 2}, (2, 3, 2)),
    ((4, 1, 1, 2), {}, (2, 2, 2, 3)),
]
TRANSPOSES: list[Case] = [
    ((1, 2, 3, 3), {}, (4,)),
    ((1, 2, 4, 3), {"stride": 3, "padding": 1, "output_padding": 2, "dilation": 2, "groups": 2}, (3,)),
    ((1, 3, 1, 4), {"padding": "SAME", "stride": 2, "output_padding": 1}, (4,)),
    ((1, 2, 2, 4), {"padding": "SAME_LOWER", "stride": 2, "padding_mode": "CIRCULAR"}, (3,)),
    ((1, 2, 2, 3), {"padding": ((1, 2),), "padding_mode": "REFLECT", "use_bias": False}, (5,)),
    ((2, 2, 1, (3, 2)), {"stride": (1, 2), "padding": (0, 1), "padding_mode": "REPLICATE"}, (3, 4)),
    ((2, 4, 2, 2), {"stride": 2, "padding": "VALID", "groups": 2}, (2, 3)),
    ((3, 1, 2, 2), {"stride": 2}, (2, 1, 2)),
]


def per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * axes


def geometry(
    axes: int, kernel: Any, shape: tuple[int, ...], options: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], Pads]:
    stride, dilation = per_axis(options.get("stride", 1), axes), per_axis(options.get("dilation", 1), axes)
    span = [d * (k - 1) + 1 for k, d in zip(per_axis(kernel, axes), dilation, strict=True)]
    padding = options.get("padding", 0)
    if isinstance(padding, str):
        pads = same_pads(shape, span, stride, padding.upper() == "SAME_LOWER")
        return stride, dilation, pads if padding.upper() != "VALID" else [(0, 0)] * axes
    return stride, dilation, [pad if isinstance(pad, tuple) else (pad, pad) for pad in per_axis(padding, axes)]


@pytest.mark.parametrize(("sizes", "options", "shape"), CONVS)
def test_conv_is_its_sum(sizes: tuple[int, int, int, Any], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    axes, in_channels, out_channels, kernel = sizes
    stride, dilation, pads = geometry(axes, kernel, shape, options)
    groups, mode = options.get("groups", 1), options.get("padding_mode", "ZEROS").upper()
    layer = pxnn.Conv(axes, in_channels, out_channels, kernel, **options)
    x = normal(1, (in_channels, *shape))

    def by_hand(weight: Any) -> Any:
        matrix = conv_matrix(weight, shape, stride, pads, dilation, groups, mode)
        return np.tensordot(matrix, x, axes + 1)

    weight = np.asarray(layer.nn.weight)
    expected = by_hand(weight)
    direction = normal(2, expected.shape)
    y, grads, x_grad = value_and_gradients(layer, x, direction)
    close(y, expected if layer.nn.bias is None else expected + np.asarray(layer.nn.bias))
    matrix = conv_matrix(weight, shape, stride, pads, dilation, groups, mode)
    close(x_grad, np.tensordot(direction, matrix, axes + 1))
    close(grads["weight"], linear_gradient(by_hand, weight.shape, np.asarray(direction)), 1e-4)
    if layer.nn.bias is not None:
        close(grads["bias"], direction.sum(range(1, axes + 1), keepdims=True), 1e-4)


@pytest.mark.parametrize(("sizes", "options", "shape"), TRANSPOSES)
def test_conv_transpose_is_the_transpose(
    sizes: tuple[int, int, int, Any], options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    axes, in_channels, out_channels, kernel = sizes
    groups, mode = options.get("groups", 1), options.get("padding_mode", "ZEROS")
    extra = per_axis(options.get("output_padding", 0), axes)
    layer = pxnn.ConvTranspose(axes, in_channels, out_channels, kernel, **options)
    x = normal(1, (in_channels, *shape))
    stride, dilation, pads = geometry(axes, kernel, shape, options)
    span = [d * (k - 1) + 1 for k, d in zip(per_axis(kernel, axes), dilation, strict=True)]
    if str(options.get("padding")).startswith("SAME"):
        output = tuple(n * s - e for n, s, e in zip(shape, stride, extra, strict=True))
        pads = geometry(axes, kernel, output, options)[2]
    else:
        sizes_and_pads = zip(shape, stride, span, extra, pads, strict=True)
        output = tuple((n - 1) * s + k + e - sum(pad) for n, s, k, e, pad in sizes_and_pads)

    def matrix(weight: Any) -> Any:
        """The convolution from y to x: its kernel swaps the channels of each group, and is flipped."""
        parts = [np.swapaxes(part, 0, 1) for part in np.split(weight, groups)]
        kernel = np.flip(np.concatenate(parts), tuple(range(2, weight.ndim)))
        return conv_matrix(kernel, output, stride, pads, dilation, groups, mode)

    def by_hand(weight: Any) -> Any:
        return np.tensordot(x, matrix(weight), axes + 1)

    weight = np.asarray(layer.nn.weight)
    expected = by_hand(weight)
    assert expected.shape == (out_channels, *output)
    direction = normal(2, expected.shape)
    y, grads, x_grad = value_and_gradients(layer, x, direction)
    close(y, expected if layer.nn.bias is None else expected + np.asarray(layer.nn.bias))
    close(x_grad, np.tensordot(matrix(weight), direction, axes + 1))
    close(grads["weight"], linear_gradient(by_hand, weight.shape, np.asarray(direction)), 1e-4)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_weights_follow_the_scheme(kind: str, groups: int) -> None:
    rkg = px.RandomKeyGenerator(5)
    layer = getattr(pxnn, kind)(2, 4, 6, (3, 2), groups=groups, rkg=rkg)
    weight_key, bias_key = jax.random.split(first_key(5), 2)
    fan_in = 4 // groups * 3 * 2
    np.testing.assert_array_equal(layer.nn.weight.get(), uniform(weight_key, (6, 4 // groups, 3, 2), fan_in))
    np.testing.assert_array_equal(layer.nn.bias.get(), uniform(bias_key, (6, 1, 1), fan_in))
    np.testing.assert_array_equal(rkg.key.get(), jax.random.split(jax.random.PRNGKey(5), 2)[0])


def test_dtype_and_missing_bias() -> None:
    layer = pxnn.Conv1d(1, 2, 3, use_bias=False, dtype=jnp.bfloat16)
    assert layer.nn.weight.dtype == jnp.bfloat16
    assert layer.nn.bias is None
    assert [type(node) for node in vars(layer.nn).values() if isinstance(node, px.BaseParam)] == [pxnn.LayerParam]
    assert len(jax.tree.leaves(layer)) == 1


@pytest.mark.parametrize(("cls", "axes"), [(pxnn.Conv1d, 1), (pxnn.Conv2d, 2), (pxnn.Conv3d, 3)])
def test_fixed_axes(cls: type[pxnn.Conv1d] | type[pxnn.Conv2d] | type[pxnn.Conv3d], axes: int) -> None:
    x = normal(0, (2, *(5,) * axes))
    layer = cls(2, 3, 2, 2, 1, 1, 1, True, "CIRCULAR", rkg=px.RandomKeyGenerator(1))
    general = pxnn.Conv(axes, 2, 3, 2, 2, 1, 1, 1, True, "CIRCULAR", rkg=px.RandomKeyGenerator(1))
    np.testing.assert_array_equal(layer(x), general(x))
    assert isinstance(layer, pxnn.Conv)


@pytest.mark.parametrize(
    "layer", [pxnn.Conv1d(2, 3, 3, padding=1), pxnn.ConvTranspose(1, 2, 3, 3, 2, padding_mode="CIRCULAR", padding=1)]
)
def test_a_batch_is_mapped(layer: pxnn.Layer) -> None:
    @pxf.jit()
    @pxf.vmap()
    def call(x: jax.Array, *, layer: pxnn.Layer) -> Any:
        return layer(x)

    xs = normal(0, (4, 2, 5))
    close(call(xs, layer=layer), jnp.stack([layer(x) for x in xs]))


ERRORS: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("Conv", (0, 1, 1, 1), {}, "num_spatial_dims to be a positive int, found 0"),
    ("Conv2d", (0, 1, 1), {}, "in_channels to be a positive int, found 0"),
    ("Conv2d", (1, 2.0, 1), {}, "out_channels to be a positive int, found 2.0"),
    ("Conv2d", (1, 1, (3, 3, 3)), {}, "kernel_size to be an int or 2 of them, one for each axis, found (3, 3, 3)"),
    ("Conv2d", (1, 1, (3, 0)), {}, "kernel_size to be a positive int, found 0"),
    ("Conv2d", (1, 1, 3, "2"), {}, "stride to be"),
    ("Conv2d", (1, 1, 3), {"dilation": -1}, "dilation to be a positive int, found -1"),
    ("Conv2d", (3, 4, 3), {"groups": 2}, "groups to divide in_channels, found 2 groups of 3"),
    ("Conv2d", (4, 3, 3), {"groups": 2}, "groups to divide out_channels, found 2 groups of 3"),
    ("Conv2d", (1, 1, 3), {"padding": "FULL"}, "padding to be sizes or one of ('SAME', 'SAME_LOWER', 'VALID')"),
    ("Conv2d", (1, 1, 3), {"padding": (1, 2, 3)}, "padding to be a non-negative int, 2 of them"),
    ("Conv2d", (1, 1, 3), {"padding": ((1, 2),)}, "or 2 pairs of them, before and after, found ((1, 2),)"),
    ("Conv2d", (1, 1, 3), {"padding": -1}, "found -1"),
    ("Conv2d", (1, 1, 3), {"padding": 0.5}, "found 0.5"),
    ("Conv2d", (1, 1, 3), {"padding_mode": "MIRROR"}, "found 'MIRROR'"),
    (
        "Conv2d",
        (1, 1, 3),
        {"padding_mode": 3},
        "padding_mode to be one of ('ZEROS', 'REFLECT', 'REPLICATE', 'CIRCULAR')",
    ),
    ("ConvTranspose", (1, 1, 1, 3), {"output_padding": 1}, "output_padding to be less than stride (1,), found 1"),
    ("ConvTranspose", (1, 1, 1, 3), {"output_padding": -1}, "output_padding to be a non-negative int, found -1"),
    ("ConvTranspose", (1, 3, 4, 3), {"groups": 2}, "ConvTranspose expected groups to divide in_channels"),
]


@pytest.mark.parametrize(("kind", "args", "kwargs", "words"), ERRORS)
def test_errors_at_construction(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        getattr(pxnn, kind)(*args, **kwargs)


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (pxnn.Conv2d(3, 1, 2), (4, 5, 5), "x of shape (3, axis1, axis2), one sample, found (4, 5, 5)"),
        (pxnn.Conv2d(3, 1, 2), (8, 3, 5, 5), "found (8, 3, 5, 5); map a batch with vmap"),
        (pxnn.Conv2d(3, 1, 2, dilation=4), (3, 4, 9), "kernel_size (2, 2), which covers (5, 5)"),
        (pxnn.ConvTranspose(1, 3, 1, 2), (3,), "ConvTranspose expected x of shape (3, axis1)"),
        (pxnn.ConvTranspose(1, 3, 1, 2, padding=3), (3, 4), "padding ((3, 3),) to leave something of y"),
    ],
)
def test_errors_at_a_call(layer: pxnn.Layer, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        layer(jnp.ones(shape))

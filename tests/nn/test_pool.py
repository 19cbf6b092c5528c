import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax.nn as pxnn
from tests.nn.oracles import Numbers, normal, positions, value_and_gradients
from tests.oracles import close

# A layer, the numpy reduction it stands for, kernel, stride, pads, whether use_ceil, and the shape of x.
Shape = tuple[int, ...]
Case = tuple[pxnn.Layer, str, Shape, Shape, list[tuple[int, int]], bool, Shape]
POOLS: list[Case] = [
    (pxnn.Pool(0.0, jax.lax.add, 1, 3, 2), "sum", (3,), (2,), [(0, 0)], False, (2, 8)),
    (pxnn.Pool(jnp.inf, jax.lax.min, 3, 2, 2, 1), "min", (2, 2, 2), (2, 2, 2), [(1, 1)] * 3, False, (1, 2, 3, 4)),
    (pxnn.MaxPool2d(2), "max", (2, 2), (1, 1), [(0, 0)] * 2, False, (3, 3, 4)),
    (pxnn.MaxPool2d((3, 2), (2, 3), ((1, 0), (0, 1))), "max", (3, 2), (2, 3), [(1, 0), (0, 1)], False, (2, 5, 6)),
    (pxnn.MaxPool2d(3, 2, 1, use_ceil=True), "max", (3, 3), (2, 2), [(1, 1)] * 2, True, (2, 6, 5)),
    (pxnn.AvgPool2d(2, 2), "mean", (2, 2), (2, 2), [(0, 0)] * 2, False, (2, 5, 4)),
    (pxnn.MaxPool2d(2, 3, use_ceil=True), "max", (2, 2), (3, 3), [(0, 0)] * 2, True, (1, 3, 6)),
    (pxnn.MaxPool2d(2, (3, 2), 1, use_ceil=True), "max", (2, 2), (3, 2), [(1, 1)] * 2, True, (1, 5, 7)),
    (pxnn.Pool(jnp.inf, jax.lax.min, 1, 1, 4, 0, True), "min", (1,), (4,), [(0, 0)], True, (2, 7)),
    (pxnn.AvgPool2d(2, 3, use_ceil=True), "mean", (2, 2), (3, 3), [(0, 0)] * 2, True, (1, 4, 3)),
    (pxnn.MaxPool2d(2, 9, ((0, 3), (1, 0))), "max", (2, 2), (9, 9), [(0, 3), (1, 0)], False, (1, 4, 4)),
    (pxnn.AvgPool2d((2, 3), 2, (1, 0), True), "mean", (2, 3), (2, 2), [(1, 1), (0, 0)], True, (1, 5, 6)),
]
OPERATIONS: dict[str, tuple[float, Callable[[Numbers], Any]]] = {
    "sum": (0.0, np.sum),
    "mean": (0.0, np.mean),
    "max": (-np.inf, np.max),
    "min": (np.inf, np.min),
}


@pytest.mark.parametrize(("layer", "name", "kernel", "stride", "pads", "ceil", "shape"), POOLS)
def test_pool_reduces_every_window(
    layer: pxnn.Layer, name: str, kernel: Shape, stride: Shape, pads: list[tuple[int, int]], ceil: bool, shape: Shape
) -> None:
    fill, reduce = OPERATIONS[name]
    x = normal(0, shape)
    rounded = np.ceil if ceil else np.floor
    sizes = zip(shape[1:], kernel, stride, pads, strict=True)
    output = []
    for n, k, s, (before, after) in sizes:
        output.append(int(rounded((n + before + after - k) / s)) + 1)
        if (output[-1] - 1) * s >= n + before:  # as PyTorch has it: windows begin in x or in what is before it
            output[-1] -= 1
    room = [(before, after + s) for (before, after), s in zip(pads, stride, strict=True)]
    padded = np.pad(np.asarray(x), [(0, 0), *room], constant_values=fill)
    places = np.pad(np.arange(x.size).reshape(shape), [(0, 0), *room], constant_values=-1)
    expected, x_grad = np.zeros((shape[0], *output)), np.zeros(x.size)
    direction = normal(1, expected.shape)
    for c, *p in positions(expected.shape):
        window: Any = (c, *(slice(a * s, a * s + k) for a, s, k in zip(p, stride, kernel, strict=True)))
        values = padded[window]
        expected[(c, *p)] = reduce(values)
        for value, place in zip(values.flat, places[window].flat, strict=True):
            if place >= 0:
                share = {"sum": 1.0, "mean": 1 / values.size}.get(name, float(value == reduce(values)))
                x_grad[place] += share * float(direction[(c, *p)])
    y, grads, actual = value_and_gradients(layer, x, direction)
    close(y, expected)
    close(actual, x_grad.reshape(shape))
    assert not grads


def blocks(n: int, target: int) -> list[slice]:
    """Cuts n elements into `target` blocks, where the first n mod target are longer by one."""
    lengths = [n // target + (block < n % target) for block in range(target)]
    ends = np.cumsum(lengths)
    return [slice(int(end) - length, int(end)) for end, length in zip(ends, lengths, strict=True)]


@pytest.mark.parametrize(
    ("layer", "target", "reduce", "shape"),
    [
        (pxnn.AdaptivePool(3, 1, jnp.max), (3,), np.max, (2, 8)),
        (pxnn.AdaptivePool((2, 3), 2, jnp.median), (2, 3), np.median, (2, 5, 7)),
        (pxnn.AdaptiveAvgPool2d(2), (2, 2), np.mean, (3, 5, 4)),
        (pxnn.AdaptiveMaxPool2d((3, 4)), (3, 4), np.max, (2, 3, 6)),
        (pxnn.AdaptivePool((1, 2, 2), 3, lambda v: (v**2).sum()), (1, 2, 2), lambda v: (v**2).sum(), (1, 2, 3, 2)),
    ],
)
def test_adaptive_pool_reduces_axis_by_axis(
    layer: pxnn.Layer, target: Shape, reduce: Callable[[Numbers], Any], shape: Shape
) -> None:
    x = normal(0, shape)
    expected = np.asarray(x)
    for axis, size in enumerate(target, start=1):
        parts = [expected.take(range(b.start, b.stop), axis) for b in blocks(expected.shape[axis], size)]
        expected = np.stack([np.apply_along_axis(reduce, axis, part) for part in parts], axis)
    close(jax.jit(layer)(x), expected)


@pytest.mark.parametrize(("layer", "reduce"), [(pxnn.AdaptiveAvgPool2d(2), "mean"), (pxnn.AdaptiveMaxPool2d(2), "max")])
def test_adaptive_pool_gradients(layer: pxnn.Layer, reduce: str) -> None:
    x, direction = normal(0, (2, 5, 4)), normal(1, (2, 2, 2))
    expected = np.zeros(x.shape)
    for c, (i, rows), (j, columns) in (
        (c, row, column) for c in range(2) for row in enumerate(blocks(5, 2)) for column in enumerate(blocks(4, 2))
    ):
        block = np.asarray(x[c, rows, columns])
        share = np.full(block.shape, 1 / block.size) if reduce == "mean" else block == block.max()
        expected[c, rows, columns] = share * float(direction[c, i, j])
    close(value_and_gradients(layer, x, direction)[2], expected)


@pytest.mark.thorough
@pytest.mark.parametrize("layer", [pxnn.MaxPool2d(2), pxnn.AvgPool2d(2), pxnn.AdaptiveAvgPool2d(3)])
def test_half_precision_is_kept(layer: pxnn.Layer) -> None:
    x = jnp.arange(16.0, dtype=jnp.bfloat16).reshape(1, 4, 4)
    assert layer(x).dtype == jnp.bfloat16
    close(layer(x).astype(jnp.float32), layer(x.astype(jnp.float32)), 0.01)


def test_integers_and_scalar_arrays() -> None:
    assert pxnn.MaxPool2d(2)(jnp.arange(4).reshape(1, 2, 2)).tolist() == [[[3]]]
    ones = jnp.ones((1, 4))
    close(pxnn.Pool(jnp.array(0.0), jax.lax.add, 1, 2)(ones), np.array([[2, 2, 2]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pxnn.MaxPool2d(0), "kernel_size to be a positive int, found 0"),
        (lambda: pxnn.MaxPool2d((2, 2, 2)), "kernel_size to be an int or 2 of them"),
        (lambda: pxnn.AvgPool2d(2, stride=0), "stride to be a positive int"),
        (lambda: pxnn.AvgPool2d(2, padding=(1, 2, 3)), "padding to be a non-negative int, 2 of them"),
        (lambda: pxnn.AvgPool2d(2, padding="SAME"), "found 'SAME'"),  # type: ignore[arg-type]  # what is tested
        (lambda: pxnn.Pool(0.0, jax.lax.add, -1, 2), "num_spatial_dims to be a positive int, found -1"),
        (lambda: pxnn.AdaptiveAvgPool2d(0), "target_shape to be a positive int, found 0"),
        (lambda: pxnn.AdaptivePool((1, 2), 1, jnp.max), "target_shape to be an int or 1 of them"),
    ],
)
def test_errors_at_construction(make: Callable[[], pxnn.Layer], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (pxnn.MaxPool2d(2), (3, 4), "x of shape (channels, axis1, axis2), one sample, found (3, 4)"),
        (pxnn.MaxPool2d(2), (8, 3, 4, 4), "map a batch with vmap"),
        (pxnn.MaxPool2d(5, padding=1), (1, 2, 8), "at least as large as kernel_size (5, 5), found (2, 8)"),
        (pxnn.MaxPool2d(2, padding=3), (1, 4, 4), "to be less than kernel_size (2, 2), found ((3, 3), (3, 3))"),
        (pxnn.AvgPool2d(2, padding=((2, 0), (0, 0))), (1, 4, 4), "a window would see nothing but padding"),
        (pxnn.MaxPool2d(2, 2, ((0, 2), (0, 0)), True), (1, 4, 4), "found ((0, 2), (0, 0)): a window would see"),
        (pxnn.AdaptiveAvgPool2d(3), (1, 4, 2), "at least as large as target_shape (3, 3), found (4, 2)"),
        (pxnn.AdaptiveAvgPool2d(3), (4, 2), "AdaptiveAvgPool2d expected x of shape (channels, axis1, axis2)"),
    ],
)
def test_errors_at_a_call(layer: pxnn.Layer, shape: Shape, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        layer(jnp.ones(shape))

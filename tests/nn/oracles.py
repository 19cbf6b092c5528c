"""Layers written out in numpy, one term of the sum at a time."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import minipcax as px

Numbers = NDArray[Any]
Pads = Sequence[tuple[int, int]]
Sizes = Sequence[int]
NUMPY_PAD_MODES: dict[str, Any] = {"ZEROS": "constant", "REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


def normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))  # nothing to compile


def first_key(seed: int) -> jax.Array:
    """The first key that RandomKeyGenerator(seed) gives, by the contract."""
    return jax.random.split(jax.random.PRNGKey(seed), 2)[1]


def uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


def positions(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, shape))


def same_pads(shape: Sizes, span: Sizes, stride: Sizes, lower: bool) -> Pads:
    """TensorFlow's SAME: ceil(n / stride) outputs, an odd element of padding after (or, `lower`, before)."""
    pads = []
    for n, k, s in zip(shape, span, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        small = total // 2
        pads.append((total - small, small) if lower else (small, total - small))
    return pads


def pad_matrix(n: int, pad: tuple[int, int], mode: str) -> Numbers:
    """Padding as a matrix from n elements to before + n + after."""
    rows = np.pad(np.arange(n) + 1, pad, NUMPY_PAD_MODES[mode])  # 0 where it is zeros
    return np.array([[float(row == column + 1) for column in range(n)] for row in rows])


def conv_matrix(
    weight: Numbers, shape: Sizes, stride: Sizes, pads: Pads, dilation: Sizes, groups: int, mode: str
) -> Numbers:
    """The convolution as an array of shape (out, *output, in, *shape): each entry of W at each place where it acts."""
    out_channels, in_per_group, *kernel = weight.shape
    in_channels = in_per_group * groups
    padded = [n + sum(pad) for n, pad in zip(shape, pads, strict=True)]
    output = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded, kernel, stride, dilation, strict=True)]
    matrix = np.zeros((out_channels, *output, in_channels, *padded))
    for o, i in positions((out_channels, in_per_group)):
        channel = o // (out_channels // groups) * in_per_group + i
        for k in positions(kernel):
            for p in positions(output) if weight[(o, i, *k)] else ():
                place = tuple(s * a + d * b for s, a, d, b in zip(stride, p, dilation, k, strict=True))
                matrix[(o, *p, channel, *place)] += weight[(o, i, *k)]
    for axis, (n, pad) in enumerate(zip(shape, pads, strict=True)):
        position = 2 + len(kernel) + axis
        matrix = np.moveaxis(np.tensordot(matrix, pad_matrix(n, pad, mode), (position, 0)), -1, position)
    return matrix


def linear_gradient(fn: Callable[[Numbers], Numbers], shape: tuple[int, ...], direction: Numbers) -> Numbers:
    """The gradient of <direction, fn(v)> for a function that is linear in v, from its values at the unit vectors."""
    gradient = np.zeros(shape)
    for place in positions(shape):
        unit = np.zeros(shape)
        unit[place] = 1
        gradient[place] = (direction * fn(unit)).sum()
    return gradient


def value_and_gradients(layer: Any, x: jax.Array, direction: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
    """A layer's output, and the gradients of its projection on a direction: for its parameters, by name, and for x."""

    def loss(values: dict[str, jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        twin = copy.deepcopy(layer)  # a parameter holds no tracer of a trace that did not make it
        for name, value in values.items():
            getattr(twin.nn, name).set(value)
        y = twin(x)
        return (y * direction).sum(), y

    params = {name: param for name, param in vars(layer.nn).items() if isinstance(param, px.Param)}
    values = {name: param.get() for name, param in params.items()}
    (_, y), (grads, x_grad) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(values, x)
    return y, grads, x_grad

"""Pooling: reduces the windows of every channel, each to one number."""

import math
from collections.abc import Callable
from typing import SupportsFloat

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Num

from minipcax.nn._layer import ArrayLayer
from minipcax.nn._parameter import Parameters
from minipcax.nn._sizes import Padding, Size, Sizes, applying, check_sample, flag, per_axis, per_side, size, wrong

Reduction = Callable[[Array, Array], Array]


class Pool(
    ArrayLayer, static=("init", "operation", "num_spatial_dims", "kernel_size", "stride", "padding", "use_ceil")
):
    """Reduces every window of every channel to one number.

    y[c, p] = init ∘ x̃[c, stride · p] ∘ … ∘ x̃[c, stride · p + kernel_size − 1]

    where x̃ is x, padded with init, and ∘ is the operation. Maps one sample x of shape (channels, *spatial) to y of
    shape (channels, *output): an axis of n elements becomes one of ⌊(n + before + after − kernel_size) / stride⌋ + 1.
    There are no parameters.

    Args:
        init: the start of the reduction: the neutral element of the operation, a number.
        operation: an associative function of two arrays. JAX differentiates `jax.lax.add`, `max` and `min`.
        num_spatial_dims: the number of spatial axes of x.
        kernel_size: the size of a window; an int or one per spatial axis.
        stride: the step from one window to the next; an int or one per spatial axis.
        padding: the number of elements added to both sides of x: an int, one per spatial axis, or a pair (before,
            after) per spatial axis.
        use_ceil: whether to round the number of windows up instead of down. As in PyTorch, a window that would begin in
            the padding after x is left out.

    Raises:
        ValueError: an argument is out of range, x does not have num_spatial_dims spatial axes, the padded x is smaller
            than a window, or a window would see nothing but padding.
        TypeError: the operation fails on two arrays, or x is not an array.

    Example:
        >>> Pool(0.0, jax.lax.add, 1, kernel_size=2, stride=2)(jnp.arange(4.0)[None]).tolist()
        [[1.0, 5.0]]
    """

    def __init__(
        self,
        init: ArrayLike,
        operation: Reduction,
        num_spatial_dims: Size,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        use_ceil: bool = False,
    ) -> None:
        super().__init__()
        self.nn = Parameters()
        if not isinstance(init, SupportsFloat) or np.size(init) != 1 or not callable(operation):
            expected = "init to be a number and operation a function of two arrays, such as 0.0 and jax.lax.add"
            raise wrong(self, expected, f"{init!r} and {operation!r}")
        # A plain number, by which JAX recognises sums and maxima, which alone have gradients.
        self.init, self.operation = np.asarray(init).item(), operation
        self.num_spatial_dims = axes = size(self, "num_spatial_dims", num_spatial_dims)
        self.kernel_size = per_axis(self, "kernel_size", kernel_size, axes)
        self.stride = per_axis(self, "stride", stride, axes)
        self.padding = per_side(self, padding, axes)
        self.use_ceil = flag(self, "use_ceil", use_ceil)

    def _forward(self, x: Num[Array, "channels *spatial"]) -> Num[Array, "channels *output"]:
        check_sample(self, x.shape, None, self.num_spatial_dims)
        pads = []
        axes = zip(x.shape[1:], self.kernel_size, self.stride, self.padding, strict=True)
        for n, kernel, stride, (before, after) in axes:
            rest = before + n + after - kernel  # the last place where a window fits
            if rest < 0:
                expected = f"x, padded, to be at least as large as kernel_size {self.kernel_size}"
                raise wrong(self, expected, f"{x.shape[1:]} with padding {self.padding}")
            if before >= kernel or rest - rest % stride >= before + n:
                found = f"{self.padding}: a window would see nothing but padding"
                raise wrong(self, f"padding to be less than kernel_size {self.kernel_size}", found)
            more = -rest % stride if self.use_ceil else 0
            pads.append((before, after + more if rest + more < before + n else after))
        window, steps = (1, *self.kernel_size), (1, *self.stride)
        with applying(self, self.operation, "two arrays, such as jax.lax.max"):
            y: Array = lax.reduce_window(x, self.init, self.operation, window, steps, ((0, 0), *pads))
        return y


class MaxPool2d(Pool):
    """Takes the maximum of every window over two spatial axes.

    Maps one sample of shape (channels, height, width) to one of shape (channels, new height, new width). The arguments,
    from `kernel_size` on, and the errors are those of `Pool`; the padding is −∞.

    Example:
        >>> MaxPool2d(2, 2)(jnp.arange(8.0).reshape(1, 2, 4)).tolist()
        [[[5.0, 7.0]]]
    """

    def __init__(self, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0, use_ceil: bool = False) -> None:
        super().__init__(-jnp.inf, lax.max, 2, kernel_size, stride, padding, use_ceil)


class AvgPool2d(Pool):
    """Takes the mean of every window over two spatial axes; zeros that pad it count as elements.

    Maps one sample of shape (channels, height, width) to one of shape (channels, new height, new width). The arguments,
    from `kernel_size` on, and the errors are those of `Pool`.

    Example:
        >>> AvgPool2d(2, 2)(jnp.arange(8.0).reshape(1, 2, 4)).tolist()
        [[[2.5, 4.5]]]
    """

    def __init__(self, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0, use_ceil: bool = False) -> None:
        super().__init__(0.0, lax.add, 2, kernel_size, stride, padding, use_ceil)

    def _forward(self, x: Num[Array, "channels *spatial"]) -> Num[Array, "channels *output"]:
        exact = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)  # sums of small ints would overflow
        return super()._forward(exact) / math.prod(self.kernel_size)


class AdaptivePool(ArrayLayer, static=("target_shape", "num_spatial_dims", "operation")):
    """Reduces every channel to a given shape, whatever the shape of x.

    Maps one sample x of shape (channels, *spatial) to y of shape (channels, *target_shape). Each axis in turn, from the
    first, is cut into as many blocks as the target has elements, and each block is reduced to one number. If n elements
    do not divide into m blocks, the first n mod m are longer by one. There are no parameters.

    Args:
        target_shape: the spatial shape of y; an int or one per spatial axis.
        num_spatial_dims: the number of spatial axes of x.
        operation: a function from a vector to a number, such as `jnp.mean`.

    Raises:
        ValueError: an argument is out of range, x does not have num_spatial_dims spatial axes, or an axis of x is
            shorter than that of the target.
        TypeError: the operation fails on a vector, or x is not an array.

    Example:
        >>> AdaptivePool(2, 1, jnp.max)(jnp.arange(5.0)[None]).tolist()
        [[2.0, 4.0]]
    """

    def __init__(self, target_shape: Sizes, num_spatial_dims: Size, operation: Callable[[Array], Array]) -> None:
        super().__init__()
        self.nn = Parameters()
        self.num_spatial_dims = size(self, "num_spatial_dims", num_spatial_dims)
        self.target_shape = per_axis(self, "target_shape", target_shape, self.num_spatial_dims)
        if not callable(operation):
            raise wrong(self, "operation to be a function, such as jnp.mean", repr(operation))
        self.operation = operation

    def _forward(self, x: Num[Array, "channels *spatial"]) -> Num[Array, "channels *target"]:
        check_sample(self, x.shape, None, self.num_spatial_dims)
        if any(n < target for n, target in zip(x.shape[1:], self.target_shape, strict=True)):
            raise wrong(self, f"x to be at least as large as target_shape {self.target_shape}", x.shape[1:])
        reduce = jnp.vectorize(self.operation, signature="(n)->()")
        with applying(self, self.operation, "one vector, such as jnp.mean"):
            for axis, target in enumerate(self.target_shape, start=1):
                rows = jnp.moveaxis(x, axis, -1)
                short, longer = divmod(rows.shape[-1], target)
                blocks = jnp.split(rows, [longer * (short + 1)], axis=-1)
                counts = (longer, target - longer)
                cut = [b.reshape(*b.shape[:-1], n, -1) for b, n in zip(blocks, counts, strict=True) if n]
                x = jnp.moveaxis(jnp.concatenate([reduce(block) for block in cut], axis=-1), -1, axis)
        return x


class AdaptiveAvgPool2d(AdaptivePool):
    """Takes the mean of every block over two spatial axes, as `AdaptivePool(target_shape, 2, jnp.mean)` does.

    Maps one sample of shape (channels, height, width) to one of shape (channels, *target_shape).

    Example:
        >>> AdaptiveAvgPool2d(1)(jnp.arange(4.0).reshape(1, 2, 2)).tolist()
        [[[1.5]]]
    """

    def __init__(self, target_shape: Sizes) -> None:
        super().__init__(target_shape, 2, jnp.mean)


class AdaptiveMaxPool2d(AdaptivePool):
    """Takes the maximum of every block over two spatial axes, as `AdaptivePool(target_shape, 2, jnp.max)` does.

    Maps one sample of shape (channels, height, width) to one of shape (channels, *target_shape).

    Example:
        >>> AdaptiveMaxPool2d(1)(jnp.arange(4.0).reshape(1, 2, 2)).tolist()
        [[[3.0]]]
    """

    def __init__(self, target_shape: Sizes) -> None:
        super().__init__(target_shape, 2, jnp.max)

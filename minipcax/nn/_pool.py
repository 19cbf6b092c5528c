"""Pooling: every channel on its own, one number for each window."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, SupportsFloat

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Num

from minipcax.nn._layer import ArrayLayer, Definition
from minipcax.nn._sizes import Padding, Size, Sizes, check_sample, flag, per_axis, per_side, size

Reduction = Callable[[Array, Array], Array]


class PoolDefinition(
    Definition, static=("init", "operation", "num_spatial_dims", "kernel_size", "stride", "padding", "use_ceil")
):
    """Reduces windows: see `Pool`."""

    def __init__(self, init: ArrayLike, operation: Reduction, num_spatial_dims: Size, *window: Any) -> None:
        kernel_size, stride, padding, use_ceil = window  # as Pool has them
        if not isinstance(init, SupportsFloat) or np.size(init) != 1 or not callable(operation):
            raise ValueError(
                "Pool expected init to be a number and operation a function of two arrays, such as 0.0 and "
                f"jax.lax.add, found {init!r} and {operation!r}"
            )
        # A plain number, by which JAX recognises sums and maxima, which alone have gradients.
        self.init, self.operation = np.asarray(init).item(), operation
        self.use_ceil = flag("Pool", "use_ceil", use_ceil)
        self.num_spatial_dims = axes = size("Pool", "num_spatial_dims", num_spatial_dims)
        self.kernel_size = per_axis("Pool", "kernel_size", kernel_size, axes)
        self.stride = per_axis("Pool", "stride", stride, axes)
        self.padding = per_side("Pool", padding, axes)

    def __call__(self, x: Num[Array, "channels *spatial"]) -> Num[Array, "channels *output"]:
        check_sample("Pool", x.shape, None, self.num_spatial_dims)
        pads = []
        axes = zip(x.shape[1:], self.kernel_size, self.stride, self.padding, strict=True)
        for n, kernel, stride, (before, after) in axes:
            rest = before + n + after - kernel  # the last place where a window fits
            if rest < 0:
                raise ValueError(
                    f"Pool expected x, padded, to be at least as large as kernel_size {self.kernel_size}, found "
                    f"{x.shape[1:]} with padding {self.padding}"
                )
            if before >= kernel or rest - rest % stride >= before + n:
                raise ValueError(
                    f"Pool expected padding to be less than kernel_size {self.kernel_size}, found {self.padding}: a "
                    "window would see nothing but padding"
                )
            more = -rest % stride if self.use_ceil else 0
            pads.append((before, after + more if rest + more < before + n else after))
        window, steps = (1, *self.kernel_size), (1, *self.stride)
        with _applying("Pool", self.operation, "two arrays, such as jax.lax.max"):
            y: Array = lax.reduce_window(x, self.init, self.operation, window, steps, ((0, 0), *pads))
        return y


@contextmanager
def _applying(layer: str, operation: object, arguments: str) -> Iterator[None]:
    """Says what an operation should have been, where it fails."""
    try:
        yield
    except TypeError as error:
        raise TypeError(
            f"{layer} expected operation to be a function of {arguments}, found {operation!r}, which fails: {error}"
        ) from error


class AvgPoolDefinition(PoolDefinition):
    """Sums of windows, over their size."""

    def __call__(self, x: Num[Array, "channels *spatial"]) -> Num[Array, "channels *output"]:
        exact = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)  # sums of small ints would overflow
        return super().__call__(exact) / math.prod(self.kernel_size)


class Pool(ArrayLayer):
    """Reduces every window of every channel to one number.

    y[c, p] = init ∘ x̃[c, stride · p] ∘ … ∘ x̃[c, stride · p + kernel_size − 1]

    where x̃ is x, padded with init, and ∘ is the operation.

    Args:
        init: what the reduction starts from, the operation's neutral element.
        operation: an associative function of two arrays. JAX differentiates `jax.lax.add`, `max` and `min`.
        num_spatial_dims: the number of spatial axes of x, which has shape (channels, *spatial).
        kernel_size: the extent of a window in each spatial axis.
        stride: the step from one window to the next.
        padding: how much is added to x: an int, one per axis, or a pair (before, after) per axis.
        use_ceil: whether to add as much after x as a last window needs, if it sees some of x (as in PyTorch, one that
            would begin in the padding after x is left out); else the remainder is dropped.

    Raises:
        ValueError: an argument is not understood, or x has other axes, or a window does not fit.

    Example:
        >>> Pool(0.0, jax.lax.add, 1, kernel_size=2, stride=2)(jnp.arange(4.0)[None]).tolist()
        [[1.0, 5.0]]
    """

    nn: PoolDefinition

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
        super().__init__(PoolDefinition, init, operation, num_spatial_dims, kernel_size, stride, padding, use_ceil)


class MaxPool2d(Pool):
    """The maximum of every window of two spatial axes; arguments as in `Pool`.

    Example:
        >>> MaxPool2d(2, 2)(jnp.arange(8.0).reshape(1, 2, 4)).tolist()
        [[[5.0, 7.0]]]
    """

    def __init__(self, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0, use_ceil: bool = False) -> None:
        super().__init__(-jnp.inf, lax.max, 2, kernel_size, stride, padding, use_ceil)


class AvgPool2d(Pool):
    """The mean of every window of two spatial axes, padding included; arguments as in `Pool`.

    Example:
        >>> AvgPool2d(2, 2)(jnp.arange(8.0).reshape(1, 2, 4)).tolist()
        [[[2.5, 4.5]]]
    """

    def __init__(self, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0, use_ceil: bool = False) -> None:
        ArrayLayer.__init__(self, AvgPoolDefinition, 0.0, lax.add, 2, kernel_size, stride, padding, use_ceil)


class AdaptivePoolDefinition(Definition, static=("target_shape", "num_spatial_dims", "operation")):
    """Reduces blocks: see `AdaptivePool`."""

    def __init__(self, target_shape: Sizes, num_spatial_dims: Size, operation: Callable[[Array], Array]) -> None:
        self.num_spatial_dims = size("AdaptivePool", "num_spatial_dims", num_spatial_dims)
        self.target_shape = per_axis("AdaptivePool", "target_shape", target_shape, self.num_spatial_dims)
        if not callable(operation):
            raise ValueError(f"AdaptivePool expected operation to be a function, such as jnp.mean, found {operation!r}")
        self.operation = operation

    def __call__(self, x: Num[Array, "channels *spatial"]) -> Num[Array, "channels *target"]:
        check_sample("AdaptivePool", x.shape, None, self.num_spatial_dims)
        if any(n < target for n, target in zip(x.shape[1:], self.target_shape, strict=True)):
            raise ValueError(
                f"AdaptivePool expected x to be at least as large as target_shape {self.target_shape}, found "
                f"{x.shape[1:]}"
            )
        reduce = jnp.vectorize(self.operation, signature="(n)->()")
        with _applying("AdaptivePool", self.operation, "one vector, such as jnp.mean"):
            return self.cut(x, reduce)

    def cut(self, x: Num[Array, "channels *spatial"], reduce: Callable[[Array], Array]) -> Num[Array, "channels *y"]:
        """Cuts each axis in turn into blocks, and reduces these."""
        for axis, target in enumerate(self.target_shape, start=1):
            rows = jnp.moveaxis(x, axis, -1)
            short, longer = divmod(rows.shape[-1], target)
            blocks = jnp.split(rows, [longer * (short + 1)], axis=-1)
            counts = (longer, target - longer)
            cut = [b.reshape(*b.shape[:-1], n, -1) for b, n in zip(blocks, counts, strict=True) if n]
            x = jnp.moveaxis(jnp.concatenate([reduce(block) for block in cut], axis=-1), -1, axis)
        return x


class AdaptivePool(ArrayLayer):
    """Reduces every channel to a given shape, whatever the shape of x.

    Each axis in turn, from the first, is cut into as many blocks as the target has elements, and each block is reduced
    to one number. If n elements do not divide into m blocks, the first n mod m are longer by one.

    Args:
        target_shape: the spatial shape of y, an int or one per axis.
        num_spatial_dims: the number of spatial axes of x, which has shape (channels, *spatial).
        operation: a function from a vector to a number, such as `jnp.mean`.

    Raises:
        ValueError: an argument is not understood, or x has other axes, or is smaller than the target.

    Example:
        >>> AdaptivePool(2, 1, jnp.max)(jnp.arange(5.0)[None]).tolist()
        [[2.0, 4.0]]
    """

    nn: AdaptivePoolDefinition

    def __init__(self, target_shape: Sizes, num_spatial_dims: Size, operation: Callable[[Array], Array]) -> None:
        super().__init__(AdaptivePoolDefinition, target_shape, num_spatial_dims, operation)


class AdaptiveAvgPool2d(AdaptivePool):
    """The mean of every block of two spatial axes: see `AdaptivePool`.

    Example:
        >>> AdaptiveAvgPool2d(1)(jnp.arange(4.0).reshape(1, 2, 2)).tolist()
        [[[1.5]]]
    """

    def __init__(self, target_shape: Sizes) -> None:
        super().__init__(target_shape, 2, jnp.mean)


class AdaptiveMaxPool2d(AdaptivePool):
    """The maximum of every block of two spatial axes: see `AdaptivePool`.

    Example:
        >>> AdaptiveMaxPool2d(1)(jnp.arange(4.0).reshape(1, 2, 2)).tolist()
        [[[3.0]]]
    """

    def __init__(self, target_shape: Sizes) -> None:
        super().__init__(target_shape, 2, jnp.max)

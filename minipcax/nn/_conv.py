"""Convolutions."""

from typing import ClassVar

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.nn._sizes import (
    Padding,
    Pads,
    Shape,
    Size,
    Sizes,
    check_sample,
    choice,
    flag,
    floating,
    per_axis,
    per_side,
    size,
    wrong,
)
from minipcax.nn._weighted import WeightedLayer

STRING_PADDINGS = ("SAME", "SAME_LOWER", "VALID")
PADDING_MODES = {"ZEROS": "constant", "REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}  # of jnp.pad
SIZES = ("num_spatial_dims", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


class Convolution(WeightedLayer, static=(*SIZES, "padding_mode")):
    """The arguments of a convolution and its linear map x ↦ W ⋆ x: the base of `Conv` and of the transposed ones."""

    def __init__(
        self,
        num_spatial_dims: Size,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Padding = 0,
        dilation: Sizes = 1,
        groups: Size = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        dtype: DTypeLike | None = None,
        *,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        super().__init__()
        self.num_spatial_dims = axes = size(self, "num_spatial_dims", num_spatial_dims)
        self.in_channels = size(self, "in_channels", in_channels)
        self.out_channels = size(self, "out_channels", out_channels)
        self.kernel_size = per_axis(self, "kernel_size", kernel_size, axes)
        self.stride = per_axis(self, "stride", stride, axes)
        self.padding: str | Pads
        if isinstance(padding, str):
            self.padding = choice(self, "padding", padding, STRING_PADDINGS, "sizes or ")
        else:
            self.padding = per_side(self, padding, axes)
        self.dilation = per_axis(self, "dilation", dilation, axes)
        self.groups = size(self, "groups", groups)
        for argument, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise wrong(self, f"groups to divide {argument}", f"{groups} groups of {channels}")
        self.use_bias = flag(self, "use_bias", use_bias)
        self.padding_mode = choice(self, "padding_mode", padding_mode, [*PADDING_MODES])
        weight_shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self._draw(rkg, weight_shape, (self.out_channels, *(1,) * axes), floating(self, dtype))

    def _span(self) -> Shape:
        """The extent of the dilated kernel in each axis."""
        sizes = zip(self.kernel_size, self.dilation, strict=True)
        return tuple(dilation * (kernel - 1) + 1 for kernel, dilation in sizes)

    def _convolve(self, x: Num[Array, "channels *spatial"], weight: Float[Array, "..."]) -> Float[Array, "..."]:
        """W ⋆ x."""
        pads, span = self.padding, self._span()
        if isinstance(pads, str):
            pads = tuple(lax.padtype_to_pads(x.shape[1:], span, self.stride, pads))
        padded = tuple(n + before + after for n, (before, after) in zip(x.shape[1:], pads, strict=True))
        if any(n < covered for n, covered in zip(padded, span, strict=True)):
            expected = (
                f"x, padded, to be at least as large as kernel_size {self.kernel_size}, which covers {span} with "
                f"dilation {self.dilation}"
            )
            raise wrong(self, expected, padded)
        if self.padding_mode != "ZEROS":
            x = jnp.pad(x, ((0, 0), *pads), PADDING_MODES[self.padding_mode])
            pads = ((0, 0),) * len(pads)
        batch_of_one = lax.conv_general_dilated(
            x[None], weight, self.stride, pads, rhs_dilation=self.dilation, feature_group_count=self.groups
        )
        return batch_of_one[0]


class Conv(Convolution):
    """A convolution (as everywhere in deep learning, a cross-correlation) over any number of spatial axes.

    y[o, p] = b[o] + Σ_i Σ_k W[o, i, k] · x̃[i, stride · p + dilation · k]

    where x̃ is x, padded, and i runs over the input channels in the group of o.

    Maps one sample x of shape (in_channels, *spatial) to y of shape (out_channels, *output). An axis of n elements
    becomes one of ⌊(n + before + after − dilation · (kernel_size − 1) − 1) / stride⌋ + 1. The weight W has shape
    (out_channels, in_channels / groups, *kernel_size), the bias b has shape (out_channels, 1, ...), and both are drawn
    from U(−a, a), where a = 1/√(in_channels / groups · Π kernel_size).

    Args:
        num_spatial_dims: the number of spatial axes.
        in_channels: the number of channels of x.
        out_channels: the number of channels of y.
        kernel_size: the size of the kernel; an int or one per spatial axis.
        stride: the step between two positions of the kernel; an int or one per spatial axis.
        padding: the number of elements added to both sides of x: an int, one per spatial axis, or a pair (before,
            after) per spatial axis; or "VALID" (none), "SAME" (with stride 1, y has the spatial shape of x; an odd
            element goes after) or "SAME_LOWER" (before).
        dilation: the step between two elements of x under the kernel; an int or one per spatial axis.
        groups: the number of groups of channels; it divides in_channels and out_channels.
        use_bias: whether to add b; without it, `nn.bias` is None.
        padding_mode: what is added: "ZEROS", "REFLECT", "REPLICATE" (the border) or "CIRCULAR".
        dtype: the floating dtype of W and b; None for JAX's default.
        rkg: the generator from which one key is drawn.

    Raises:
        ValueError: an argument is out of range, x does not have in_channels channels or num_spatial_dims spatial axes,
            or the padded x is smaller than the kernel.
        TypeError: `rkg` is not a `RandomKeyGenerator`, or x is not an array.

    Example:
        >>> layer = Conv(1, 2, 4, kernel_size=3, stride=2, padding=1)
        >>> layer(jnp.ones((2, 8))).shape, layer.nn.weight
        ((4, 4), LayerParam([4,2,3], float32))

    Reference:
        Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
    """

    def _forward(self, x: Num[Array, "in_channels *spatial"]) -> Float[Array, "out_channels *output"]:
        check_sample(self, x.shape, self.in_channels, self.num_spatial_dims)
        weight = array_of(self.nn.weight)
        dtype = jnp.result_type(x, weight)
        return self._plus_bias(self._convolve(x.astype(dtype), weight.astype(dtype)), self.out_channels)


class FixedConv(Conv):
    """A `Conv` whose class sets the number of spatial axes."""

    _axes: ClassVar[int]

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Padding = 0,
        dilation: Sizes = 1,
        groups: Size = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        dtype: DTypeLike | None = None,
        *,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        sizes = self._axes, in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        super().__init__(*sizes, use_bias, padding_mode, dtype, rkg=rkg)


class Conv1d(FixedConv):
    """A convolution over one spatial axis.

    Maps one sample of shape (in_channels, length) to one of shape (out_channels, new length). The arguments, after
    `num_spatial_dims`, the parameters and the errors are those of `Conv`.

    Example:
        >>> Conv1d(2, 4, kernel_size=3)(jnp.ones((2, 8))).shape
        (4, 6)
    """

    _axes = 1


class Conv2d(FixedConv):
    """A convolution over two spatial axes.

    Maps one sample of shape (in_channels, height, width) to one of shape (out_channels, new height, new width). The
    arguments, after `num_spatial_dims`, the parameters and the errors are those of `Conv`.

    Example:
        >>> Conv2d(2, 4, kernel_size=3)(jnp.ones((2, 8, 5))).shape
        (4, 6, 3)
    """

    _axes = 2


class Conv3d(FixedConv):
    """A convolution over three spatial axes.

    Maps one sample of shape (in_channels, depth, height, width) to one of shape (out_channels, new depth, new height,
    new width). The arguments, after `num_spatial_dims`, the parameters and the errors are those of `Conv`.

    Example:
        >>> Conv3d(2, 4, kernel_size=3)(jnp.ones((2, 8, 5, 4))).shape
        (4, 6, 3, 2)
    """

    _axes = 3

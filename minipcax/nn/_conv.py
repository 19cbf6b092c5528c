"""Convolutions."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.nn._init import WeightedDefinition
from minipcax.nn._layer import ArrayLayer
from minipcax.nn._sizes import Padding, Pads, Size, Sizes, check_sample, flag, floating, per_axis, per_side, size

STRING_PADDINGS = ("SAME", "SAME_LOWER", "VALID")
# What jnp.pad calls the padding modes.
PADDING_MODES = {"ZEROS": "constant", "REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


SIZES = ("num_spatial_dims", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


class ConvDefinition(WeightedDefinition, static=(*SIZES, "padding_mode")):
    """y = b + W ⋆ x: see `Conv`."""

    name: ClassVar[str] = "Conv"

    def __init__(self, num_spatial_dims: Size, in_channels: Size, out_channels: Size, *kernel: Any) -> None:
        kernel_size, stride, padding, dilation, groups, use_bias, padding_mode, dtype, rkg = kernel  # as Conv has them
        name = self.name
        self.num_spatial_dims = axes = size(name, "num_spatial_dims", num_spatial_dims)
        self.in_channels = size(name, "in_channels", in_channels)
        self.out_channels = size(name, "out_channels", out_channels)
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, axes)
        self.stride = per_axis(name, "stride", stride, axes)
        self.dilation = per_axis(name, "dilation", dilation, axes)
        self.groups = size(name, "groups", groups)
        self.use_bias = flag(name, "use_bias", use_bias)
        for argument, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{name} expected groups to divide {argument}, found {groups} groups of {channels}")
        self.padding: str | Pads
        if isinstance(padding, str):
            self.padding = padding.upper()
            if self.padding not in STRING_PADDINGS:
                raise ValueError(f"{name} expected padding to be sizes or one of {STRING_PADDINGS}, found {padding!r}")
        else:
            self.padding = per_side(name, padding, axes)
        self.padding_mode = str(padding_mode).upper()
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(f"{name} expected padding_mode to be one of {(*PADDING_MODES,)}, found {padding_mode!r}")

        weight_shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.draw(rkg, weight_shape, (self.out_channels, *(1,) * axes), floating(name, dtype))

    @property
    def span(self) -> tuple[int, ...]:
        """How much of each axis the dilated kernel covers."""
        return tuple(
            dilation * (kernel - 1) + 1 for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)
        )

    def convolve(self, x: Num[Array, "channels *spatial"], weight: Float[Array, "..."]) -> Float[Array, "..."]:
        """The linear map W ⋆ x."""
        pads = self.padding
        if isinstance(pads, str):
            pads = tuple(lax.padtype_to_pads(x.shape[1:], self.span, self.stride, pads))
        padded = tuple(n + before + after for n, (before, after) in zip(x.shape[1:], pads, strict=True))
        if any(n < span for n, span in zip(padded, self.span, strict=True)):
            raise ValueError(
                f"{self.name} expected x, padded, to be at least as large as kernel_size {self.kernel_size}, which "
                f"covers {self.span} with dilation {self.dilation}; found {padded}"
            )
        if self.padding_mode != "ZEROS":
            x = jnp.pad(x, ((0, 0), *pads), PADDING_MODES[self.padding_mode])
            pads = ((0, 0),) * len(pads)
        batch_of_one = lax.conv_general_dilated(
            x[None], weight, self.stride, pads, rhs_dilation=self.dilation, feature_group_count=self.groups
        )
        return batch_of_one[0]

    def __call__(self, x: Num[Array, "in_channels *spatial"]) -> Float[Array, "out_channels *output"]:
        check_sample(self.name, x.shape, self.in_channels, self.num_spatial_dims)
        weight = array_of(self.weight)
        dtype = jnp.result_type(x, weight)
        return self.plus_bias(self.convolve(x.astype(dtype), weight.astype(dtype)), self.out_channels)


class Conv(ArrayLayer):
    """A convolution (as everywhere in deep learning, a cross-correlation) over any number of spatial axes.

    y[o, p] = b[o] + Σ_i Σ_k W[o, i, k] · x̃[i, stride · p + dilation · k], where x̃ is x, padded. With groups, the sum
    over input channels i is over those of the group of o.

    Args:
        num_spatial_dims: the number of spatial axes.
        in_channels: the channels of x, of shape (in_channels, *spatial).
        out_channels: the channels of y.
        kernel_size: the extent of W, an int or, as for stride, padding and dilation, one per axis.
        stride: the step from one place where W is applied to the next.
        padding: how much is added to x, also as a pair (before, after) per axis; or "VALID" (nothing), "SAME" (stride 1
            keeps the shape, the odd one goes after) or "SAME_LOWER" (before).
        dilation: the step between the elements of x that one application of W sees.
        groups: how many groups the channels are cut into; W has shape (out_channels, in_channels / groups, *kernel).
        use_bias: whether there is a b, of shape (out_channels, 1, ...).
        padding_mode: what is added: "ZEROS", "REFLECT", "REPLICATE" (the border) or "CIRCULAR".
        dtype: of the weights.
        rkg: gives the key that they are drawn from, uniform in ±1/√(in_channels / groups · Π kernel_size).

    Raises:
        ValueError: an argument is not understood, or x has other channels or axes, or is smaller than the kernel.

    Example:
        >>> layer = Conv(1, 2, 4, kernel_size=3, stride=2, padding=1)
        >>> layer(jnp.ones((2, 8))).shape, layer.nn.weight
        ((4, 4), LayerParam([4,2,3], float32))

    Reference:
        Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
    """

    nn: ConvDefinition

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
        kernel = kernel_size, stride, padding, dilation, groups, use_bias, padding_mode
        super().__init__(ConvDefinition, num_spatial_dims, in_channels, out_channels, *kernel, dtype, rkg)


class _FixedConv(Conv):
    """A `Conv` whose class says the number of spatial axes."""

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
        kernel = kernel_size, stride, padding, dilation, groups, use_bias, padding_mode
        super().__init__(self._axes, in_channels, out_channels, *kernel, dtype, rkg=rkg)


class Conv1d(_FixedConv):
    """`Conv` over one spatial axis, x of shape (in_channels, length).

    Example:
        >>> Conv1d(2, 4, kernel_size=3)(jnp.ones((2, 8))).shape
        (4, 6)
    """

    _axes = 1


class Conv2d(_FixedConv):
    """`Conv` over two spatial axes, x of shape (in_channels, height, width).

    Example:
        >>> Conv2d(2, 4, kernel_size=3)(jnp.ones((2, 8, 5))).shape
        (4, 6, 3)
    """

    _axes = 2


class Conv3d(_FixedConv):
    """`Conv` over three spatial axes, x of shape (in_channels, depth, height, width).

    Example:
        >>> Conv3d(2, 4, kernel_size=3)(jnp.ones((2, 8, 5, 4))).shape
        (4, 6, 3, 2)
    """

    _axes = 3

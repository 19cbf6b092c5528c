"""Transposed convolutions."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.nn._conv import Convolution
from minipcax.nn._sizes import Padding, Shape, Size, Sizes, check_sample, per_axis, wrong


class TransposedConvolution(Convolution, static=("output_padding",)):
    """y = b + Cᵀ x, where C is a convolution from y's channels to x's: the base of `ConvTranspose` and `Transposed`."""

    def __init__(
        self,
        num_spatial_dims: Size,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: str | Padding = 0,
        output_padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: Size = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        dtype: DTypeLike | None = None,
        *,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        sizes = num_spatial_dims, in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        super().__init__(*sizes, use_bias, padding_mode, dtype, rkg=rkg)
        self.output_padding = per_axis(self, "output_padding", output_padding, self.num_spatial_dims, least=0)
        if any(extra >= stride for extra, stride in zip(self.output_padding, self.stride, strict=True)):
            raise wrong(self, f"output_padding to be less than stride {self.stride}", repr(output_padding))

    def _output_shape(self, shape: Shape) -> Shape:
        """The spatial shape of y for that of x. C maps several shapes to that of x; `output_padding` chooses one."""
        sizes = zip(shape, self.stride, self._span(), self.output_padding, strict=True)
        if isinstance(self.padding, str) and self.padding != "VALID":
            return tuple(n * stride - extra for n, stride, _, extra in sizes)
        pads = ((0, 0),) * len(shape) if isinstance(self.padding, str) else self.padding
        output = tuple((n - 1) * stride + span + extra for n, stride, span, extra in sizes)
        return tuple(n - before - after for n, (before, after) in zip(output, pads, strict=True))

    def _transpose(self, x: Num[Array, "in_channels *spatial"], kernel: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns b + Cᵀ x, where C has this kernel."""
        check_sample(self, x.shape, self.in_channels, self.num_spatial_dims)
        shape = self._output_shape(x.shape[1:])
        if min(shape) < 1:
            found = f"x of shape {x.shape}, which gives spatial sizes {shape}"
            raise wrong(self, f"padding {self.padding} to leave something of y", found)
        dtype = jnp.result_type(x, kernel)
        template = jax.ShapeDtypeStruct((self.out_channels, *shape), dtype)  # type: ignore[no-untyped-call]  # jax
        transpose = jax.linear_transpose(lambda y: self._convolve(y, kernel.astype(dtype)), template)
        return self._plus_bias(transpose(x.astype(dtype))[0], self.out_channels)


class ConvTranspose(TransposedConvolution):
    """A transposed convolution: y = b + Cᵀ x, where the linear map C is a `Conv` from y's channels and shape to x's.

    y[o, q] = b[o] + Σ_i Σ_{p, k : stride · p + dilation · k = q + before} W[o, i, K − 1 − k] · x[i, p]

    Maps one sample x of shape (in_channels, *spatial) to y of shape (out_channels, *output). With K for kernel_size, an
    axis of n elements becomes one of (n − 1) · stride − before − after + dilation · (K − 1) + 1 + output_padding, or,
    with padding "SAME", of n · stride − output_padding. The weight W has shape (out_channels, in_channels / groups,
    *kernel_size), the bias b has shape (out_channels, 1, ...); initial values as in `Conv`.

    Args:
        num_spatial_dims: the number of spatial axes.
        in_channels: the number of channels of x.
        out_channels: the number of channels of y.
        kernel_size: as in `Conv`.
        stride: that of C; it makes y larger.
        padding: that of C, as in `Conv`; it makes y smaller.
        output_padding: chooses between the shapes of y that C maps to that of x: an int or one per spatial axis, from 0
            to stride − 1.
        dilation: that of C.
        groups: as in `Conv`.
        use_bias: whether to add b; without it, `nn.bias` is None.
        padding_mode: that of C, as in `Conv`.
        dtype: the floating dtype of W and b; None for JAX's default.
        rkg: the generator from which one key is drawn.

    Raises:
        ValueError: an argument is out of range, x does not have in_channels channels or num_spatial_dims spatial axes,
            or y would be empty.
        TypeError: `rkg` is not a `RandomKeyGenerator`, or x is not an array.

    Example:
        >>> layer = ConvTranspose(1, 4, 2, kernel_size=3, stride=2, padding=1, output_padding=1)
        >>> layer(jnp.ones((4, 4))).shape, layer.nn.weight
        ((2, 8), LayerParam([2,4,3], float32))

    Reference:
        Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, chapter 4.
    """

    def _forward(self, x: Num[Array, "in_channels *spatial"]) -> Float[Array, "out_channels *output"]:
        # W has y's channels first, and is flipped in space. The kernel of C is neither; channels swap group by group.
        weight, groups = array_of(self.nn.weight), self.groups
        by_group = weight.reshape(groups, self.out_channels // groups, *weight.shape[1:]).swapaxes(1, 2)
        kernel = by_group.reshape(self.in_channels, -1, *self.kernel_size)
        return self._transpose(x, jnp.flip(kernel, range(2, weight.ndim)))

"""The transpose of a layer, through the very weight of that layer.

A network that leads back where it came from, such as an autoencoder, may use one weight in both directions:

    self.encoder = Linear(784, 128)           # h = W x + b
    self.decoder = Transposed(self.encoder)   # x = Wᵀ h + c

`decoder.nn.weight` and `encoder.nn.weight` are one parameter. What is transposed is how the decoder reads it: the two
classes below are the definitions of `Linear` and `ConvTranspose`, told whose weight it is.
"""

from typing import ClassVar

from jaxtyping import Array, Float

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.core.refusals import kind_of
from minipcax.nn._conv import Conv, ConvDefinition
from minipcax.nn._conv_transpose import ConvTransposeDefinition
from minipcax.nn._layer import ArrayLayer
from minipcax.nn._linear import Linear, LinearDefinition
from minipcax.nn._sizes import Sizes


class TransposedLinearDefinition(LinearDefinition):
    """y = Wᵀ x + b, where W is the weight of another definition."""

    name: ClassVar[str] = "Transposed"

    def __init__(self, linear: LinearDefinition, use_bias: bool, rkg: RandomKeyGenerator) -> None:
        self.weight = linear.weight
        super().__init__(linear.out_features, linear.in_features, use_bias, rkg)

    def matrix(self) -> Float[Array, "out_features in_features"]:
        return self.weight.T


class TransposedConvDefinition(ConvTransposeDefinition):
    """y = Cᵀ x + b, where W, the kernel of the convolution C, is the weight of another definition."""

    name: ClassVar[str] = "Transposed"

    def __init__(self, conv: ConvDefinition, output_padding: Sizes, use_bias: bool, rkg: RandomKeyGenerator) -> None:
        self.weight = conv.weight
        sizes = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
        options = use_bias, conv.padding_mode, conv.weight.dtype, rkg
        super().__init__(output_padding, conv.num_spatial_dims, conv.out_channels, conv.in_channels, *sizes, *options)

    def kernel(self) -> Float[Array, "..."]:
        kernel: Array = array_of(self.weight)
        return kernel


class Transposed(ArrayLayer):
    """The transpose of a layer, with its very weight and a bias of its own: y = Wᵀ x + b.

    For a convolution, the linear map Wᵀ is the adjoint of the map x ↦ W ⋆ x, as in `ConvTranspose`.

    Args:
        layer: whose weight to use; `Transposed(layer).nn.weight is layer.nn.weight`.
        use_bias: whether there is a b.
        output_padding: of a convolution, as in `ConvTranspose`: chooses between the shapes of y that it maps to that of
            x; less than its stride.
        rkg: gives the key that the bias is drawn from, as in a layer with a weight of its own.

    Raises:
        TypeError: it is not a `Linear` or a `Conv`.
        ValueError: `output_padding` is not understood, or x does not have the shape of the layer's output.

    Example:
        >>> encoder = Linear(3, 2)
        >>> decoder = Transposed(encoder)
        >>> decoder(encoder(jnp.ones(3))).shape, decoder.nn.weight is encoder.nn.weight
        ((3,), True)
        >>> decoder.nn.weight.shape, decoder.nn.bias.shape
        ((2, 3), (3,))
    """

    nn: TransposedLinearDefinition | TransposedConvDefinition

    def __init__(
        self, layer: Linear | Conv, use_bias: bool = True, output_padding: Sizes = 0, *, rkg: RandomKeyGenerator = RKG
    ) -> None:
        if isinstance(layer, Linear):
            if output_padding != 0:
                raise ValueError(f"Transposed expected output_padding for a Conv only, found {output_padding!r}")
            super().__init__(TransposedLinearDefinition, layer.nn, use_bias, rkg)
        elif isinstance(layer, Conv):
            super().__init__(TransposedConvDefinition, layer.nn, output_padding, use_bias, rkg)
        else:
            raise TypeError(f"Transposed expected a Linear or a Conv, found {kind_of(layer)}")

"""The transpose of a layer, through the same weight.

A network that goes back where it came from, such as an autoencoder, can use one weight in both directions:

    self.encoder = Linear(784, 128)           # h = W x + b
    self.decoder = Transposed(self.encoder)   # x = Wᵀ h + c

`decoder.nn.weight` and `encoder.nn.weight` are one parameter; what is transposed is how the decoder reads it.
"""

from jaxtyping import Array, Float, Num

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.core.refusals import kind_of
from minipcax.nn._conv import Conv
from minipcax.nn._conv_transpose import TransposedConvolution
from minipcax.nn._linear import Linear
from minipcax.nn._parameter import Weights
from minipcax.nn._sizes import Sizes, check_sample, flag, wrong


class Transposed(TransposedConvolution, static=("in_features", "out_features")):
    """The transpose of a layer, with that layer's weight and a bias of its own: y = Wᵀ x + b.

    For a convolution, Wᵀ is the adjoint of the linear map x ↦ W ⋆ x, as in `ConvTranspose`. Maps one sample x, shaped
    like the layer's output, to y, shaped like its input. `nn.weight` is the layer's own parameter, not transposed; b
    has shape (layer.in_features,) or (layer.in_channels, 1, ...).

    Args:
        layer: the `Linear` or `Conv` whose weight to use.
        use_bias: whether to add b; without it, `nn.bias` is None.
        output_padding: for a convolution, as in `ConvTranspose`: chooses between the shapes of y that the layer maps to
            that of x; less than its stride.
        rkg: the generator from which one key is drawn for b.

    Raises:
        TypeError: `layer` is not a `Linear` or a `Conv`.
        ValueError: `output_padding` is out of range, or x does not have the features, or the channels and axes, of the
            layer's output.

    Example:
        >>> encoder = Linear(3, 2)
        >>> decoder = Transposed(encoder)
        >>> decoder(encoder(jnp.ones(3))).shape, decoder.nn.weight is encoder.nn.weight
        ((3,), True)
        >>> decoder.nn.weight.shape, decoder.nn.bias.shape
        ((2, 3), (3,))
    """

    in_features: int | None = None  # of a linear layer
    out_features: int

    def __init__(
        self, layer: Linear | Conv, use_bias: bool = True, output_padding: Sizes = 0, *, rkg: RandomKeyGenerator = RKG
    ) -> None:
        if not isinstance(layer, (Linear, Conv)):
            raise TypeError(f"Transposed expected a Linear or a Conv, found {kind_of(layer)}")
        self.nn = Weights(layer.nn.weight)
        if isinstance(layer, Conv):
            sizes = layer.num_spatial_dims, layer.out_channels, layer.in_channels, layer.kernel_size, layer.stride
            window = layer.padding, output_padding, layer.dilation, layer.groups
            super().__init__(*sizes, *window, use_bias, layer.padding_mode, layer.nn.weight.dtype, rkg=rkg)
        elif output_padding != 0:
            raise wrong(self, "output_padding for a Conv only", repr(output_padding))
        else:
            self.in_features, self.out_features = layer.out_features, layer.in_features
            self.use_bias = flag(self, "use_bias", use_bias)
            self._draw(rkg, (self.out_features, self.in_features), (self.out_features,))

    def _forward(self, x: Num[Array, "*shape"]) -> Float[Array, "*output"]:
        if self.in_features is None:
            return self._transpose(x, array_of(self.nn.weight))
        check_sample(self, x.shape, self.in_features)
        return self._plus_bias(self.nn.weight.T @ x, self.out_features)

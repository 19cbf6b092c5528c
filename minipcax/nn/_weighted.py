"""Layers with a weight and a bias."""

import math

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from minipcax.core import RandomKeyGenerator
from minipcax.core.refusals import kind_of
from minipcax.nn._layer import ArrayLayer
from minipcax.nn._parameter import LayerParam, Weights
from minipcax.nn._sizes import Shape, wrong


class WeightedLayer(ArrayLayer, static=("use_bias",)):
    """y = W x + b, where W x is any linear map. The weight and the bias are drawn uniformly from ±1/√fan_in.

    Reference:
        The scheme of equinox, with one half of the key for each, so that the same key gives the same layer.
    """

    nn: Weights
    use_bias: bool

    def _draw(
        self, rkg: RandomKeyGenerator, weight_shape: Shape, bias_shape: Shape, dtype: DTypeLike | None = None
    ) -> None:
        """Draws the parameters. The first axis of the weight is that of the outputs, the others make up the fan-in."""
        if not callable(rkg):
            raise TypeError(
                f"{type(self).__name__} expected rkg to be a RandomKeyGenerator, such as RandomKeyGenerator(0), found "
                f"{kind_of(rkg)}"
            )
        weight_key, bias_key = jax.random.split(rkg(), 2)
        limit = 1 / math.sqrt(math.prod(weight_shape[1:]))
        dtype = float if dtype is None else dtype
        if "nn" not in vars(self):  # `Transposed` has the weight of another layer
            self.nn = Weights(LayerParam(jax.random.uniform(weight_key, weight_shape, dtype, -limit, limit)))
        if self.use_bias:
            self.nn.bias = LayerParam(jax.random.uniform(bias_key, bias_shape, dtype, -limit, limit))

    def _plus_bias(self, y: Float[Array, "outputs *spatial"], outputs: int) -> Float[Array, "outputs *spatial"]:
        """W x + b, given y = W x. A parameter that was set to another shape would be broadcast, so it is refused."""
        if y.shape[0] != outputs:
            raise wrong(self, f"a weight with {outputs} outputs", repr(self.nn.weight))
        bias, shape = self.nn.bias, (outputs, *(1,) * (y.ndim - 1))
        if bias is None:
            return y
        if bias.shape != shape:
            raise wrong(self, f"a bias of shape {shape}", repr(bias))
        return y + bias

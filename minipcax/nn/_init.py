"""How weights are drawn."""

import math
from typing import ClassVar

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from minipcax.core import RandomKeyGenerator
from minipcax.core.refusals import kind_of
from minipcax.nn._layer import Definition
from minipcax.nn._parameter import LayerParam


class WeightedDefinition(Definition, static=("use_bias",)):
    """A definition with a weight and, if it wants one, a bias, both uniform in ±1/√fan_in.

    Reference:
        The scheme of equinox (one key, of which each gets a half), so that the same key gives the same layer.
    """

    weight: LayerParam
    bias: LayerParam | None = None
    use_bias: bool
    name: ClassVar[str]  # of the layer, in messages

    def draw(
        self,
        rkg: RandomKeyGenerator,
        weight_shape: tuple[int, ...],
        bias_shape: tuple[int, ...],
        dtype: DTypeLike | None = None,
    ) -> None:
        """Draws the parameters; the weight's axes after the first, that of the outputs, make up the fan-in.

        A weight that is there already, because it is another definition's, stays.
        """
        if not callable(rkg):
            raise TypeError(
                f"{self.name} expected rkg to be a RandomKeyGenerator, such as RandomKeyGenerator(0), found "
                f"{kind_of(rkg)}"
            )
        weight_key, bias_key = jax.random.split(rkg(), 2)
        limit = 1 / math.sqrt(math.prod(weight_shape[1:]))
        dtype = float if dtype is None else dtype
        if "weight" not in vars(self):
            self.weight = LayerParam(jax.random.uniform(weight_key, weight_shape, dtype, -limit, limit))
        if self.use_bias:
            self.bias = LayerParam(jax.random.uniform(bias_key, bias_shape, dtype, -limit, limit))

    def plus_bias(self, y: Float[Array, "outputs *spatial"], outputs: int) -> Float[Array, "outputs *spatial"]:
        """Wx + b, for y = Wx; neither may have been given another shape, which would be broadcast."""
        if y.shape[0] != outputs:
            raise ValueError(f"{self.name} expected a weight with {outputs} outputs, found {self.weight!r}")
        if self.bias is None:
            return y
        shape = (outputs, *(1,) * (y.ndim - 1))
        if self.bias.shape != shape:
            raise ValueError(f"{self.name} expected a bias of shape {shape}, found {self.bias!r}")
        return y + self.bias

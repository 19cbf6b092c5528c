"""How weights are drawn."""

import math

import jax
from jax.typing import DTypeLike

from minipcax.core import RandomKeyGenerator
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
        weight_key, bias_key = jax.random.split(rkg(), 2)
        limit = 1 / math.sqrt(math.prod(weight_shape[1:]))
        dtype = float if dtype is None else dtype
        if "weight" not in vars(self):
            self.weight = LayerParam(jax.random.uniform(weight_key, weight_shape, dtype, -limit, limit))
        if self.use_bias:
            self.bias = LayerParam(jax.random.uniform(bias_key, bias_shape, dtype, -limit, limit))

"""The fully connected layer."""

from typing import ClassVar

from jaxtyping import Array, Float, Num

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.nn._init import WeightedDefinition
from minipcax.nn._layer import ArrayLayer
from minipcax.nn._sizes import Size, flag, size


class LinearDefinition(WeightedDefinition, static=("in_features", "out_features")):
    """y = W x + b."""

    name: ClassVar[str] = "Linear"

    def __init__(self, in_features: Size, out_features: Size, use_bias: bool, rkg: RandomKeyGenerator) -> None:
        self.in_features = size(self.name, "in_features", in_features)
        self.out_features = size(self.name, "out_features", out_features)
        self.use_bias = flag(self.name, "use_bias", use_bias)
        self.draw(rkg, (self.out_features, self.in_features), (self.out_features,))

    def matrix(self) -> Float[Array, "out_features in_features"]:
        """The weight as the equation has it."""
        matrix: Array = array_of(self.weight)
        return matrix

    def __call__(self, x: Num[Array, " in_features"]) -> Float[Array, " out_features"]:
        if x.shape != (self.in_features,):
            raise ValueError(
                f"{self.name} expected x of shape ({self.in_features},), one sample, found {x.shape}; "
                "map a batch with vmap"
            )
        return self.plus_bias(self.matrix() @ x, self.out_features)


class Linear(ArrayLayer):
    """A fully connected layer: y = W x + b.

    Args:
        in_features: the size of x.
        out_features: the size of y.
        bias: whether there is a b; `use_bias` is another name.
        rkg: gives the key that the weights are drawn from, uniform in ±1/√in_features.

    Raises:
        TypeError: `rkg` is no generator of keys.
        ValueError: a size is not a positive int, or x has another shape.

    Example:
        >>> layer = Linear(3, 2, rkg=RandomKeyGenerator(0))
        >>> layer(jnp.ones(3)).shape, layer.nn.weight
        ((2,), LayerParam([2,3], float32))
    """

    nn: LinearDefinition

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        bias: bool = True,
        *,
        use_bias: bool | None = None,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        if use_bias is True and bias is False:
            raise ValueError("Linear expected bias and use_bias, which are the same, to agree, found False and True")
        super().__init__(LinearDefinition, in_features, out_features, bias if use_bias is None else use_bias, rkg)

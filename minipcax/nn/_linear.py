"""The fully connected layer."""

from jaxtyping import Array, Float, Num

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.operators import array_of
from minipcax.nn._sizes import Size, check_sample, flag, size
from minipcax.nn._weighted import WeightedLayer


class Linear(WeightedLayer, static=("in_features", "out_features")):
    """A fully connected layer: y = W x + b.

    Maps one sample x of shape (in_features,) to y of shape (out_features,). The weight W has shape (out_features,
    in_features), the bias b has shape (out_features,), and both are drawn from U(−1/√in_features, 1/√in_features).

    Args:
        in_features: the size of x.
        out_features: the size of y.
        bias: whether to add b; without it, `nn.bias` is None.
        use_bias: another name of `bias`.
        rkg: the generator from which one key is drawn.

    Raises:
        ValueError: a size is not a positive int, or x does not have the shape (in_features,).
        TypeError: `rkg` is not a `RandomKeyGenerator`, or x is not an array.

    Example:
        >>> layer = Linear(3, 2, rkg=RandomKeyGenerator(0))
        >>> layer(jnp.ones(3)).shape, layer.nn.weight
        ((2,), LayerParam([2,3], float32))

    Reference:
        The initial values are those of equinox (`equinox.nn.Linear`) for the same key.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        bias: bool = True,
        *,
        use_bias: bool | None = None,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        super().__init__()
        if use_bias is True and bias is False:
            raise ValueError("Linear expected bias and use_bias, which are the same, to agree, found False and True")
        self.in_features = size(self, "in_features", in_features)
        self.out_features = size(self, "out_features", out_features)
        self.use_bias = flag(self, "use_bias", bias if use_bias is None else use_bias)
        self._draw(rkg, (self.out_features, self.in_features), (self.out_features,))

    def _forward(self, x: Num[Array, " in_features"]) -> Float[Array, " out_features"]:
        check_sample(self, x.shape, self.in_features)
        return self._plus_bias(array_of(self.nn.weight) @ x, self.out_features)

"""The fully connected layer."""

from jaxtyping import Array, Float

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.nn._init import uniform_init
from minipcax.nn._layer import Definition, Layer
from minipcax.nn._parameter import LayerParam


class LinearDefinition(Definition, static=("in_features", "out_features", "use_bias")):
    """y = W x + b."""

    weight: LayerParam
    bias: LayerParam | None = None

    def __init__(self, in_features: int, out_features: int, use_bias: bool, key: Array) -> None:
        self.in_features, self.out_features, self.use_bias = in_features, out_features, use_bias
        bias_shape = (out_features,) if use_bias else None
        weight, bias = uniform_init(key, (out_features, in_features), bias_shape, in_features, None)
        self.weight = LayerParam(weight)
        if bias is not None:
            self.bias = LayerParam(bias)

    def __call__(self, x: Float[Array, " in_features"]) -> Float[Array, " out_features"]:
        if x.shape != (self.in_features,):
            raise ValueError(
                f"Linear expected x of shape ({self.in_features},), one sample, found {x.shape}; map a batch with vmap"
            )
        y = self.weight @ x
        return y if self.bias is None else y + self.bias


class Linear(Layer):
    """A fully connected layer: y = W x + b.

    Args:
        in_features: the size of x.
        out_features: the size of y.
        bias: whether there is a b; `use_bias` is another name.
        rkg: gives the key that the weights are drawn from, uniform in ±1/√in_features.

    Raises:
        ValueError: a size is not a positive number, or x has another shape.

    Example:
        >>> layer = Linear(3, 2, rkg=RandomKeyGenerator(0))
        >>> layer(jnp.ones(3)).shape, layer.nn.weight
        ((2,), LayerParam([2,3], float32))
    """

    nn: LinearDefinition

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        use_bias: bool | None = None,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"Linear expected {name} to be a positive int, found {size!r}")
        with_bias = bias if use_bias is None else use_bias
        super().__init__(LinearDefinition, in_features, out_features, with_bias, rkg())

    def __call__(  # type: ignore[override]  # a Layer takes what its definition takes; this one is known
        self, x: Float[Array, " in_features"], *, key: Array | None = None
    ) -> Float[Array, " out_features"]:
        return self.nn(x)

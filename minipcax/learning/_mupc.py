"""Very deep networks: residual connections, and scalings that carry learning rates over to any width and depth."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, Module, RandomKeyGenerator, StaticParam, static
from minipcax.nn import LayerParam, Linear
from minipcax.predictive_coding import EnergyModule, Stack, Vode


class ScaledLinear(Module, static=("scale",)):
    """A linear map without bias, whose scale is apart from its weight: y = a W x, where W is drawn from N(0, 1).

    Maps one sample x of shape (in_features,) to y of shape (out_features,); `weight` has shape (out_features,
    in_features).

    Args:
        in_features: the size of x.
        out_features: the size of y.
        scale: a, a number.
        rkg: the generator from which one key is drawn.

    Example:
        >>> ScaledLinear(4, 2, scale=0.5)(jnp.ones(4)).shape
        (2,)
    """

    def __init__(self, in_features: int, out_features: int, scale: float, rkg: RandomKeyGenerator = RKG) -> None:
        super().__init__()
        self.scale = scale
        self.weight = LayerParam(jax.random.normal(rkg(), (out_features, in_features)))

    def __call__(self, x: Float[Array, " in_features"]) -> Float[Array, " out_features"]:
        """Returns a W x, for one sample."""
        # W x, in the order that needs no transposition when a batch of samples and a stack of weights are multiplied.
        return self.scale * jnp.tensordot(x, self.weight.get(), (0, 1))


class ResidualBlock(Module):
    """One layer of a residual network: u = h + a W f(h), from one sample h of shape (width,) to the same shape.

    Args:
        layer: the linear map a W, from width to width.
        act_fn: f.

    Example:
        >>> ResidualBlock(ScaledLinear(4, 4, scale=0.5), jnp.tanh)(jnp.zeros(4)).tolist()
        [0.0, 0.0, 0.0, 0.0]
    """

    def __init__(self, layer: ScaledLinear | Linear, act_fn: Callable[[Array], Array]) -> None:
        super().__init__()
        self.layer = layer
        self.act_fn = static(act_fn)

    def __call__(self, h: Float[Array, " width"]) -> Float[Array, " width"]:
        """Returns h + a W f(h), for one sample."""
        return h + self.layer(self.act_fn(h))


class ResidualNetwork(EnergyModule):
    """A residual predictive coding network of L layers of width N, with the scalings of μPC:

        u_1 = a_1 W_1 x,  u_l = h_{l−1} + a_l W_l f(h_{l−1}),  u_L = a_L W_L f(h_{L−1})

    Called with one sample x of shape (in_features,), and a target of shape (out_features,) or `None`, it returns the
    prediction u_L. With a_1 = 1/√in_features, a_l = 1/√(N L), a_L = 1/N, and weights from N(0, 1), learning rates tuned
    on a shallow and narrow network carry over to a deep and wide one. Adam's steps do not shrink with the gradient, so
    with Adam, the rate of the hidden layers should fall as 1/√L (depth-μP; see `examples/benchmarks/depth.py`). The
    layers between the first and the last are a `Stack`.

    Args:
        in_features: the size of x.
        width: N, the size of the hidden layers.
        out_features: the size of the output.
        depth: L, the number of layers, at least 2.
        act_fn: f, the activation function.
        scaled: whether to use the scalings; if `False`, a = 1, and the initial weights are those of `Linear`.
        rkg: the generator from which one key is drawn for each layer.

    Raises:
        ValueError: `depth` is less than 2.

    Example:
        >>> model = ResidualNetwork(4, 16, 2, depth=3)
        >>> predict(jnp.ones((3, 4)), model).shape
        (3, 2)

    Reference:
        Innocenti et al., μPC: Scaling Predictive Coding to 100+ Layer Networks, arXiv 2505.13124 (2025). Yang et al.,
        Feature Learning in Infinite-Depth Neural Networks, arXiv 2310.02244 (2023), for depth-μP.
    """

    hidden: Stack[ResidualBlock] | StaticParam[None]  # a network of two layers has none

    def __init__(
        self,
        in_features: int,
        width: int,
        out_features: int,
        depth: int,
        act_fn: Callable[[Array], Array] = jnp.tanh,
        scaled: bool = True,
        rkg: RandomKeyGenerator = RKG,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"ResidualNetwork expected a depth of at least 2 layers, found {depth}")
        scale = 1 / math.sqrt(width * depth)

        def layer(inputs: int, outputs: int, scale: float) -> ScaledLinear | Linear:
            if scaled:
                return ScaledLinear(inputs, outputs, scale, rkg)
            return Linear(inputs, outputs, bias=False, rkg=rkg)

        def block() -> ResidualBlock:
            return ResidualBlock(layer(width, width, scale), act_fn)

        self.first, self.vode = layer(in_features, width, 1 / math.sqrt(in_features)), Vode()
        self.hidden = Stack(block, depth - 2) if depth > 2 else static(None)
        self.last, self.output = layer(width, out_features, 1 / width), Vode()
        self.output.h.frozen = True
        self.act_fn = static(act_fn)

    def __call__(self, x: Float[Array, " in_features"], y: Array | None = None) -> Float[Array, " out_features"]:
        """Returns the prediction u_L for one sample; sets the output node to the target `y` unless it is `None`."""
        h = self.vode(self.first(x))
        if isinstance(self.hidden, Stack):
            h = self.hidden(h)
        prediction: Array = self.output(self.last(self.act_fn(h)), output="u")
        if y is not None:
            self.output.set("h", y)
        return prediction

"""Normalisation: over one sample, and over a batch."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from minipcax.core import Param
from minipcax.nn._layer import ArrayLayer, Definition
from minipcax.nn._parameter import LayerParam, StateParam
from minipcax.nn._sizes import Size, Sizes, check_sample, flag, floating, number, per_axis, size


def _at_least_single(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Half precision is not enough for a variance; nor are integers."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _as_given(y: Float[Array, "*shape"], x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """In the precision of x, if that is one of floats."""
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else y


class LayerNormDefinition(Definition, static=("shape", "eps", "use_weight", "use_bias")):
    """y = w ∘ (x − mean x) / √(var x + ε) + b: see `LayerNorm`."""

    weight: LayerParam | None = None
    bias: LayerParam | None = None

    def __init__(
        self, shape: Sizes | None, eps: float, use_weight: bool, use_bias: bool, dtype: DTypeLike | None
    ) -> None:
        if shape is None and (use_weight or use_bias):
            raise ValueError(
                "LayerNorm expected shape, that of one sample, found None: it has a weight and bias for each element; "
                "without a shape, give use_weight=False and use_bias=False"
            )
        sizes = shape if isinstance(shape, Sequence | np.ndarray) else (shape,)
        self.shape = None if shape is None else per_axis("LayerNorm", "shape", sizes, len(sizes))
        self.eps = number("LayerNorm", "eps", eps)
        self.use_weight = flag("LayerNorm", "use_weight", use_weight)
        self.use_bias = flag("LayerNorm", "use_bias", use_bias)
        dtype = floating("LayerNorm", dtype)
        if self.shape is not None and self.use_weight:
            self.weight = LayerParam(jnp.ones(self.shape, dtype))
        if self.shape is not None and self.use_bias:
            self.bias = LayerParam(jnp.zeros(self.shape, dtype))

    def __call__(self, x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.shape not in (None, x.shape):
            raise ValueError(f"LayerNorm expected x of shape {self.shape}, found {x.shape}; map a batch with vmap")
        exact = _at_least_single(x)
        centred = exact - exact.mean()
        y = centred * lax.rsqrt(jnp.square(centred).mean() + self.eps)
        y = y if self.weight is None else self.weight.astype(y.dtype) * y
        y = y if self.bias is None else y + self.bias.astype(y.dtype)
        return _as_given(y, x)


class LayerNorm(ArrayLayer):
    """Normalises one sample over all its elements: y = w ∘ (x − mean x) / √(var x + ε) + b.

    Args:
        shape: of x, of the weight w, at first ones, and of the bias b, at first zeros; None, for any shape, only
            without weight and bias.
        eps: ε, what keeps the division finite.
        use_weight: whether there is a w.
        use_bias: whether there is a b.
        dtype: of w and b.

    Raises:
        ValueError: there is no shape for the weight and bias, or x has another one.

    Example:
        >>> LayerNorm(2)(jnp.array([1.0, 3.0])).round(3).tolist()
        [-1.0, 1.0]

    Reference:
        Ba, Kiros and Hinton, Layer normalization, 2016.
    """

    nn: LayerNormDefinition

    def __init__(
        self,
        shape: Sizes | None = None,
        eps: float = 1e-5,
        use_weight: bool = True,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(LayerNormDefinition, shape, eps, use_weight, use_bias, dtype)


class Statistics(NamedTuple):
    """What `BatchNorm` remembers of the batches it has seen."""

    empty: Bool[Array, ""]  # whether there was none yet
    mean: Float[Array, " channels"]
    var: Float[Array, " channels"]


AxisName = Hashable | Sequence[Hashable]
_pmean: Callable[[Array, AxisName], Array] = lax.pmean  # which has no types of its own


class BatchNormDefinition(
    Definition, static=("input_size", "axis_name", "eps", "channelwise_affine", "momentum", "inference")
):
    """y = w (x − μ) / √(σ² + ε) + b, channel by channel: see `BatchNorm`."""

    weight: LayerParam | None = None
    bias: LayerParam | None = None

    def __init__(self, input_size: Size, axis_name: AxisName, eps: float, momentum: float, *options: Any) -> None:
        affine, inference, dtype = options  # as BatchNorm has them
        self.channelwise_affine = flag("BatchNorm", "channelwise_affine", affine)
        self.inference = flag("BatchNorm", "inference", inference)
        self.input_size = size("BatchNorm", "input_size", input_size)
        self.eps = number("BatchNorm", "eps", eps)
        self.momentum = number("BatchNorm", "momentum", momentum, "a weight", most=1)
        self.axis_name, dtype = axis_name, floating("BatchNorm", dtype)
        if axis_name is None:
            raise ValueError('BatchNorm expected axis_name to be that of the vmap over the batch, "batch", found None')
        if self.channelwise_affine:
            self.weight = LayerParam(jnp.ones(self.input_size, dtype))
            self.bias = LayerParam(jnp.zeros(self.input_size, dtype))

    def observe(self, x: Num[Array, "channels *spatial"], old: Statistics) -> Statistics:
        """The statistics after one more batch, of which x is one sample."""
        axes = tuple(range(1, x.ndim))
        try:
            mean = _pmean(x.mean(axes), self.axis_name)
        except NameError as error:
            raise ValueError(
                f"BatchNorm expected to be called inside vmap(..., axis_name={self.axis_name!r}), over whose lanes it "
                "averages, found no such axis; outside one, call .eval() first"
            ) from error
        var = _pmean(jnp.square(x - jnp.expand_dims(mean, axes)).mean(axes), self.axis_name)

        def blend(old_value: Array, value: Array) -> Array:
            value = value.astype(old_value.dtype)
            return jnp.where(old.empty, value, self.momentum * old_value + (1 - self.momentum) * value)

        return Statistics(jnp.zeros_like(old.empty), blend(old.mean, mean), blend(old.var, var))

    def __call__(
        self, x: Num[Array, "channels *spatial"], statistics: Statistics
    ) -> tuple[Float[Array, "channels *spatial"], Statistics]:
        check_sample("BatchNorm", x.shape, self.input_size, max(x.ndim - 1, 0))
        exact = _at_least_single(x)
        if not self.inference:
            statistics = self.observe(exact, statistics)

        def per_channel(value: Array) -> Array:
            return jnp.expand_dims(value.astype(exact.dtype), tuple(range(1, x.ndim)))

        y = (exact - per_channel(statistics.mean)) * lax.rsqrt(per_channel(statistics.var) + self.eps)
        y = y if self.weight is None else per_channel(self.weight.get()) * y
        y = y if self.bias is None else y + per_channel(self.bias.get())
        return _as_given(y, x), statistics


class BatchNorm(ArrayLayer):
    """Normalises each channel by running statistics of the batches: y = w (x − μ) / √(σ² + ε) + b.

    While training, each call first moves the statistics, by the mean m and variance v of the channel over the batch
    and the spatial axes: μ ← momentum μ + (1 − momentum) m, and σ² likewise with v; the first batch sets μ = m, σ² = v.
    In eval mode they stay as they are, and samples do not see each other. So a loop that should not move them, such as
    one over inference steps, runs with `eval()` called on these layers; inside a transform that does not escape.

    Args:
        input_size: the channels of x, which has shape (channels, *spatial).
        axis_name: the name of the `vmap` axis, or axes, over which the batch runs.
        eps: ε, what keeps the division finite.
        channelwise_affine: whether there are a weight w, at first ones, and a bias b, at first zeros.
        momentum: the weight of the old statistics.
        inference: whether it starts as in eval mode.
        dtype: of w, b and the statistics.

    The statistics are in `state`, a `StateParam` that all lanes of the `vmap` share.

    Raises:
        ValueError: an argument is not understood, x has other channels, or it trains outside the `vmap`.

    Example:
        >>> layer = BatchNorm(1, axis_name="batch")
        >>> forward = vmap(axis_name="batch")(lambda x, *, layer: layer(x))
        >>> forward(jnp.array([[1.0], [3.0]]), layer=layer).round(3).tolist()
        [[-1.0], [1.0]]
        >>> layer.state.get().mean.tolist()
        [2.0]

    Reference:
        Ioffe and Szegedy, Batch normalization: accelerating deep network training, 2015.
    """

    nn: BatchNormDefinition

    def __init__(
        self,
        input_size: Size,
        axis_name: AxisName,
        eps: float = 1e-5,
        channelwise_affine: bool = True,
        momentum: float = 0.99,
        inference: bool = False,
        dtype: DTypeLike | None = None,
    ) -> None:
        options = channelwise_affine, inference, dtype
        super().__init__(BatchNormDefinition, input_size, axis_name, eps, momentum, *options)
        self.state = StateParam(Statistics(jnp.array(True), jnp.zeros(input_size, dtype), jnp.ones(input_size, dtype)))

    def __call__(self, x: Num[Array, "..."] | Param, *, key: Array | None = None) -> Float[Array, "..."]:
        if self.state.get() is None:
            raise ValueError("BatchNorm expected running statistics, but its state is cleared: clear others only")
        y, statistics = self.nn(self.sample(x), self.state.get())
        self.state.set(statistics)
        return y

"""Normalisation: over one sample, and over a batch."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from minipcax.nn._layer import ArrayLayer
from minipcax.nn._parameter import Affine, LayerParam, StateParam
from minipcax.nn._sizes import Size, Sizes, check_sample, flag, floating, number, per_axis, size, wrong


class Norm(ArrayLayer):
    """A normalisation followed by an optional elementwise weight and bias."""

    nn: Affine

    def _affine(self, y: Float[Array, "*shape"], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
        """Returns w ∘ y + b, where w and b have a shape to which nothing else may be broadcast."""
        for name, param in (("weight", self.nn.weight), ("bias", self.nn.bias)):
            if param is not None and param.shape != shape:
                raise wrong(self, f"a {name} of shape {shape}", repr(param))
        y = y if self.nn.weight is None else _spread(self.nn.weight, y) * y
        return y if self.nn.bias is None else y + _spread(self.nn.bias, y)


def _spread(values: Array | LayerParam, y: Float[Array, "*shape"]) -> Float[Array, "..."]:
    """The values, which have the first axes of y, in a shape and precision to be combined with y."""
    return jnp.expand_dims(values.astype(y.dtype), tuple(range(values.ndim, y.ndim)))


def _at_least_single(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x in a precision that is enough for a variance, which half precision is not."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _as_given(y: Float[Array, "*shape"], x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns y in the precision of x, unless x holds integers."""
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else y


class LayerNorm(Norm, static=("shape", "eps", "use_weight", "use_bias")):
    """Normalises one sample over all its elements: y = w ∘ (x − mean x) / √(var x + ε) + b.

    x, y, the weight w (initially ones) and the bias b (initially zeros) all have the same shape.

    Args:
        shape: the shape of one sample, or an int for one axis; None allows any shape, but needs `use_weight=False` and
            `use_bias=False`.
        eps: ε ≥ 0, which keeps the division finite.
        use_weight: whether to multiply by w; without it, `nn.weight` is None.
        use_bias: whether to add b; without it, `nn.bias` is None.
        dtype: the floating dtype of w and b; None for JAX's default.

    Raises:
        ValueError: w or b needs a shape but it is None, or x does not have that shape.

    Example:
        >>> LayerNorm(2)(jnp.array([1.0, 3.0])).round(3).tolist()
        [-1.0, 1.0]

    Reference:
        Ba, Kiros and Hinton, Layer normalization, 2016.
    """

    def __init__(
        self,
        shape: Sizes | None = None,
        eps: float = 1e-5,
        use_weight: bool = True,
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        if shape is None and (use_weight or use_bias):
            raise ValueError(
                "LayerNorm expected shape, that of one sample, found None: it has a weight and bias for each element; "
                "without a shape, give use_weight=False and use_bias=False"
            )
        sizes = shape if isinstance(shape, Sequence | np.ndarray) else (shape,)
        self.shape = None if shape is None else per_axis(self, "shape", sizes, len(sizes))
        self.eps = number(self, "eps", eps)
        self.use_weight = flag(self, "use_weight", use_weight)
        self.use_bias = flag(self, "use_bias", use_bias)
        dtype = floating(self, dtype)
        self.nn = Affine()
        if self.shape is not None and self.use_weight:
            self.nn.weight = LayerParam(jnp.ones(self.shape, dtype))
        if self.shape is not None and self.use_bias:
            self.nn.bias = LayerParam(jnp.zeros(self.shape, dtype))

    def _forward(self, x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.shape not in (None, x.shape):
            raise wrong(self, f"x of shape {self.shape}", f"{x.shape}; map a batch with vmap")
        exact = _at_least_single(x)
        centred = exact - exact.mean()
        return _as_given(self._affine(centred * lax.rsqrt(jnp.square(centred).mean() + self.eps), x.shape), x)


class Statistics(NamedTuple):
    """What `BatchNorm` remembers of the batches it has seen."""

    empty: Bool[Array, ""]  # whether it has seen none
    mean: Float[Array, " channels"]
    var: Float[Array, " channels"]


AxisName = Hashable | Sequence[Hashable]


def _mean_of_lanes(x: Array, axis_name: AxisName) -> Array:
    """The mean over the lanes of a `vmap`, or of several."""
    if AxisType.Explicit not in (jax.typeof(x).sharding.mesh.axis_types or ()):
        mean: Array = lax.pmean(x, axis_name)  # type: ignore[no-untyped-call]  # jax
        return mean
    # JAX cannot compile collectives over lanes that are sharded over an Explicit axis. In a `vmap`, a gather costs
    # nothing: it is the array of all lanes.
    for name in axis_name if isinstance(axis_name, (tuple, list)) else (axis_name,):
        x = lax.all_gather(x, name).mean(0)
    return x


class BatchNorm(Norm, static=("input_size", "axis_name", "eps", "channelwise_affine", "momentum", "inference")):
    """Normalises each channel by running statistics of the batches: y = w (x − μ) / √(σ² + ε) + b.

    Maps one sample x of shape (input_size, *spatial) to y of the same shape, inside a `vmap` over the batch. While
    training, each call first updates the statistics with the mean m and variance v of the channel over the batch and
    the spatial axes: μ ← momentum μ + (1 − momentum) m, and σ² likewise with v; the first batch sets μ = m, σ² = v.
    In evaluation mode they stay as they are. A loop that should not update them, such as one over inference steps,
    calls `eval()` on these layers; if called inside a transform, this has no effect outside it.

    The weight w (initially ones), the bias b (initially zeros) and the statistics all have shape (input_size,). The
    statistics are in `state`, a `StateParam` that holds the tuple (empty, mean, var) and that all samples share.

    Args:
        input_size: the number of channels.
        axis_name: the name of the `vmap` axis, or axes, over which the batch runs.
        eps: ε ≥ 0, which keeps the division finite.
        channelwise_affine: whether to apply w and b; without them, `nn.weight` and `nn.bias` are None.
        momentum: the weight of the old statistics, from 0 to 1.
        inference: whether to start in evaluation mode.
        dtype: the floating dtype of w, b and the statistics; None for JAX's default.

    Raises:
        ValueError: an argument is out of range, x does not have input_size channels, or the layer is called while
            training outside a `vmap` of this axis name.

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
        super().__init__()
        if axis_name is None:
            raise ValueError('BatchNorm expected axis_name to be that of the vmap over the batch, "batch", found None')
        self.input_size, self.axis_name = size(self, "input_size", input_size), axis_name
        self.eps = number(self, "eps", eps)
        self.momentum = number(self, "momentum", momentum, "a weight", most=1)
        self.channelwise_affine = flag(self, "channelwise_affine", channelwise_affine)
        self.inference = flag(self, "inference", inference)
        dtype = floating(self, dtype)
        ones, zeros = jnp.ones(self.input_size, dtype), jnp.zeros(self.input_size, dtype)
        self.nn = Affine()
        if self.channelwise_affine:
            self.nn.weight, self.nn.bias = LayerParam(ones), LayerParam(zeros)
        self.state = StateParam(Statistics(jnp.array(True), zeros, ones))

    def _moved(self, old: Statistics, x: Float[Array, "channels *spatial"]) -> Statistics:
        """The statistics after one more batch, of which x is one sample."""
        axes = tuple(range(1, x.ndim))
        try:
            mean = _mean_of_lanes(x.mean(axes), self.axis_name)
        except NameError as error:
            expected = f"to be called inside vmap(..., axis_name={self.axis_name!r}), over whose lanes it averages"
            raise wrong(self, expected, "no such axis; outside one, call .eval() first") from error
        var = _mean_of_lanes(jnp.square(x - jnp.expand_dims(mean, axes)).mean(axes), self.axis_name)

        def blend(old_value: Array, value: Array) -> Array:
            value = value.astype(old_value.dtype)
            return jnp.where(old.empty, value, self.momentum * old_value + (1 - self.momentum) * value)

        return Statistics(jnp.zeros_like(old.empty), blend(old.mean, mean), blend(old.var, var))

    def _forward(self, x: Num[Array, "channels *spatial"]) -> Float[Array, "channels *spatial"]:
        statistics: Statistics | None = self.state.get()
        if statistics is None:
            raise ValueError("BatchNorm expected running statistics, but its state is cleared: clear others only")
        check_sample(self, x.shape, self.input_size, max(x.ndim - 1, 0))
        exact = _at_least_single(x)
        if not self.inference:
            statistics = self._moved(statistics, exact)
            self.state.set(statistics)
        mean, var = _spread(statistics.mean, exact), _spread(statistics.var, exact)
        return _as_given(self._affine((exact - mean) * lax.rsqrt(var + self.eps), (self.input_size,)), x)

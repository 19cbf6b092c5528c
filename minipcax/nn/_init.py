"""How weights are drawn."""

import math

import jax
from jaxtyping import Array, Float


def uniform_init(
    key: Array,
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    fan_in: int,
    dtype: jax.numpy.dtype | None,
) -> tuple[Float[Array, "..."], Float[Array, "..."] | None]:
    """A weight and a bias (or None), uniform in ±1/√fan_in, from the two halves of one key.

    Reference:
        The scheme of equinox, so that the same key gives the same layer.
    """
    weight_key, bias_key = jax.random.split(key, 2)
    limit = 1 / math.sqrt(fan_in)
    weight = jax.random.uniform(weight_key, weight_shape, dtype or float, -limit, limit)
    if bias_shape is None:
        return weight, None
    return weight, jax.random.uniform(bias_key, bias_shape, dtype or float, -limit, limit)

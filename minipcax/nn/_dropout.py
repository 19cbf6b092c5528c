"""Dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from minipcax.core import Param, get
from minipcax.core.refusals import kind_of
from minipcax.nn._layer import ArrayLayer
from minipcax.nn._parameter import Parameters, is_array
from minipcax.nn._sizes import flag, number


class Dropout(ArrayLayer, static=("p", "inference")):
    """Sets each element to zero with probability p and scales the others to keep the mean: y = x ∘ m / (1 − p).

    Each element of the mask m is 1 with probability 1 − p, else 0. In evaluation mode, y = x. x may have any shape, and
    y has the same; there are no parameters. While training, call the layer with a key: `layer(x, key=RKG())`.

    Args:
        p: the probability of dropping an element, from 0 to 1.
        inference: whether the layer is off, y = x, until `train()` or `eval()` is called.

    Raises:
        ValueError: p is not a probability.
        RuntimeError: the layer is called without a key while training.
        TypeError: the key is not a random key, or x is not an array.

    Example:
        >>> sorted({*Dropout(0.5)(jnp.ones(64), key=jax.random.PRNGKey(0)).tolist()})
        [0.0, 2.0]

    Reference:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.
    """

    def __init__(self, p: float | np.floating[Any] = 0.5, inference: bool = False) -> None:  # of any precision
        super().__init__()
        self.nn = Parameters()
        self.p = number(self, "p", p, "a probability", most=1)
        self.inference = flag(self, "inference", inference)

    def __call__(self, x: Num[Array, "..."] | Param, *, key: Array | Param | None = None) -> Num[Array, "..."]:
        array, key = self._array(x), get(key)
        keep = 1 - number(self, "p", self.p, "a probability", most=1)  # p may have been changed
        if self.inference or keep == 1:
            return array
        if key is None:
            raise RuntimeError("Dropout needs a key while training: call it with key=RKG(), or call .eval() first")
        if not is_array(key):
            raise TypeError(f"Dropout expected a random key, as key=RKG() gives, found {kind_of(key)}")
        mask = jax.random.bernoulli(key, keep, array.shape)
        return jnp.where(mask, array, 0) / (keep or 1)  # with p = 1, no element is left to scale

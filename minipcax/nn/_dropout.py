"""Dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from minipcax.core import Param, get
from minipcax.core.refusals import kind_of
from minipcax.nn._layer import ArrayLayer, Definition, is_array
from minipcax.nn._sizes import flag, number


class DropoutDefinition(Definition, static=("p", "inference")):
    """y = x ∘ m / (1 − p): see `Dropout`."""

    def __init__(self, p: float | np.floating[Any], inference: bool) -> None:
        self.p = number("Dropout", "p", p, "a probability", most=1)
        self.inference = flag("Dropout", "inference", inference)

    def __call__(self, x: Num[Array, "*shape"], *, key: Array | None = None) -> Num[Array, "*shape"]:
        keep = 1 - number("Dropout", "p", self.p, "a probability", most=1)  # it may have been changed
        if self.inference or keep == 1:
            return x
        if key is None:
            raise RuntimeError("Dropout needs a key while training: call it with key=RKG(), or call .eval() first")
        if not is_array(key):
            raise TypeError(f"Dropout expected a random key, as key=RKG() gives, found {kind_of(key)}")
        mask = jax.random.bernoulli(key, keep, x.shape)
        return jnp.where(mask, x, 0) / (keep or 1)


class Dropout(ArrayLayer):
    """Sets each element to zero with probability p, and scales the others so that the mean stays: y = x ∘ m / (1 − p).

    The mask m is 1 with probability 1 − p. In eval mode y = x.

    Args:
        p: the probability of dropping an element.
        inference: whether it is off until `train()` or `eval()` is called.

    Raises:
        ValueError: p is not a probability.
        TypeError: the key is none.
        RuntimeError: it is called without a key while it is on.

    Example:
        >>> sorted({*Dropout(0.5)(jnp.ones(64), key=jax.random.PRNGKey(0)).tolist()})
        [0.0, 2.0]

    Reference:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.
    """

    nn: DropoutDefinition

    def __init__(self, p: float | np.floating[Any] = 0.5, inference: bool = False) -> None:  # of any precision
        super().__init__(DropoutDefinition, p, inference)

    def __call__(self, x: Num[Array, "..."] | Param, *, key: Array | Param | None = None) -> Num[Array, "..."]:
        return self.nn(self.sample(x), key=get(key))

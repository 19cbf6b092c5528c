"""Energy functions: how far a node's state h is from its prediction u, one term per element of h.

Each is the negative logarithm of a probability of h given u, up to a constant.
"""

import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, RandomKeyGenerator, get
from minipcax.predictive_coding._refusals import check_no_precision, check_precision, check_same_shape, missing_entry


@runtime_checkable
class Node(Protocol):
    """A value node, as far as an energy function is concerned."""

    def get(self, key: str, default: Any = None) -> Any:  # entries may have any type
        """Returns what the node holds under a name."""
        ...


def _required(vode: Node, key: str) -> Array:
    value = vode.get(key)
    if value is None:
        raise missing_entry(key)
    return jnp.asarray(get(value))


def _state_and_prediction(vode: Node) -> tuple[Array, Array]:
    h, u = _required(vode, "h"), _required(vode, "u")
    check_same_shape(h, u)
    return h, u


def se_energy(vode: Node, rkg: RandomKeyGenerator = RKG, log_normaliser: bool = False) -> Float[Array, "..."]:
    """Returns the squared error ½(h − u)², or ½p(h − u)² if the node has a precision p.

    This is the negative log density, up to a constant, of a Gaussian with mean u and variance 1 or 1/p. The precision
    is an entry of the node like any other: `vode.precision = LayerParam(...)` is learned with the weights, and
    `vode(u, precision=p)` is predicted by the network.

    Args:
        vode: the node; its h and u have the same shape, to which p must broadcast.
        rkg: not used.
        log_normaliser: whether to add the constant ½log(2π/p). To learn p, pass it to the node with
            `Vode(partial(se_energy, log_normaliser=True))`: without it, the energy is least for p = 0.

    Returns:
        One term per element of h, in its shape.

    Raises:
        ValueError: h or u is not set, their shapes differ, or p does not broadcast to them.

    Example:
        >>> vode = Vode().set("h", jnp.array([3.0])).set("u", jnp.array([1.0]))
        >>> se_energy(vode).tolist(), se_energy(vode.set("precision", jnp.array([0.5]))).tolist()
        ([2.0], [1.0])
    """
    h, u = _state_and_prediction(vode)
    energy = 0.5 * jnp.square(h - u)
    if vode.get("precision") is None:
        return energy + 0.5 * math.log(2 * math.pi) if log_normaliser else energy
    precision = _required(vode, "precision")
    check_precision(h, precision)
    energy = precision * energy
    return energy + 0.5 * jnp.log(2 * math.pi / precision) if log_normaliser else energy


def ce_energy(vode: Node, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
    """Returns the cross entropy −h · log softmax(u), where the softmax is over the last axis.

    This is the negative log probability of a class under a categorical distribution with logits u. It is finite for any
    logits.

    Args:
        vode: the node; h, one-hot or probabilities, and u, logits, have the same shape (..., classes).
        rkg: not used.

    Returns:
        One term per element of h, in its shape.

    Raises:
        ValueError: h or u is not set, their shapes differ, or the node has a precision, which would not take part.

    Example:
        >>> vode = Vode(ce_energy).set("h", jnp.array([1.0, 0.0])).set("u", jnp.zeros(2))
        >>> round(float(ce_energy(vode).sum()), 3)
        0.693
    """
    h, logits = _state_and_prediction(vode)
    check_no_precision(vode.get("precision"))
    largest = jnp.finfo(logits.dtype).max / 16  # type: ignore[no-untyped-call]  # jax
    logarithm = jax.nn.log_softmax(jnp.clip(logits, -largest, largest), axis=-1)
    # Overflow would give 0 · −∞ where h is zero; with a sixteenth, the sum of a few terms is finite as well.
    return -h * jnp.maximum(logarithm, -largest)


def zero_energy(vode: Node, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
    """Returns zero for every element of h: the energy of a node that does not take part.

    Args:
        vode: the node.
        rkg: not used.

    Raises:
        ValueError: h is not set.

    Example:
        >>> zero_energy(Vode().set("h", jnp.ones(2))).tolist()
        [0.0, 0.0]
    """
    return jnp.zeros_like(_required(vode, "h"))

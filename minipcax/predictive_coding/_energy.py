"""Energy functions: how far a node's state h is from its prediction u, one term per element of h.

Each is the negative logarithm of a probability of h given u, up to a constant.
"""

import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, RandomKeyGenerator, get
from minipcax.predictive_coding._refusals import check_precision, check_same_shape, missing_entry


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
    """The squared error ½(h − u)², of a Gaussian with unit variance; or ½p(h − u)² in a node with a precision p.

    The precision, 1 / variance, is an entry of the node like any other: `vode.precision = LayerParam(...)` is learned
    with the weights, `vode(u, precision=p)` is a prediction of the network.

    Args:
        vode: the node.
        rkg: not used.
        log_normaliser: whether to add ½log(2π/p), so that the energy is the negative log density. Without it, the
            energy is least for p = 0. `Vode(partial(se_energy, log_normaliser=True))` has it.

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
    """The cross entropy −h·log softmax(u) over the last axis, of a categorical with logits u; h is one-hot.

    Example:
        >>> vode = Vode(ce_energy).set("h", jnp.array([1.0, 0.0])).set("u", jnp.zeros(2))
        >>> round(float(ce_energy(vode).sum()), 3)
        0.693
    """
    h, logits = _state_and_prediction(vode)
    largest = jnp.finfo(logits.dtype).max / 16  # type: ignore[no-untyped-call]  # jax
    logarithm = jax.nn.log_softmax(jnp.clip(logits, -largest, largest), axis=-1)
    # Overflow would give 0 · −∞ where h is zero; with a sixteenth, the sum of a few terms is finite as well.
    return -h * jnp.maximum(logarithm, -largest)


def zero_energy(vode: Node, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
    """Zero: a node that does not take part.

    Example:
        >>> zero_energy(Vode().set("h", jnp.ones(2))).tolist()
        [0.0, 0.0]
    """
    return jnp.zeros_like(_required(vode, "h"))

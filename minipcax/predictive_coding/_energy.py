"""Energy functions: how far a node's state h is from its prediction u, one term per element of h.

Each is the negative logarithm of a probability of h given u, up to a constant.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, RandomKeyGenerator, get


class Node(Protocol):
    """What an energy function needs of a value node."""

    def get(self, key: str, default: Any = None) -> Any:  # what the node holds under that name
        """What the node holds under a name."""
        ...


def _required(vode: Node, key: str) -> Array:
    value = get(vode.get(key))
    if value is None:
        raise ValueError(
            f"the energy of a node needs its {key}, which is not set: call the node with a prediction first, under "
            "step(model, STATUS.INIT) the first time"
        )
    array: Array = value
    return array


def se_energy(vode: Node, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
    """The squared error ½(h − u)², of a Gaussian with unit variance.

    Example:
        >>> vode = Vode().set("h", jnp.array([3.0])).set("u", jnp.array([1.0]))
        >>> se_energy(vode).tolist()
        [2.0]
    """
    error = _required(vode, "h") - _required(vode, "u")
    return 0.5 * error * error


def ce_energy(vode: Node, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
    """The cross entropy −h·log softmax(u) over the last axis, of a categorical with logits u; h is one-hot.

    Example:
        >>> vode = Vode(ce_energy).set("h", jnp.array([1.0, 0.0])).set("u", jnp.zeros(2))
        >>> ce_energy(vode).round(3).tolist()
        [0.693, -0.0]
    """
    logarithm = jax.nn.log_softmax(_required(vode, "u"), axis=-1)
    # Overflow would give 0 · −∞ where h is zero.
    logarithm = jnp.maximum(logarithm, jnp.finfo(logarithm.dtype).min)  # type: ignore[no-untyped-call]  # jax
    return -_required(vode, "h") * logarithm


def zero_energy(vode: Node, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
    """Zero: a node that does not take part.

    Example:
        >>> zero_energy(Vode().set("h", jnp.ones(2))).tolist()
        [0.0, 0.0]
    """
    return jnp.zeros_like(_required(vode, "h"))

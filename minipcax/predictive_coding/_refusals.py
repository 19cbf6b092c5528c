"""What is wrong with a node whose energy can not be computed, in words."""

import jax.numpy as jnp
from jaxtyping import Array


def refuse_other_shape(h: Array, u: Array, what: str) -> None:
    """Refuses a prediction that has not exactly the shape of the state."""
    if jnp.shape(h) != jnp.shape(u):
        raise ValueError(
            f"a node's state h and its {what} must have one shape, found {jnp.shape(h)} and {jnp.shape(u)}: nothing is "
            "broadcast; give the target the shape of the prediction (that of a class is a one-hot vector)"
        )


def refuse_other_precision(h: Array, precision: Array) -> None:
    """Refuses a precision that does not broadcast to the state."""
    small, large = jnp.shape(precision)[::-1], jnp.shape(h)[::-1]
    if len(small) > len(large) or any(n not in (1, m) for n, m in zip(small, large, strict=False)):
        raise ValueError(f"a precision must broadcast to the state, of shape {h.shape}, found shape {precision.shape}")


def refuse_broadcast(h: object, u: object) -> None:
    """Refuses a prediction that an energy function would broadcast to the state; it may have a shape of its own."""
    if isinstance(h, Array) and isinstance(u, Array) and u.shape != h.shape:
        small, large = u.shape[::-1], h.shape[::-1]
        if len(small) <= len(large) and all(n in (1, m) for n, m in zip(small, large, strict=False)):
            refuse_other_shape(h, u, "prediction u")


def refuse_other_terms(h: object, terms: Array) -> None:
    """Refuses what is not one term of energy for each element of the state."""
    if isinstance(h, Array) and terms.shape != h.shape:
        raise ValueError(
            f"the energy function of a node must return one term per element of its state, of shape {h.shape}, found "
            f"shape {terms.shape}: do not sum or average in it; for one number for all elements, spread it evenly, "
            "jnp.broadcast_to(number / h.size, h.shape)"
        )


def refuse_several_predictions(count: int) -> None:
    """Refuses a node that was called more than once in a pass."""
    if count > 1:
        raise ValueError(
            f"a node was given {count} predictions in one pass, of which only the last would have an energy: use a "
            "node for each call (in a loop over time, one for each step; nn.shared(vode) shares the state), or, if "
            "these were several passes, clear the cache between them: step(model, clear_params=VodeParam.Cache)"
        )

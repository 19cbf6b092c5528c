"""Errors about nodes, their energies and their rules."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def missing_entry(key: str) -> ValueError:
    """The error for an energy function that reads an entry which is not set."""
    return ValueError(
        f"the energy of a node needs its {key}, which is not set: call the node with a prediction first, under "
        "step(model, STATUS.INIT) the first time"
    )


def check_same_shape(h: Array, u: Array) -> None:
    """Raises if the prediction does not have exactly the shape of the state."""
    if jnp.shape(h) != jnp.shape(u):
        raise ValueError(
            f"a node's state h and its prediction u must have the same shape, found {jnp.shape(h)} and {jnp.shape(u)}: "
            "nothing is broadcast; give the target the shape of the prediction (that of a class is a one-hot vector)"
        )


def check_not_broadcast(h: object, u: object) -> None:
    """Raises if an energy function would have broadcast the prediction to the state; it may have another shape."""
    if isinstance(h, Array) and isinstance(u, Array) and _is_broadcast(u, h):
        check_same_shape(h, u)


def check_precision(h: Array, precision: Array) -> None:
    """Raises if the precision does not broadcast to the state."""
    if not _is_broadcast(precision, h):
        raise ValueError(f"a precision must broadcast to the state, of shape {h.shape}, found shape {precision.shape}")


def check_no_precision(precision: object) -> None:
    """Raises if a node with an energy that has no precision is given one."""
    if precision is not None:
        raise ValueError(
            "ce_energy has no precision, but the node was given one, which would not take part: remove it, or multiply "
            "in an energy function of your own, such as lambda vode: weight * ce_energy(vode)"
        )


def _is_broadcast(small: Array, large: Array) -> bool:
    pairs = zip(small.shape[::-1], large.shape[::-1], strict=False)
    return small.ndim <= large.ndim and all(n in (1, m) for n, m in pairs)


def check_terms(h: object, terms: Array) -> None:
    """Raises unless there is one term of energy for each element of the state."""
    if isinstance(h, Array) and terms.shape != h.shape:
        raise ValueError(
            f"the energy function of a node must return one term per element of its state, of shape {h.shape}, found "
            f"shape {terms.shape}: do not sum or average in it; for one number for all elements, spread it evenly, "
            "jnp.broadcast_to(number / h.size, h.shape)"
        )


def check_one_prediction(count: int) -> None:
    """Raises if a node was called more than once in a pass."""
    if count > 1:
        raise ValueError(
            f"a node was given {count} predictions in one pass, of which only the last would have an energy: use a "
            "node for each call (in a loop over time, one for each step; nn.shared(vode) shares the state), or, if "
            "these were several passes, clear the cache between them: step(model, clear_params=VodeParam.Cache)"
        )


def check_started_once(rules: Sequence[Any]) -> None:  # which are defined in a file that imports this one
    """Raises if a node of which the state is guessed also starts itself."""
    if any("h" in rule.others for rule in rules):
        raise ValueError(
            "Amortised expected a node that does not start itself, found one whose state becomes its prediction in "
            'STATUS.INIT, so that the guess or the prediction would be lost: write Vode(ruleset={STATUS.INIT: ("u <- '
            'u",)})'
        )


def check_no_circle(asked: tuple[str, ...]) -> None:
    """Raises if an output rule asks for a key that is being computed."""
    if asked[-1] in asked[:-1]:
        raise ValueError(f"the output rules define {asked[-1]!r} in terms of itself: {' -> '.join(asked)}")


def check_texts(status: str | None, texts: object) -> None:
    """Raises unless the rules of a status are a sequence of strings."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):  # type: ignore[attr-defined]  # so
        raise TypeError(f"the rules of status {status!r} must be a sequence of strings, found {texts!r}")


def not_a_rule(text: str, place: int, expected: str) -> ValueError:
    """The error for a rule that cannot be parsed."""
    found = repr(text[place:]) if text[place:] else "the end"
    return ValueError(f"cannot parse the rule {text!r}: at column {place + 1} expected {expected}, found {found}")


def hidden_method(owner: object, name: str) -> TypeError:
    """The error for an attribute that would hide a method."""
    return TypeError(
        f"{type(owner).__name__}.{name} is a method of EnergyModule, which the attribute would hide: give it another "
        "name, such as vodes for the value nodes"
    )

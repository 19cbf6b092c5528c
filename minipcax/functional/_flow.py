"""What loops and branches share: they consist of several functions, and keep the form of all values.

A compiled loop has one program for all of its steps, and whatever follows a branch must not depend on which was taken.
So neither may change what values look like: their containers, shapes and dtypes, and whether a parameter is cleared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from minipcax.functional._base import P, R, Transform
from minipcax.functional._types import Keywords, Value

Call = Callable[[tuple[Any, ...], Keywords], Any]


class FlowTransform(Transform[P, R]):
    """A transform of several functions, each of which may be bound to models of its own."""

    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__(functions[0])
        self._bound = {}
        self._functions = [Transform[..., Any](fn) for fn in functions]

    def _with_bound(self, args: tuple[Any, ...], keywords: Keywords) -> tuple[Keywords, list[Call]]:
        """The keywords with all that the functions are bound to, each object once; and how to call each with them."""
        tracked, calls = {**keywords}, list[Call]()
        for function in self._functions:
            keys = {}
            for name, value in function._keywords(args, keywords).items():
                # Two functions may be bound to different models by one name, or to one model by different names.
                key = name if name in keywords else f"{name} ({len(tracked)})"
                keys[name] = next((known for known, other in tracked.items() if other is value), key)
                tracked[keys[name]] = value
            calls.append(partial(_call_by_keys, function, keys))
        return tracked, calls


def _call_by_keys(function: Transform[..., Any], keys: dict[str, str], args: tuple[Any, ...], tracked: Keywords) -> Any:
    return function._call(args, {name: tracked[key] for name, key in keys.items()})


def types_of(value: Value) -> Any:
    """The shapes and dtypes of a value, in its containers: what may be kept when its trace is over."""
    return jax.tree.map(jax.typeof, value)


def _form(types: Any) -> Any:
    """What a value looks like, for messages. Without any array, it counts as cleared."""
    if not jax.tree.leaves(types):
        return "cleared"
    return jax.tree.map(lambda array: f"{array.dtype}{list(array.shape)}", types)


def check_output(before: Any, after: Any, what: str) -> None:
    """Raises if the types of two outputs differ. A Python number takes on any dtype."""
    structures: list[Any] = [jax.tree.structure(types) for types in (before, after)]
    if not (structures[0] == structures[1] and all(map(_fit, jax.tree.leaves(before), jax.tree.leaves(after)))):
        raise TypeError(f"{what}: expected {_form(before)}, found {_form(after)}; return the same shapes and dtypes")


def _fit(one: Any, other: Any) -> bool:
    weak = any(getattr(kind, "weak_type", False) for kind in (one, other))
    return bool(one.shape == other.shape and (one.dtype == other.dtype or weak))


def check_form(before: Any, after: Any, where: str, path: Callable[[], str]) -> None:
    """Raises if a parameter's values before and after have different types."""
    if _form(before) != _form(after):
        raise ValueError(
            f"the parameter {path()} does not keep its form {where}: expected {_form(before)}, found {_form(after)}; "
            "give it its shape and dtype before, and set or clear it on every path"
        )

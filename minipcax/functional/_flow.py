"""What loops and branches share: they keep the form of all values, and consist of several functions.

A compiled loop has one program for all of its steps, and what follows a branch must not depend on which was taken. So
neither may change what values look like: their containers, shapes and dtypes, and whether a parameter is cleared.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import jax

from minipcax.functional._base import Transform
from minipcax.functional._tracking import Keywords, Value


def types_of(value: Value) -> Any:
    """The shapes and dtypes of a value, in its containers: what may be kept when its trace is over."""
    return jax.tree.map(jax.typeof, value)


def _form(types: Any) -> Any:
    """What a value looks like, for messages. Without any array, it counts as cleared."""
    if not jax.tree.leaves(types):
        return "cleared"
    return jax.tree.map(lambda array: f"{array.dtype}{list(array.shape)}", types)


def refuse_other_output(before: Any, after: Any, what: str) -> None:
    """Refuses types of outputs that do not fit those before. A Python number takes on any dtype."""
    structures: list[Any] = [jax.tree.structure(types) for types in (before, after)]
    if structures[0] == structures[1] and all(map(_fit, jax.tree.leaves(before), jax.tree.leaves(after))):
        return
    raise TypeError(f"{what}: expected {_form(before)}, found {_form(after)}; return the same shapes and dtypes")


def _fit(one: Any, other: Any) -> bool:
    weak = any(getattr(kind, "weak_type", False) for kind in (one, other))
    return bool(one.shape == other.shape and (one.dtype == other.dtype or weak))


def refuse_new_form(before: Any, after: Any, where: str, path: Callable[[], str]) -> None:
    """Refuses types of a parameter's values that are not the same before and after."""
    if _form(before) != _form(after):
        raise ValueError(
            f"the parameter {path()} does not keep its form {where}: expected {_form(before)}, found {_form(after)}; "
            "give it its shape and dtype before, and set or clear it on all ways through"
        )


class Part(Transform[..., Any]):
    """One of the functions of a loop or branch. Each may be bound to a model of its own, under the same name."""

    def __init__(self, fn: Callable[..., Any], whole: Transform[..., Any]) -> None:
        super().__init__(fn)
        self._all_bound = whole._bound
        self._keys: dict[str, str] = {}  # by name, the keyword under which the whole carries what this one is bound to
        for name, value in self._bound.items():
            numbered = (f"{name} ({number})" for number in count(1))  # no keyword of a caller's
            self._keys[name] = next(key for key in numbered if whole._bound.setdefault(key, value) is value)
            whole._names[self._keys[name]] = name

    def _call(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        given = {name: value for name, value in keywords.items() if name not in self._all_bound}
        # What a caller gives takes the place of what is bound to that name, which is then not carried.
        own = {name: keywords[key] for name, key in self._keys.items() if key in keywords}
        return super()._call(args, {**given, **own})

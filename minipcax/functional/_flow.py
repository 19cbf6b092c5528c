"""What loops and branches share: they keep the form of all values, and consist of several functions.

A compiled loop has one program for all of its steps, and what follows a branch must not depend on which was taken. So
neither may change what values look like: their containers, shapes and dtypes, and whether a parameter is cleared.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from minipcax.functional._base import Transform
from minipcax.functional._tracking import Keywords, Value


def _form(value: Value) -> Any:
    """What a value looks like: its containers, shapes and dtypes. Without any array, it counts as cleared."""
    if not jax.tree.leaves(value):
        return "cleared"
    return jax.tree.map(lambda array: f"{jnp.result_type(array)}{list(jnp.shape(array))}", value)


def refuse_other_output(before: Any, after: Any, what: str) -> None:
    """Refuses outputs that do not fit those before. A Python number takes on any dtype."""
    structures: list[Any] = [jax.tree.structure(output) for output in (before, after)]
    if structures[0] == structures[1] and all(map(_fit, jax.tree.leaves(before), jax.tree.leaves(after))):
        return
    raise TypeError(f"{what}: expected {_form(before)}, found {_form(after)}; return the same shapes and dtypes")


def _fit(one: Any, other: Any) -> bool:
    types = jax.typeof(one), jax.typeof(other)
    return types[0].shape == types[1].shape and (
        types[0].dtype == types[1].dtype or any(getattr(kind, "weak_type", False) for kind in types)
    )


def refuse_new_form(before: Value, after: Value, where: str, path: Callable[[], str]) -> None:
    if _form(before) != _form(after):
        raise ValueError(
            f"the parameter {path()} does not keep its form {where}: expected {_form(before)}, found {_form(after)}; "
            "give it its shape and dtype before, and set or clear it on all ways through"
        )


class Part(Transform[..., Any]):
    """One of the functions of a loop or branch. Each may be bound to a model of its own."""

    def __init__(self, fn: Callable[..., Any], all_bound: Keywords) -> None:
        super().__init__(fn)
        self._keys: dict[str, str] = {}  # under which keyword to find what this function is bound to
        self._all_bound = all_bound
        for name, value in self._bound.items():
            key = name
            while all_bound.setdefault(key, value) is not value:
                key += "_"
            self._keys[name] = key

    def _call(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        own = {name: keywords[key] for name, key in self._keys.items()}
        given = {name: value for name, value in keywords.items() if name not in self._all_bound}
        return super()._call(args, {**given, **own})

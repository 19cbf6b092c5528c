"""What loops and branches share: they consist of several functions, and keep the form of all values.

A compiled loop has one program for all of its steps, and whatever follows a branch must not depend on which was taken.
So neither may change what values look like: their containers, shapes and dtypes, and whether a parameter is cleared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from minipcax.functional._base import P, R, Transform
from minipcax.functional._types import Function, Keywords, Value

Call = Callable[[tuple[Any, ...], Keywords], Any]


class FlowTransform(Transform[P, R]):
    """A transform of several functions, each of which may be bound to models of its own.

    Two functions may be bound to different models by one name, or to one model by different names. So each model is
    tracked once, under a key such as `self (1)`, and every function has its own way from names to keys.
    """

    def __init__(self, *functions: Function) -> None:
        super().__init__(functions[0])
        self._bound = {}
        self._parts: list[tuple[Transform[..., Any], dict[str, str]]] = []
        for function in map(Transform[..., Any], functions):
            keys: dict[str, str] = {}
            for name, value in function._bound.items():
                # A model bound to one function under two names is refused, like any module with two paths.
                known = (key for key, other in self._bound.items() if other is value and key not in keys.values())
                keys[name] = next(known, f"{name} ({len(self._bound) + 1})")
                self._bound[keys[name]] = value
            self._parts.append((function, keys))

    def _keywords(self, args: tuple[Any, ...], kwargs: Keywords) -> Keywords:
        used = {
            key for part, keys in self._parts for name, key in keys.items() if name not in part._given(args, kwargs)
        }
        return {**{key: value for key, value in self._bound.items() if key in used}, **kwargs}

    def _calls(self) -> list[Call]:
        """How to call each function with tracked keywords."""
        return [partial(self._call_part, part, keys) for part, keys in self._parts]

    def _call_part(
        self, part: Transform[..., Any], keys: dict[str, str], args: tuple[Any, ...], tracked: Keywords
    ) -> Any:
        given = {name: value for name, value in tracked.items() if name not in self._bound}
        own = {
            name: tracked[key] for name, key in keys.items() if key in tracked and name not in part._given(args, given)
        }
        return part._call(args, {**given, **own})


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

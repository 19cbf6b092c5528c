"""Searches everything an object holds, to refuse parameters that transforms would not find."""

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import jax
import numpy as np

_HOLD_NOTHING = (type, ModuleType, Enum, str, bytes, int, float, complex, BuiltinFunctionType, jax.Array, np.ndarray)


def reach(value: object, wanted: Callable[[object], bool], closures: bool = True) -> str | None:
    """Returns where the first wanted object is, in or below `value`, as a path; `None` if there is none.

    A function holds the variables that it closes over, unless `closures` is False.

    Example:
        >>> reach({"block": [1, Param(2.0)]}, lambda node: isinstance(node, Param))
        "['block'][1]"
    """
    below = [("", value)] if not isinstance(value, _HOLD_NOTHING) else []
    seen = {id(value): value}  # keeps the objects alive, so that Python cannot use their ids again
    for path, node in below:  # grows as it goes
        if wanted(node):
            return path
        for key, child in _parts(node) if closures or not isinstance(node, FunctionType) else ():
            if id(child) not in seen and not isinstance(child, (*_HOLD_NOTHING, type(None))):
                seen[id(child)] = child
                below.append((path + key, child))
    return None


def closure(fn: FunctionType) -> dict[str, object]:
    """The variables that a function closes over, except those not assigned yet."""
    found: dict[str, object] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        with suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _parts(node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        yield from ((f"[{key!r}]", item) for key, item in node.items())
    elif isinstance(node, (list, tuple, set, frozenset)):
        yield from ((f"[{index}]", item) for index, item in enumerate(node))
    elif isinstance(node, MethodType):
        yield ".__self__", node.__self__
    elif isinstance(node, functools.partial):
        yield from ((".func", node.func), (".args", node.args), (".keywords", node.keywords))
    elif isinstance(node, FunctionType):
        yield from ((f"({name})", item) for name, item in closure(node).items())
        yield from ((".__defaults__", node.__defaults__), (".__kwdefaults__", node.__kwdefaults__))
    slots = (name for cls in type(node).__mro__ for name in getattr(cls, "__slots__", ()))
    yield from ((f".{name}", getattr(node, name, None)) for name in slots if not name.startswith("__"))
    yield from ((f".{name}", item) for name, item in getattr(node, "__dict__", {}).items())

"""What a function reads without being given it: in its closure, and among the globals that it names."""

import inspect
from functools import partial
from typing import Any

import jax

from minipcax.core._module import BaseModule
from minipcax.core._parameter import BaseParam
from minipcax.core.random import RKG


def held_by(fn: object, seen: frozenset[int] = frozenset()) -> list[Any]:
    """The values that a function reads without being given them, where Python can tell, also through what it calls."""
    if isinstance(fn, partial):
        return held_by(fn.func, seen)
    fn = inspect.unwrap(fn) if callable(fn) else fn  # what jax.jit has wrapped, for one
    if id(fn) in seen or str(getattr(fn, "__module__", "")).partition(".")[0] in ("jax", "jaxlib", "minipcax"):
        return []
    if inspect.isfunction(fn):
        around = inspect.getclosurevars(fn)
        values = [*around.nonlocals.values(), *around.globals.values()]
    else:
        values = [*getattr(fn, "__dict__", {}).values()]
    found: list[Any] = []
    for value in values:
        if isinstance(value, (BaseParam, BaseModule, jax.Array, float)):
            found += [value] if value is not RKG else []
        elif isinstance(value, (list, tuple, dict)):
            items = value.values() if isinstance(value, dict) else value
            found += [item for item in items if isinstance(item, BaseParam)]
        elif callable(value) and not isinstance(value, type):
            found += held_by(value, seen | {id(fn)})
    return found

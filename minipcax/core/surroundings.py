"""What a function reads without taking it as an argument: its closure and the globals it names."""

import dis
import inspect
from collections.abc import Iterator
from functools import cache, partial
from types import CodeType, FunctionType
from typing import Any

import jax

from minipcax.core._module import BaseModule
from minipcax.core._parameter import BaseParam
from minipcax.core.random import RKG
from minipcax.core.reach import closure


def surroundings(fn: FunctionType) -> dict[str, Any]:
    """The variables that a function, or one defined inside it, reads from around it."""
    globals = {name: fn.__globals__[name] for name in _names_of_globals(fn.__code__) if name in fn.__globals__}
    return {**closure(fn), **globals}


@cache
def _names_of_globals(code: CodeType) -> tuple[str, ...]:
    def names(code: CodeType) -> Iterator[str]:
        yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                yield from names(inner)

    return tuple(dict.fromkeys(names(code)))


def held_by(fn: object, seen: frozenset[int] = frozenset()) -> list[Any]:
    """Returns the parameters, modules and numbers that a function, or one it calls, reads without being given them."""
    if isinstance(fn, partial):
        return held_by(fn.func, seen)
    fn = inspect.unwrap(fn) if callable(fn) else fn  # such as the function inside `jax.jit(function)`
    if id(fn) in seen or str(getattr(fn, "__module__", "")).partition(".")[0] in ("jax", "jaxlib", "minipcax"):
        return []
    around = [*(surroundings(fn) if isinstance(fn, FunctionType) else getattr(fn, "__dict__", {})).values()]
    if isinstance(fn, FunctionType):
        around += [*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()]
    found: list[Any] = []
    for value in around:
        if isinstance(value, (BaseParam, BaseModule, jax.Array, float)):
            found += [value] if value is not RKG else []
        elif isinstance(value, (list, tuple, dict)):
            items = value.values() if isinstance(value, dict) else value
            found += [item for item in items if isinstance(item, BaseParam)]
        elif callable(value) and not isinstance(value, type):
            found += held_by(value, seen | {id(fn)})
    return found

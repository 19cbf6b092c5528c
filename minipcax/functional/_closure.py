"""What a compiled function reads without being given it: a model in its closure, or among its globals.

JAX compiles what it finds there as constants, which go on being what they were when the function was traced.
"""

import dis
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from minipcax.core import BaseModule, BaseParam, DynamicParam
from minipcax.core._trace import OUTSIDE
from minipcax.core._tree import leaves
from minipcax.functional._base import Transform


def warn_of_models(fn: Callable[..., Any]) -> None:
    """Warns if a function that is being compiled names a model that was made outside of any transform."""
    while not inspect.isfunction(fn):
        if isinstance(fn, Transform):
            fn = fn.fn
        elif isinstance(fn, functools.partial):
            fn = fn.func
        elif inspect.ismethod(fn):
            fn = fn.__func__
        else:
            return
    names = {**inspect.getclosurevars(fn).nonlocals, **_globals(fn)}
    models = [name for name, value in names.items() if _is_model(value)]
    if models:
        warnings.warn(
            f"{fn.__qualname__} reads {', '.join(models)} from around it, which jit compiles as it is now, once and "
            f"for all: to see later changes, pass it as a keyword argument, {models[0]}={models[0]}",
            stacklevel=2,
        )


def _globals(fn: Callable[..., Any]) -> dict[str, Any]:
    code: Any = fn.__code__
    return {name: fn.__globals__[name] for name in _global_names(code) if name in fn.__globals__}


def _global_names(code: CodeType) -> Iterator[str]:
    yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _global_names(inner)


def _is_model(value: object) -> bool:
    """Whether a value is, or holds, parameters that a call would have to pass. `RKG` goes along with every call."""
    if not isinstance(value, (BaseModule, BaseParam, list, tuple, dict)):
        return False
    params = [node for node in leaves(value) if isinstance(node, DynamicParam)]
    return any(param._trace == OUTSIDE and not param.is_carried for param in params)

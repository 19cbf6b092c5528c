"""What a compiled function reads without being given it: a model in its closure, or among its globals.

JAX compiles what it finds there as constants, which go on being what they were when the function was traced.
"""

import dis
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from minipcax.core import DynamicParam
from minipcax.core.reach import reach
from minipcax.core.trace import OUTSIDE, current_trace


def warn_of_models(fn: Callable[..., Any]) -> None:
    """Warns if a function that is being compiled names a model that was made outside of any transform."""
    if current_trace() == OUTSIDE:  # nothing is, under `jax.disable_jit()`
        return
    while not inspect.isfunction(fn):  # but a transform, what jax.jit makes, a partial or a method
        inner = (getattr(fn, name, None) for name in ("__wrapped__", "func", "__func__"))
        fn = next(filter(callable, inner), None)  # type: ignore[assignment]  # which ends the loop
        if fn is None:
            return
    around = {**inspect.getclosurevars(fn).nonlocals, **_globals(fn)}
    models = [name for name, value in around.items() if reach(value, _is_read) is not None]
    if models:
        warnings.warn(
            f"{fn.__qualname__} reads {', '.join(models)} from around it, which jit compiles as it is now, once and "
            f"for all: to see later changes, pass it as a keyword argument, {models[0]}={models[0]} (where that is "
            f"an object of your own, make its class a Module); a model that is "
            f"not to change is frozen, {models[0]}.frozen = True",
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


def _is_read(node: object) -> bool:
    """Whether a node is a parameter that a call would have to pass. `RKG` goes along with every call."""
    if not isinstance(node, DynamicParam) or node.is_carried or getattr(node, "frozen", False):
        return False
    return bool(node._trace == OUTSIDE)

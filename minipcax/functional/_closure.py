"""A warning about models that a compiled function reads from around it, instead of being given them.

JAX compiles such a model as constants, which keep the values that they had when the function was traced.
"""

import inspect
import warnings
from types import MethodType

from minipcax.core import DynamicParam
from minipcax.core.reach import reach
from minipcax.core.surroundings import surroundings
from minipcax.core.trace import OUTSIDE, current_trace
from minipcax.functional._base import is_tracked
from minipcax.functional._types import Function, Keywords


def warn_of_models(fn: Function) -> None:
    """Warns if a function that is being compiled names a model that was made outside of any transform."""
    if current_trace() == OUTSIDE:  # under `jax.disable_jit()` nothing is compiled
        return
    around: Keywords = {}
    while not inspect.isfunction(fn):  # unwrap transforms, what jax.jit returns, partials and methods
        if inspect.ismethod(fn):
            around |= _named_of_self(fn)
        inner = (getattr(fn, name, None) for name in ("__wrapped__", "func", "__func__"))
        fn = next(filter(callable, inner), None)  # type: ignore[assignment]  # which ends the loop
        if fn is None:
            return
    around |= surroundings(fn)
    models = [name for name, value in around.items() if reach(value, _is_read) is not None]
    if models:
        warnings.warn(
            f"{fn.__qualname__} reads {', '.join(models)} from around it, which jit compiles as it is now, once and "
            f"for all: to see later changes, pass it as a keyword argument, {models[0]}={models[0]} (where that is "
            f"an object of your own, make its class a Module); a model that is "
            f"not to change is frozen, {models[0]}.frozen = True",
            stacklevel=2,
        )


def _named_of_self(method: MethodType) -> Keywords:
    """The attributes of the object that a method is bound to which its code names, unless the object is tracked."""
    named = getattr(method.__func__, "__code__", None)
    if named is None or is_tracked(method.__self__):
        return {}
    return {name: value for name, value in getattr(method.__self__, "__dict__", {}).items() if name in named.co_names}


def _is_read(node: object) -> bool:
    """Whether a node is a parameter that a call would have to pass."""
    if not isinstance(node, DynamicParam) or node.is_carried or getattr(node, "frozen", False):
        return False
    return bool(node._trace == OUTSIDE)

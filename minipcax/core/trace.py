"""The library's own state during tracing: everything that lives in neither a model nor an argument.

While JAX traces a function, arrays are replaced by tracers, which mean nothing once the trace is over. JAX does not say
when that happens, but it can be asked which trace is under way, and two answers can be compared. So whatever may hold a
value remembers the trace in which it was made, and refuses the tracers of any other.

Three more pieces of state live here. Two belong to the thread that traces: the keys lent in place of that of `RKG` (see
`random`), and the number of `vmap`s under way. The third, `last_change`, is common to all threads.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import jax
import jax.core
import jax.extend.core

_home: Any = jax.extend.core if hasattr(jax.extend.core, "get_opaque_trace_state") else jax.core  # until jax 0.8
current_trace: Callable[[], object] = _home.get_opaque_trace_state  # equal to another answer in the same trace

with jax.core.eval_context():  # the first import of this file may itself be traced
    OUTSIDE = current_trace()  # of every trace


def refuse_escape(place: str, made_in: object, value: object, advice: str = "") -> None:
    """Raises if a tracer would be left in something that was made in another trace than the present one."""
    if has_tracers(value) and made_in != current_trace():
        raise RuntimeError(
            f"a transform of JAX would leave a tracer in {place}, which was made outside of it: plain JAX is not "
            "told what a function writes; use the transform of minipcax.functional, and pass what holds it as a "
            f"keyword argument{advice}"
        )


def has_tracers(value: object) -> bool:
    """Whether a value is, or holds, a tracer."""
    if isinstance(value, (jax.Array, str, type(None))):
        return isinstance(value, jax.core.Tracer)
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


class _Thread(threading.local):
    def __init__(self) -> None:
        self.lent_keys: list[Any] = []  # parameters, innermost last
        self.vmap_depth = 0


thread = _Thread()


def in_vmap() -> bool:
    """Whether this thread is inside a `vmap` of minipcax: whether a node sees one sample, or the whole batch."""
    return thread.vmap_depth > 0


@contextmanager
def inside_vmap() -> Iterator[None]:
    """Within the block, `in_vmap` is true for this thread."""
    thread.vmap_depth += 1
    try:
        yield
    finally:
        thread.vmap_depth -= 1


# Every assignment to a static value or to an attribute of a module puts a new object here. As long as it is the same,
# a transform sees in one comparison that the attributes of a model it knows are as they were.
last_change = SimpleNamespace(token=object())

"""What JAX is tracing, in this thread.

While JAX traces a function, arrays are stand-ins, called tracers, which mean nothing once the trace is over. JAX does
not say when that is. But it can be asked which trace is under way, and two answers can be compared.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import jax
from jax.extend.core import get_opaque_trace_state

current_trace: Callable[[], object] = get_opaque_trace_state  # equal to another answer in the same trace

with jax.core.eval_context():  # for what first imports this may itself be traced
    OUTSIDE = current_trace()  # of every trace


def refuse_escape(place: str, made_in: object, value: object, advice: str = "") -> None:
    """Refuses to leave a tracer in something that was made in another trace than the one that is under way."""
    if has_tracers(value) and made_in != current_trace():
        raise RuntimeError(
            f"a transform of JAX would leave a tracer in {place}, which was made outside of it: plain JAX is not told "
            "what a function writes; use the transform of minipcax.functional, and pass what holds it as a keyword "
            f"argument{advice}"
        )


def has_tracers(value: object) -> bool:
    """Whether a value is, or holds, one that JAX is tracing."""
    if isinstance(value, (jax.Array, str, type(None))):  # as nearly always
        return isinstance(value, jax.core.Tracer)
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


class _VmapDepth(threading.local):
    depth = 0


_vmap = _VmapDepth()


def in_vmap() -> bool:
    """Whether this thread is inside a `vmap` of minipcax: whether a node sees one sample, or the whole batch."""
    return _vmap.depth > 0


@contextmanager
def inside_vmap() -> Iterator[None]:
    """Within the block, `in_vmap` is true for this thread."""
    _vmap.depth += 1
    try:
        yield
    finally:
        _vmap.depth -= 1


# Its token stands for the latest change of structure by assignment, to a static value or to an attribute of a module.
# While it is the same object, there was none: a transform sees in one comparison that a model it knows is as it was.
last_change = SimpleNamespace(token=object())

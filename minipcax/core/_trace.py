"""What JAX is tracing, in this thread.

While JAX traces a function, arrays are stand-ins, called tracers, which mean nothing once the trace is over. JAX does
not say when that is. But it can be asked which trace is under way, and two answers can be compared.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.extend.core import get_opaque_trace_state

current_trace: Callable[[], object] = get_opaque_trace_state  # equal to another answer in the same trace

with jax.core.eval_context():  # for what first imports this may itself be traced
    OUTSIDE = current_trace()  # of every trace


def has_tracers(value: object) -> bool:
    """Whether a value is, or holds, one that JAX is tracing."""
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

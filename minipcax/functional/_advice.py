"""Advice for errors that JAX raises while it traces a function."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.core import Tracer

import minipcax.functional._refusals as refusals
from minipcax.core.tree import walk
from minipcax.functional._types import Keywords

_TRACED = "traced, as numbers are; wrap a size or flag in static(...)"
_MESH = "on a mesh with Explicit axes, "


@contextmanager
def with_advice(keywords: Keywords) -> Iterator[None]:
    """Adds to an error of JAX while tracing what to do about it, if it comes from traced numbers or from a mesh."""
    try:
        yield
    except Exception as error:
        for first, advice in ((_TRACED, _traced_numbers(error, keywords)), (_MESH, _shardings(error))):
            # An inner transform may have said it already.
            if advice and not any(first in note for note in getattr(error, "__notes__", ())):
                error.add_note(advice)
        raise


def _traced_numbers(error: Exception, keywords: Keywords) -> str:
    """Which numbers of the model are traced, if JAX says that a value is not known."""
    unknown = isinstance(error, jax.errors.ConcretizationTypeError) or "concrete" in str(error)
    if not (unknown and isinstance(error, TypeError)):
        return ""
    tracers = [(path, node) for path, node in walk(keywords) if isinstance(node, Tracer)]
    numbers = [refusals.keyword_path(path) for path, node in tracers if len(path) > 1 and node.shape == ()]
    return f"{', '.join(numbers)}: {_TRACED}" if numbers else ""


def _shardings(error: Exception) -> str:
    """How to place arrays, if JAX says that it does not choose."""
    if not any(words in str(error) for words in ("out_sharding", "sharded the same", "should be replicated")):
        return ""
    return (
        f"{_MESH}JAX moves no array by itself: shard x and y, and whatever else is mapped, alike, and put all weights "
        "on the mesh, replicated, or linear ones sharded over an axis of their outputs; or make the mesh with "
        "axis_types=(AxisType.Auto,) * number_of_axes, and JAX moves what has to move"
    )

"""Filters select parameters."""

from collections.abc import Callable
from types import UnionType
from typing import Any, Protocol, runtime_checkable

from minipcax.core._parameter import BaseParam


@runtime_checkable
class Mask(Protocol):
    """Selects parameters, as `utils.M` does."""

    def apply(self, leaf: BaseParam[Any], /) -> bool:
        """Whether the mask selects a parameter."""
        ...


Predicate = Callable[[Any], bool]  # which knows what class of parameters it is for
Filter = type | UnionType | Mask | Predicate


def as_predicate(filter: Filter) -> Predicate:
    """Turns a filter, which is a class, a union of classes, a predicate or a mask, into a predicate.

    Raises:
        TypeError: `filter` is none of these.
    """
    if isinstance(filter, (type, UnionType)):
        return lambda param: isinstance(param, filter)
    predicate: Predicate | None = getattr(filter, "apply", filter if callable(filter) else None)
    if predicate is not None:
        return predicate
    raise TypeError(f"expected a class, a union of classes, a predicate or an M to select parameters, found {filter!r}")

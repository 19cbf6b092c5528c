"""Filters: the ways in which people say which parameters they mean."""

from collections.abc import Callable
from types import UnionType
from typing import Any, Protocol, runtime_checkable

from minipcax.core._parameter import BaseParam


@runtime_checkable
class Mask(Protocol):
    """What `utils.M` is: it tells of one parameter whether it selects it."""

    def apply(self, leaf: BaseParam[Any], /) -> bool:
        """Whether the mask selects a parameter."""
        ...


Predicate = Callable[[Any], bool]  # of a parameter of any class
Filter = type | UnionType | Mask | Predicate


def as_predicate(filter: Filter) -> Predicate:
    """One function for all kinds of filters: a class, a union of classes, a predicate, or a mask.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(filter, (type, UnionType)):
        return lambda param: isinstance(param, filter)
    if hasattr(filter, "apply"):
        return filter.apply
    if callable(filter):
        return filter
    raise TypeError(f"expected a class, a union of classes, a predicate or an M to select parameters, found {filter!r}")

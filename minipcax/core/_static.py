"""Static parameters: functions, names, modes, and anything else that JAX must not trace."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy, deepcopy
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import jax
import numpy as np

from minipcax.core._parameter import BaseParam, get, is_own_name
from minipcax.core.refusals import refuse_params
from minipcax.core.structure import Structure
from minipcax.core.trace import has_tracers, last_change

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class StaticParam(BaseParam[T]):
    """A parameter whose value JAX does not trace: it is part of the tree structure.

    Calls, attributes, iteration, `len`, `in`, indexing and `==` go to the value. Replacing it with `set`, or changing a
    dict, list or set in it, compiles anew. Usually it is made with `static(value)`.

    Args:
        value: anything whose `==` returns a bool: a function, a string, a number, an enum, a list, a dict, `None`.

    Raises:
        TypeError: the value is an array, or is or holds a parameter or a tracer.

    Example:
        >>> act_fn = static(jax.nn.relu)
        >>> float(act_fn(-1.0)), jax.tree.leaves(act_fn)
        (0.0, [])
    """

    __slots__ = ()
    _has_leaves = False

    def __init__(self, value: T) -> None:
        if isinstance(value, (jax.Array, np.ndarray)):
            raise TypeError(
                f"static(...) is for what JAX must not trace, found a {type(value).__name__}; hold arrays in a Param"
            )
        self.check(value)
        super().__init__(value)

    def check(self, value: object) -> None:
        """Raises if `value` is, or holds at any depth, a parameter or a tracer."""
        refuse_params(value, "static(...)")
        if has_tracers(value):
            raise TypeError("static(...) is for what JAX must not trace, found a value that it is tracing: use a Param")

    def structure(self) -> tuple[Structure, ...]:
        return (Structure(self.value), *super().structure())

    @classmethod
    def from_structure(cls, structure: tuple[Structure, ...], children: Iterable[T]) -> Self:
        return super().from_structure(structure[1:], (structure[0].get(),))

    def __call__(self: "StaticParam[Callable[P, R]]", /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the value."""
        return self.value(*args, **kwargs)

    def __iter__(self: "StaticParam[Any]") -> Iterator[Any]:  # of whatever the value holds
        return iter(self.value)

    def __len__(self: "StaticParam[Any]") -> int:
        return len(self.value)

    def __contains__(self: "StaticParam[Any]", item: object) -> bool:
        return item in self.value

    def __getitem__(self: "StaticParam[Any]", index: object) -> Any:  # whatever the value holds
        return self.value[index]

    def __eq__(self, other: object) -> bool:
        return bool(self.value == get(other))

    def __hash__(self) -> int:
        return hash(self.value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles a function by its name, as Python does, also where that is one of JAX's, such as `jnp.tanh`."""
        name: Any = getattr(self.value, "__qualname__", None) or getattr(self.value, "__name__", None)
        with suppress(AttributeError, ImportError, TypeError, ValueError):  # it has no name, or shares it
            if callable(self.value) and _static_by_name(self.value.__module__, name).value is self.value:
                return _static_by_name, (self.value.__module__, name), vars(self) or None
        return super().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        copied = copy(self)
        if not callable(self.value):  # as Python copies functions
            copied.value = deepcopy(self.value, memo)
        return copied

    if not TYPE_CHECKING:  # so that a misspelt attribute is an error for a type checker

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            last_change.token = object()

        def __getattr__(self, name):
            if is_own_name(name):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            return getattr(self.value, name)


def _static_by_name(module: str, name: str) -> StaticParam[Any]:
    return StaticParam(attrgetter(name)(import_module(module)))


@overload
def static(value: StaticParam[T]) -> StaticParam[T]: ...
@overload
def static(value: T) -> StaticParam[T]: ...
def static(value: Any) -> Any:
    """Makes a value static: part of the tree structure, which JAX does not trace.

    Args:
        value: as for `StaticParam`; one that is static already is returned unchanged.

    Returns:
        A `StaticParam`.

    Raises:
        TypeError: see `StaticParam`.

    Example:
        >>> static(3), static(static(3)) == 3
        (StaticParam(3), True)
    """
    return value if isinstance(value, StaticParam) else StaticParam(value)

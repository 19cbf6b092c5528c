"""Arithmetic forwarding: how a parameter stands for its array in an expression.

Python looks up operators on the class, so each needs its own method. It is made from the function in the
standard module `operator` that it stands for, in one line.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import DTypeLike, NDArray

from minipcax.core._parameter import BaseParam, get

Operand = ArrayLike | BaseParam[Any]
R = TypeVar("R")


def array_of(x: Any) -> Any:  # a parameter holds what was put into it
    """Returns the value of a parameter, which must not be cleared; returns anything else unchanged."""
    value = get(x)
    if value is None and x is not None:
        raise AttributeError(f"this {type(x).__name__} is cleared (its value is None): set it before you use it")
    return value


def _unary(
    op: Callable[[Any], Any], returns: type[R]
) -> Callable[[Any], R]:  # `operator` has no types for what it returns
    def method(self: Any) -> Any:
        return op(array_of(self))

    return method


def _binary(op: Callable[[Any, Any], Any]) -> Callable[[Any, Operand], jax.Array]:
    def method(self: Any, other: Operand) -> Any:
        return op(array_of(self), array_of(other))

    return method


def _reflected(op: Callable[[Any, Any], Any]) -> Callable[[Any, Operand], jax.Array]:
    return _binary(lambda own, other: op(other, own))


def _augmented(op: Callable[[Any, Any], Any]) -> Callable[[Any, Operand], Any]:
    def method(self: Any, other: Operand) -> Any:
        return self.set(op(array_of(self), array_of(other)))

    return method


class ArrayOperators:
    """Every operator of `jax.Array`, applied to the value; augmented assignment changes the parameter in place."""

    __slots__ = ()
    __array_priority__ = 100  # so that numpy leaves `numpy_array + param` to the parameter, as it does for jax.Array
    __hash__ = object.__hash__  # a parameter is its identity, although == compares elements

    __neg__ = _unary(operator.neg, jax.Array)
    __pos__ = _unary(operator.pos, jax.Array)
    __abs__ = _unary(operator.abs, jax.Array)
    __invert__ = _unary(operator.invert, jax.Array)

    __len__ = _unary(len, int)
    __int__ = _unary(int, int)
    __index__ = _unary(operator.index, int)
    __float__ = _unary(float, float)
    __complex__ = _unary(complex, complex)

    __add__ = _binary(operator.add)
    __sub__ = _binary(operator.sub)
    __mul__ = _binary(operator.mul)
    __truediv__ = _binary(operator.truediv)
    __floordiv__ = _binary(operator.floordiv)
    __mod__ = _binary(operator.mod)
    __pow__ = _binary(operator.pow)
    __matmul__ = _binary(operator.matmul)
    __and__ = _binary(operator.and_)
    __or__ = _binary(operator.or_)
    __xor__ = _binary(operator.xor)
    __lshift__ = _binary(operator.lshift)
    __rshift__ = _binary(operator.rshift)

    __radd__ = _reflected(operator.add)
    __rsub__ = _reflected(operator.sub)
    __rmul__ = _reflected(operator.mul)
    __rtruediv__ = _reflected(operator.truediv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __rmod__ = _reflected(operator.mod)
    __rpow__ = _reflected(operator.pow)
    __rmatmul__ = _reflected(operator.matmul)
    __rand__ = _reflected(operator.and_)
    __ror__ = _reflected(operator.or_)
    __rxor__ = _reflected(operator.xor)
    __rlshift__ = _reflected(operator.lshift)
    __rrshift__ = _reflected(operator.rshift)

    __iadd__ = _augmented(operator.add)
    __isub__ = _augmented(operator.sub)
    __imul__ = _augmented(operator.mul)
    __itruediv__ = _augmented(operator.truediv)
    __ifloordiv__ = _augmented(operator.floordiv)
    __imod__ = _augmented(operator.mod)
    __ipow__ = _augmented(operator.pow)
    __imatmul__ = _augmented(operator.matmul)
    __iand__ = _augmented(operator.and_)
    __ior__ = _augmented(operator.or_)
    __ixor__ = _augmented(operator.xor)
    __ilshift__ = _augmented(operator.lshift)
    __irshift__ = _augmented(operator.rshift)

    __eq__ = _binary(operator.eq)  # type: ignore[assignment]  # elements are compared, as jax.Array does
    __ne__ = _binary(operator.ne)  # type: ignore[assignment]  # as above
    __lt__ = _binary(operator.lt)
    __le__ = _binary(operator.le)
    __gt__ = _binary(operator.gt)
    __ge__ = _binary(operator.ge)

    def __divmod__(self, other: Operand) -> tuple[jax.Array, jax.Array]:
        quotient, remainder = divmod(array_of(self), array_of(other))
        return quotient, remainder

    def __rdivmod__(self, other: Operand) -> tuple[jax.Array, jax.Array]:
        quotient, remainder = divmod(array_of(other), array_of(self))
        return quotient, remainder

    def __round__(self, ndigits: int | None = None) -> Any:  # an array, or an int as Python's round gives
        return round(array_of(self), ndigits)

    def __getitem__(self, index: Any) -> jax.Array:  # whatever jax.Array takes as an index
        index = tuple(map(array_of, index)) if isinstance(index, tuple) else array_of(index)
        item: jax.Array = array_of(self)[index]
        return item

    def __contains__(self, item: Operand) -> bool:
        return array_of(item) in array_of(self)

    def __iter__(self) -> Iterator[jax.Array]:
        return iter(array_of(self))

    def __format__(self, spec: str) -> str:
        return format(array_of(self), spec) if spec or get(self) is not None else str(self)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # of any dtype
        return np.asarray(array_of(self), dtype=dtype, copy=copy)

    def __jax_array__(self) -> jax.Array:
        array: jax.Array = array_of(self)
        return array

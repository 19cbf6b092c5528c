"""Checks of the arguments of layers: each returns the value in the form that the layer keeps, or raises by its name."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import index
from typing import Any, SupportsFloat, SupportsIndex, TypeGuard

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# An int of Python or numpy.
Size = SupportsIndex
# One for all spatial axes, or one for each.
Sizes = Size | Sequence[Size]
# The same; or for each axis the padding before and after.
Padding = Sizes | Sequence[tuple[Size, Size]]
Pads = tuple[tuple[int, int], ...]
Shape = tuple[int, ...]


def wrong(layer: object, expected: str, found: object) -> ValueError:
    """The error for an argument, or an input, of a layer."""
    return ValueError(f"{type(layer).__name__} expected {expected}, found {found}")


def size(layer: object, argument: str, value: object, least: int = 1) -> int:
    """Checks that `value` is an int of at least `least`."""
    if not _is_int(value) or index(value) < least:
        kind = {0: "a non-negative int", 1: "a positive int"}[least]
        raise wrong(layer, f"{argument} to be {kind}", repr(value))
    return index(value)


def _is_int(value: Any) -> TypeGuard[SupportsIndex]:
    """Whether it is an int of Python, numpy or JAX, but not a bool, nor an array of one element."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_) and not getattr(value, "ndim", 0)


def _listed(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim else value


def per_axis(layer: object, argument: str, value: object, axes: int, least: int = 1) -> Shape:
    """Checks that `value` is an int or one for each axis; returns one for each axis."""
    value = _listed(value)
    if not isinstance(value, Sequence):
        return (size(layer, argument, value, least),) * axes
    if len(value) != axes:
        raise wrong(layer, f"{argument} to be an int or {axes} of them, one for each axis", repr(value))
    return tuple(size(layer, argument, item, least) for item in value)


def per_side(layer: object, value: object, axes: int) -> Pads:
    """Checks that `value` is a padding; returns the padding before and after each axis."""
    value = _listed(value)
    sides = list(value) if isinstance(value, Sequence) else [value] * axes
    pairs: list[Any] = [side if isinstance(side, Sequence) else (side, side) for side in sides]
    ints = all(_is_int(side) and index(side) >= 0 for pair in pairs for side in pair)
    if not ints or [len(pair) for pair in pairs] != [2] * axes:
        expected = (
            f"padding to be a non-negative int, {axes} of them, one for each axis, or {axes} pairs of them, before and "
            "after"
        )
        raise wrong(layer, expected, repr(value))
    return tuple((index(before), index(after)) for before, after in pairs)


def number(layer: object, argument: str, value: Any, kind: str = "a number", most: float = math.inf) -> float:
    """Checks that `value` is a number from 0 to `most`."""
    is_one = isinstance(value, SupportsFloat) and not getattr(value, "ndim", 0)
    if not is_one or not 0 <= float(value) <= most:
        bounds = "that is not negative" if most == math.inf else f"from 0 to {most}"
        raise wrong(layer, f"{argument} to be {kind}, {bounds}", repr(value))
    return float(value)


def flag(layer: object, argument: str, value: object) -> bool:
    """Checks that `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise wrong(layer, f"{argument} to be True or False", repr(value))
    return bool(value)


def choice(layer: object, argument: str, value: object, choices: Sequence[str], otherwise: str = "") -> str:
    """Checks that `value` is one of a few strings, in upper or lower case; returns it in upper case."""
    chosen = str(value).upper()
    if chosen not in choices:
        raise wrong(layer, f"{argument} to be {otherwise}one of {(*choices,)}", repr(value))
    return chosen


def floating(layer: object, dtype: DTypeLike | None) -> DTypeLike | None:
    """Checks that `dtype` is one that can be learned, or None for the default."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
        raise wrong(layer, "a floating dtype", repr(dtype))
    return dtype


def check_sample(layer: object, shape: Shape, channels: int | None, axes: int = 0) -> None:
    """Raises unless `shape` is that of one sample, with these channels and this number of spatial axes."""
    if len(shape) != axes + 1 or channels not in (None, shape[0]):
        wanted = ", ".join(["channels" if channels is None else str(channels), *[f"axis{n + 1}" for n in range(axes)]])
        wanted += "" if axes else ","
        raise wrong(layer, f"x of shape ({wanted}), one sample", f"{shape}; map a batch with vmap")


@contextmanager
def applying(layer: object, operation: object, arguments: str) -> Iterator[None]:
    """Adds what was expected of `operation` to a `TypeError` raised in the block."""
    try:
        yield
    except TypeError as error:
        raise TypeError(
            f"{type(layer).__name__} expected operation to be a function of {arguments}, found {operation!r}, which "
            f"fails: {error}"
        ) from error

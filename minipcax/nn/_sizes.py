"""What people give to layers: sizes made into tuples, numbers, flags; or refused by the name of the argument."""

import math
from collections.abc import Sequence
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


def size(layer: str, argument: str, value: object, least: int = 1) -> int:
    """One int that is large enough."""
    if not _is_int(value) or index(value) < least:
        kind = {0: "a non-negative int", 1: "a positive int"}[least]
        raise ValueError(f"{layer} expected {argument} to be {kind}, found {value!r}")
    return index(value)


def _is_int(value: Any) -> TypeGuard[SupportsIndex]:
    """An int of Python, numpy or JAX; bools are not meant, and arrays are sequences."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_) and not getattr(value, "ndim", 0)


def _listed(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim else value


def per_axis(layer: str, argument: str, value: object, axes: int, least: int = 1) -> tuple[int, ...]:
    """One int for each axis."""
    value = _listed(value)
    if not isinstance(value, Sequence):
        return (size(layer, argument, value, least),) * axes
    if len(value) != axes:
        raise ValueError(
            f"{layer} expected {argument} to be an int or {axes} of them, one for each axis, found {value!r}"
        )
    return tuple(size(layer, argument, item, least) for item in value)


def per_side(layer: str, value: object, axes: int) -> Pads:
    """For each axis, how much padding comes before and after it."""
    value = _listed(value)
    sides = list(value) if isinstance(value, Sequence) else [value] * axes
    pairs: list[Any] = [side if isinstance(side, Sequence) else (side, side) for side in sides]
    ints = all(_is_int(side) and index(side) >= 0 for pair in pairs for side in pair)
    if not ints or [len(pair) for pair in pairs] != [2] * axes:
        raise ValueError(
            f"{layer} expected padding to be a non-negative int, {axes} of them, one for each axis, or {axes} pairs of "
            f"them, before and after, found {value!r}"
        )
    return tuple((index(before), index(after)) for before, after in pairs)


def number(layer: str, argument: str, value: Any, kind: str = "a number", most: float = math.inf) -> float:
    """One number that is not negative, and not more than `most`."""
    is_one = isinstance(value, SupportsFloat) and not getattr(value, "ndim", 0)
    if not is_one or not 0 <= float(value) <= most:
        bounds = "that is not negative" if most == math.inf else f"from 0 to {most}"
        raise ValueError(f"{layer} expected {argument} to be {kind}, {bounds}, found {value!r}")
    return float(value)


def flag(layer: str, argument: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{layer} expected {argument} to be True or False, found {value!r}")
    return bool(value)


def floating(layer: str, dtype: DTypeLike | None) -> DTypeLike | None:
    """A dtype that can be learned, or None for the default."""
    if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"{layer} expected dtype to be one of floats, found {dtype!r}")
    return dtype


def check_sample(layer: str, shape: tuple[int, ...], channels: int | None, axes: int) -> None:
    """Refuses what is not one sample with these channels and this number of spatial axes."""
    if len(shape) != axes + 1 or channels not in (None, shape[0]):
        wanted = ", ".join(["channels" if channels is None else str(channels), *[f"axis{n + 1}" for n in range(axes)]])
        wanted += "" if axes else ","
        raise ValueError(f"{layer} expected x of shape ({wanted}), one sample, found {shape}; map a batch with vmap")

"""Sizes as people write them, made into tuples, or refused by the name of the argument."""

from collections.abc import Sequence
from operator import index
from typing import Any, SupportsIndex

# An int of Python or numpy.
Size = SupportsIndex
# One for all spatial axes, or one for each.
Sizes = Size | Sequence[Size]
# The same; or for each axis the padding before and after.
Padding = Sizes | Sequence[tuple[Size, Size]]
Pads = tuple[tuple[int, int], ...]


def size(layer: str, argument: str, value: object, least: int = 1) -> int:
    """One int that is large enough."""
    if not isinstance(value, SupportsIndex) or index(value) < least:
        kind = {0: "a non-negative int", 1: "a positive int"}[least]
        raise ValueError(f"{layer} expected {argument} to be {kind}, found {value!r}")
    return index(value)


def per_axis(layer: str, argument: str, value: object, axes: int, least: int = 1) -> tuple[int, ...]:
    """One int for each axis."""
    if not isinstance(value, Sequence):
        return (size(layer, argument, value, least),) * axes
    if len(value) != axes:
        raise ValueError(
            f"{layer} expected {argument} to be an int or {axes} of them, one for each axis, found {value!r}"
        )
    return tuple(size(layer, argument, item, least) for item in value)


def per_side(layer: str, value: object, axes: int) -> Pads:
    """For each axis, how much padding comes before and after it."""
    sides = list(value) if isinstance(value, Sequence) else [value] * axes
    pairs: list[Any] = [side if isinstance(side, Sequence) else (side, side) for side in sides]
    ints = all(isinstance(side, SupportsIndex) and index(side) >= 0 for pair in pairs for side in pair)
    if not ints or [len(pair) for pair in pairs] != [2] * axes:
        raise ValueError(
            f"{layer} expected padding to be a non-negative int, {axes} of them, one for each axis, or {axes} pairs of "
            f"them, before and after, found {value!r}"
        )
    return tuple((index(before), index(after)) for before, after in pairs)


def check_sample(layer: str, shape: tuple[int, ...], channels: int | None, axes: int) -> None:
    """Refuses what is not one sample with these channels and this number of spatial axes."""
    if len(shape) != axes + 1 or channels not in (None, shape[0]):
        wanted = ", ".join(["channels" if channels is None else str(channels), *[f"axis{n + 1}" for n in range(axes)]])
        raise ValueError(f"{layer} expected x of shape ({wanted}), one sample, found {shape}; map a batch with vmap")

"""The lanes of a `vmap`: which arrays are mapped, and a random key for every lane."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

import minipcax.functional._refusals as refusals
from minipcax.core import BaseParam, RKGState, tree_extract
from minipcax.core.tree import walk
from minipcax.functional._types import ARRAY_TYPES, Axes, Value


class Lanes:
    """The arrays over which a call maps, added one argument at a time."""

    def __init__(self) -> None:
        self._mapped: list[tuple[refusals.Name, Value, int]] = []

    def add(self, name: Callable[[], str], axes: Axes, value: Value) -> None:
        """Adds the mapped arrays of an argument or parameter, whose name is for messages."""
        pairs: list[tuple[Any, Value]] = []
        try:
            jax.tree.map(lambda axis, part: pairs.append((axis, part)), axes, value, is_leaf=lambda axis: axis is None)
        except ValueError as error:
            raise refusals.axes_do_not_fit(axes, name) from error
        for axis, part in pairs:
            refusals.check_is_axis(axis, "in_axes", name)
            if axis is not None:
                for array in jax.tree.leaves(part):
                    refusals.check_has_axis(axis, array, name)
                    self._mapped.append((name, array, axis))

    def count(self) -> int:
        """How many lanes there are."""
        refusals.check_lanes(self._mapped)
        _, array, axis = self._mapped[0]
        return int(np.shape(array)[axis])

    def spread(self, per_lane: Value, gather: bool = False) -> Value:
        """Shards an array over its axis of lanes as the mapped arrays are, or with `gather` replicates it.

        Only a mesh with `Explicit` axes needs it, where JAX does not move arrays by itself.
        """
        for _, array, axis in self._mapped:
            sharding = jax.typeof(array).sharding
            names = sharding.spec[axis] if len(sharding.mesh.axis_names) else None
            if names is not None:
                # While traced, an array knows the axes of its mesh but not the devices, without which no other moves.
                mesh = sharding.mesh if isinstance(array, Tracer) else array.sharding.mesh
                spec = PartitionSpec() if gather else PartitionSpec(names)  # type: ignore[no-untyped-call]  # jax
                return jax.sharding.reshard(per_lane, NamedSharding(mesh, spec))  # type: ignore[no-untyped-call]  # jax
        return per_lane


def split(key: Value, lanes: int) -> Value:
    """A key for each lane."""
    return jax.random.split(key, lanes + 1)[1:]


def generators(args: tuple[Any, ...]) -> tuple[RKGState, ...]:
    """The keys of random key generators that arguments hold, in order."""
    return tree_extract(args, filter_fn=lambda param: isinstance(param, RKGState))


def axes_of_params(what: str, axes: Axes, tree: Any) -> dict[int, Axes]:
    """The axis of each parameter in arguments or outputs, by its identity.

    Raises:
        ValueError: a parameter occurs with two axes.
    """
    found: dict[int, Axes] = {}

    def note(axis: Axes, part: Any) -> None:
        for _, node in [] if isinstance(part, ARRAY_TYPES) else walk(part):
            if isinstance(node, BaseParam) and found.setdefault(id(node), axis) != axis:
                raise refusals.two_axes(what, found[id(node)], axis, node)

    jax.tree.map(note, axes, tree, is_leaf=lambda axis: axis is None)
    return found

"""The parameters of value nodes: the state of one sample, and what was computed from it.

A cache notes something beside its entries. Notes are of an object alone: the copies that transforms work on have none.
"""

from typing import Any

import jax
import numpy as np

from minipcax.core import Param, ParamCache, ParamDict


class VodeParam(Param):
    """The state `h` of a value node. With `h.frozen = True` inference leaves it as it is (an observed node).

    Example:
        >>> Vode().h, Vode().cache
        (VodeParam(None), Cache(None))
    """

    __slots__ = ()

    class Cache(ParamDict, ParamCache):
        """What a node was given or has computed, by name: `u`, `E`, other activations."""

        __slots__ = ("_notes",)

        @property
        def notes(self) -> "Notes":
            """What is noted since the cache was last cleared."""
            if self.value is None or not hasattr(self, "_notes"):
                self._notes = Notes()
            return self._notes

        def __setitem__(self, key: str, value: object) -> None:
            self._notes = self.notes  # new ones, if this is the first entry
            super().__setitem__(key, value)

        def given(self) -> list[str]:
            """The names of the entries that were not computed from others."""
            computed = self.notes.computed
            return [name for name in self if not (name in computed and computed[name][0] is self[name])]

        def keep(self, name: str, value: object, sources: object) -> None:
            """Stores what was computed from these sources."""
            leaves, treedef = jax.tree.flatten(sources)
            self[name] = value
            self.notes.computed[name] = value, [_snapshot(leaf) for leaf in leaves], treedef

        def is_kept(self, name: str, sources: object) -> bool:
            """Whether what is stored was computed from these very sources."""
            if name not in self or name not in self.notes.computed:
                return False
            value, before, treedef_before = self.notes.computed[name]
            now, treedef = jax.tree.flatten(sources)
            return self[name] is value and treedef == treedef_before and all(map(_is_unchanged, before, now))


def _snapshot(leaf: object) -> object:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _is_unchanged(before: object, now: object) -> bool:  # arrays of numpy are compared, for they change in place
    if not (isinstance(before, np.ndarray) and isinstance(now, np.ndarray)):
        return before is now
    return before.dtype == now.dtype and np.array_equal(before, now)


class Notes:
    """What a cache notes beside its entries."""

    def __init__(self) -> None:
        self.computed: dict[str, tuple[object, list[object], Any]] = {}  # the value, and its sources, flattened
        self.predictions = 0  # how many arrived since the energy was last asked for
        self.asked: set[str] = set()  # names that were asked for

    def __reduce__(self) -> tuple[Any, ...]:  # a copy has computed nothing yet
        return Notes, ()

"""The parameters of value nodes: the state of one sample, and a cache of what was given or computed.

Beside its entries, a cache keeps notes about the present pass. They belong to one object, and are not copied to those
that transforms work on.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from minipcax.core import Param, ParamCache, ParamDict
from minipcax.predictive_coding._refusals import check_one_prediction

Snapshot = tuple[list[object], object]  # leaves and structure of a tree, as they were at one time


class VodeParam(Param):
    """The state `h` of a value node; otherwise like `Param`.

    Inference does not change it if `h.frozen = True`: the node is observed.

    Example:
        >>> Vode().h, Vode().cache
        (VodeParam(None), Cache(None))
    """

    __slots__ = ()

    class Cache(ParamDict, ParamCache):
        """A dict of what a node was given or has computed, by name: the prediction `u`, the energy `E`, and others."""

        __slots__ = ("_notes",)

        @property
        def notes(self) -> "Notes":
            """The notes taken since the cache was last cleared."""
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

        # Sources are any pytree, and the entry is what `compute` returns.
        def computed(self, name: str, sources: Callable[[], Any], compute: Callable[[], Any]) -> Any:
            """Returns the entry `name`; computes it only if there is none, or its sources have changed since."""
            value, before = self.notes.computed.get(name, (None, None))
            if before is not None and self.get(name) is value and _is_unchanged(before, sources()):
                return value
            (self.value or {}).pop(name, None)  # a stale entry is not a source of its replacement
            value = compute()
            if value is not None:
                snapshot = _snapshot(sources())
                self[name] = value
                self.notes.computed[name] = value, snapshot
            return value


def _snapshot(sources: object) -> Snapshot:
    leaves, structure = jax.tree.flatten(sources)
    return [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves], structure


def _is_unchanged(before: Snapshot, sources: object) -> bool:
    leaves, structure = jax.tree.flatten(sources)
    return structure == before[1] and all(map(_is_same, before[0], leaves))


def _is_same(before: object, now: object) -> bool:  # numpy arrays are compared by value, as they change in place
    if not (isinstance(before, np.ndarray) and isinstance(now, np.ndarray)):
        return before is now
    return before.dtype == now.dtype and np.array_equal(before, now)


class Notes:
    """The bookkeeping of a cache."""

    def __init__(self) -> None:
        self.computed: dict[str, tuple[object, Snapshot]] = {}  # by name: the value, and its sources
        self.predictions = 0  # how many arrived since the energy was last computed
        self.asked: set[str] = set()  # the names that were read

    def check_predictions(self) -> None:
        """Raises if the node was called more than once in a pass."""
        check_one_prediction(self.predictions)

    def __reduce__(self) -> tuple[Any, ...]:  # a copy has computed nothing yet
        return Notes, ()

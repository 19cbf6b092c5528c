"""Optax's side of an optimiser: what its optimisers are, and the state that they keep.

Optax sees the parameters as a dict from path to array (see `_targets`), so whatever its state holds for one parameter
is in a dict under the path of that parameter. `carried` relies on that.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, register_dataclass, tree_leaves_with_path, tree_map_with_path

from minipcax.core.tree import path_name, walk
from minipcax.utils._targets import Targets, frozen_layers

PyTree = Any  # parameters, updates or the state of an optimiser: each optimiser has its own


@runtime_checkable
class Optimiser(Protocol):
    """An optimiser of optax: a `GradientTransformation`, or an `optax.MultiSteps`, which is another class."""

    def init(self, params: PyTree, /) -> PyTree:
        """Returns the state for these parameters."""
        ...

    def update(self, updates: PyTree, state: PyTree, params: PyTree = None, /) -> tuple[PyTree, PyTree]:
        """Returns the updates and the next state."""
        ...


OptaxFn = Optimiser | Callable[[], Optimiser]


def is_optimiser(candidate: object) -> bool:
    """Whether this is an optimiser of optax, and not a function or class that makes one."""
    return isinstance(candidate, Optimiser) and not isinstance(candidate, type)


@register_dataclass
@dataclass(frozen=True)
class OptaxState:
    """Optax's state, whose attributes and items it has; and, as structure, which parameters it is for."""

    optax: PyTree
    targets: tuple[str, ...] = field(metadata={"static": True})  # their paths
    shapes: tuple[str, ...] = field(metadata={"static": True})

    def __getattr__(self, name: str) -> Any:  # as optax has it
        if name == "optax" or name.startswith("__"):  # copying asks for these before there is a state
            raise AttributeError(name)
        return getattr(self.optax, name)

    def __getitem__(self, index: Any) -> Any:  # as optax has it
        return self.optax[index]

    def __repr__(self) -> str:
        kinds = dict.fromkeys(type(node).__name__ for _, node in walk(self.optax) if getattr(node, "_fields", ()))
        count = len(self.targets)
        return f"{', '.join(kinds) or 'no moments'} for {count} parameter{'s' * (count != 1)}"


def first_mixed(state: PyTree, targets: Iterable[str]) -> str | None:
    """Returns the path of an array of numbers that belong to no single parameter, such as those of past steps of
    L-BFGS; random keys, which are integers, belong to none either, but fit any.
    """
    targets = {*targets}
    for path, leaf in tree_leaves_with_path(state):
        of_one = any(isinstance(key, DictKey) and key.key in targets for key in path)
        if not of_one and jnp.ndim(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            return path_name(path)
    return None


def carried(old: OptaxState, new: PyTree, targets: Iterable[str], former: Mapping[str, str]) -> PyTree:
    """The new state, with what the old one holds for the parameters that it knew, by their former paths.

    Raises:
        ValueError: the state holds an array that mixes all parameters.
    """
    known, targets = dict(tree_leaves_with_path(old.optax)), {*targets}
    are_the_same = {*former.values()} == {*old.targets} and {*former} == targets
    mixed = None if are_the_same else first_mixed(old.optax, old.targets)
    if mixed is not None:
        raise _mixes(mixed)

    def carry(path: tuple[Any, ...], leaf: Any) -> Any:
        is_target = [isinstance(key, DictKey) and key.key in targets for key in path]
        keys = [*zip(path, is_target, strict=True)]
        if any(renamed and key.key not in former for key, renamed in keys):
            return leaf  # a parameter that is new
        held = known.get(tuple(DictKey(former[key.key]) if renamed else key for key, renamed in keys))
        if held is None:
            return leaf
        if (jnp.shape(held), jnp.result_type(held)) == (jnp.shape(leaf), jnp.result_type(leaf)):
            return held
        if any(is_target):
            return leaf
        raise _mixes(path_name(path))

    return tree_map_with_path(carry, new)


def _mixes(name: str) -> ValueError:
    return ValueError(
        f"Optim.retarget expected a state that is kept for each parameter, but {name} in optax's mixes them: call init "
        "to start anew"
    )


def restarted(state: PyTree, first: PyTree, params: Targets) -> PyTree:
    """Returns the state with the frozen layers of a `Stack` as they are in `first`, the state of a new optimiser."""

    def restart(path: tuple[Any, ...], leaf: Any, new: Any) -> Any:
        for key in path:
            param = params.get(key.key) if isinstance(key, DictKey) else None
            frozen = frozen_layers(param)
            if param is not None and frozen and jnp.shape(leaf) in map(jnp.shape, jax.tree.leaves(param.value)):
                return leaf.at[jnp.array(frozen)].set(new[jnp.array(frozen)])
        return leaf

    return tree_map_with_path(restart, state, first)

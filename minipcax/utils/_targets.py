"""What optax sees of a model: a dict from path to array, `{".layers[0].nn.weight": ...}`, of what is to be optimised.

A shared parameter is in it once, and nothing of the model's own structure gets into the optimiser's state, in which
whatever belongs to a parameter therefore stands in a dict under its path. That is what `carried` relies on.
"""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, register_dataclass, tree_leaves_with_path, tree_map_with_path
from numpy.typing import NDArray

from minipcax.core import BaseModule, BaseParam, DynamicParam, tree_ref
from minipcax.core.tree import is_param, path_name, walk

Tree = object  # a model, or any pytree of models and parameters
# The same tree with gradients, or None, in the places of its parameters.
Gradients = BaseModule | BaseParam[Any] | dict[Any, Any] | list[Any] | tuple[Any, ...] | None
Targets = dict[str, DynamicParam[Any]]
Scale = float | np.number[Any] | NDArray[Any] | jax.Array  # a number, of any type


def by_path(tree: Tree) -> Targets:
    """The dynamic parameters of a tree, each once, by path."""
    nodes = tree_leaves_with_path(tree_ref(tree), is_leaf=is_param)
    return {path_name(path): node for path, node in nodes if isinstance(node, DynamicParam)}


def shapes_of(values: Iterable[Any]) -> tuple[str, ...]:
    """What the values look like, for comparing them and for messages."""
    return tuple(str(jax.tree.map(jnp.shape, value)) for value in values)


@register_dataclass
@dataclass(frozen=True)
class OptaxState:
    """Optax's state, which its attributes and items are; and, as structure, the parameters that it is for."""

    optax: Any  # each optimiser has its own
    targets: tuple[str, ...] = field(metadata={"static": True})  # their paths
    shapes: tuple[str, ...] = field(metadata={"static": True})

    def __getattr__(self, name: str) -> Any:
        if name == "optax" or name.startswith("__"):  # copying asks for these before there is a state
            raise AttributeError(name)
        return getattr(self.optax, name)

    def __getitem__(self, index: Any) -> Any:
        return self.optax[index]

    def __repr__(self) -> str:
        kinds = dict.fromkeys(type(node).__name__ for _, node in walk(self.optax) if getattr(node, "_fields", ()))
        count = len(self.targets)
        return f"{', '.join(kinds) or 'no moments'} for {count} parameter{'s' * (count != 1)}"


class Origin:
    """Which parameters an optimiser was started with, so that they are known again where their paths have changed.

    An attribute of the optimiser, and so part of its structure, in which all origins are the same: none retraces.
    """

    def __init__(self, owner: object = None, targets: Targets = {}) -> None:
        self._owner = None if owner is None else weakref.ref(owner)
        self._params = {path: weakref.ref(param) for path, param in targets.items()}

    def former_paths(self, owner: object, paths: tuple[str, ...], targets: Targets) -> dict[str, str]:
        """Under which of the former paths each target was; those that are new are left out.

        In a copy of the optimiser, such as in a transform, parameters are copies too: there a path is all there is.
        """
        if self._owner is None or self._owner() is not owner or (*self._params,) != paths:
            return {path: path for path in targets if path in paths}
        present = {id(param): path for path, reference in self._params.items() if (param := reference()) is not None}
        return {path: present[id(param)] for path, param in targets.items() if id(param) in present}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return hash(Origin)

    def __reduce__(self) -> tuple[type["Origin"], tuple[()]]:
        return Origin, ()  # the parameters that a copy is for are others


def carried(old: Any, new: Any, targets: Iterable[str], former: Mapping[str, str]) -> Any:
    """A new state of optax with what the old one holds for the parameters that it knew, by their former paths.

    Raises:
        ValueError: the state holds an array that is made of all parameters.
    """
    known, targets = dict(tree_leaves_with_path(old)), {*targets}

    def carry(path: tuple[Any, ...], leaf: Any) -> Any:
        places = [index for index, key in enumerate(path) if isinstance(key, DictKey) and key.key in targets]
        if any(path[index].key not in former for index in places):
            return leaf
        held = known.get(tuple(DictKey(former[key.key]) if n in places else key for n, key in enumerate(path)))
        if held is None:
            return leaf
        if (jnp.shape(held), jnp.result_type(held)) == (jnp.shape(leaf), jnp.result_type(leaf)):
            return held
        if places:
            return leaf
        raise ValueError(
            f"Optim.retarget expected a state that is kept for each parameter, but {path_name(path)} in optax's mixes "
            f"them: it would change its shape from {jnp.shape(held)} to {jnp.shape(leaf)}; call init to start anew"
        )

    return tree_map_with_path(carry, new)

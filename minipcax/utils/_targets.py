"""What optax sees of a model: a dict from path to array, `{".layers[0].nn.weight": ...}`, of what is to be optimised.

A shared parameter is in it once, and nothing of the model's own structure gets into the optimiser's state.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves_with_path
from numpy.typing import NDArray

from minipcax.core import BaseModule, BaseParam, DynamicParam, tree_ref
from minipcax.core.tree import is_param, path_name

Tree = object  # a model, or any pytree of models and parameters
# The same tree with gradients, or None, in the places of its parameters.
Gradients = BaseModule | BaseParam[Any] | dict[Any, Any] | list[Any] | tuple[Any, ...] | None
Targets = dict[str, DynamicParam[Any]]
Scale = float | np.number[Any] | NDArray[Any] | jax.Array  # a number, of any type


def by_path(tree: Tree) -> Targets:
    """The dynamic parameters of a tree, each once, by path."""
    nodes = tree_leaves_with_path(tree_ref(tree), is_leaf=is_param)
    return {path_name(path): node for path, node in nodes if isinstance(node, DynamicParam)}


def filled(grads: Gradients) -> Targets:
    """The parameters in a tree of gradients that hold one, by path."""
    return {path: grad for path, grad in by_path(grads).items() if grad.value is not None}


def shapes_of(values: Iterable[Any]) -> tuple[str, ...]:
    """The shapes of values, which may be trees, in a form to be compared and shown."""
    return tuple(str(jax.tree.map(jnp.shape, value)) for value in values)


class Origin:
    """The parameters that an optimiser was started with, to recognise them when their paths have changed.

    It is an attribute of the optimiser, and so part of its structure. All origins are equal there, so none retraces.
    """

    def __init__(self, owner: object = None, targets: Targets = {}) -> None:
        self._owner = None if owner is None else weakref.ref(owner)
        self._params = {path: weakref.ref(param) for path, param in targets.items()}

    def former_paths(self, owner: object, paths: tuple[str, ...], targets: Targets) -> dict[str, str]:
        """The former path of each target, without those that are new.

        In a copy of the optimiser, such as in a transform, the parameters are copies too, and only paths tell them
        apart.
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
        return Origin, ()  # a copy of the optimiser is for other parameters


def frozen_layers(param: DynamicParam[Any] | None) -> tuple[int, ...]:
    """The numbers of the layers of a `Stack` that are frozen in a parameter, see `Stack.freeze_only`."""
    frozen: tuple[int, ...] = () if param is None else vars(param).get("frozen_layers", ())
    return frozen


def without_frozen_layers(param: DynamicParam[Any], change: Any) -> Any:
    """A gradient or an update of a parameter, with zeros for those layers of a `Stack` that are frozen."""
    frozen = frozen_layers(param)
    return jax.tree.map(lambda array: array.at[jnp.array(frozen)].set(0), change) if frozen else change

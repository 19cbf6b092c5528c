"""Checks that the optimisers were given the parameters that should be learned."""

import warnings
from types import UnionType
from typing import Any

import jax
import jax.numpy as jnp

from minipcax.core import BaseModule, Param, get
from minipcax.core.refusals import kind_of, path_to_param
from minipcax.core.surroundings import held_by
from minipcax.core.tree import is_param, path_name, paths_of_params
from minipcax.learning._model import WEIGHTS, Model, vodes
from minipcax.learning._solver import Solver
from minipcax.nn import LayerParam
from minipcax.utils import Optim, OptimTree

INITIALISE = "Optim(optax_fn, WEIGHTS(model)), or weights.init(WEIGHTS(model))"


def check_kinds(nodes: Optim | Solver, weights: Optim) -> None:
    """Raises unless there are two different `Optim`s, or a `Solver` and an `Optim`."""
    if nodes is weights:
        raise ValueError("nodes and weights are the same optimiser, which has only one state: give each its own")
    check_kind("nodes", nodes, Optim | Solver)
    check_kind("weights", weights, Optim)


def check_kind(name: str, optim: object, kinds: type | UnionType) -> None:
    """Raises unless an optimiser, or what is given as one, is of one of these kinds."""
    if not isinstance(optim, kinds):
        write = "write Optim(optax.sgd(...))"
        if isinstance(optim, OptimTree):
            write = "write Optim(optax.multi_transform(...)) for rates by layer; learn takes an OptimTree"
        raise TypeError(f"{name} expected an Optim, found {kind_of(optim)}: {write}")


def check_no_solver(optim: Optim | Solver, name: str) -> None:
    """Raises if it is a solver."""
    if isinstance(optim, Solver):
        raise TypeError(
            f"{name} moves states step by step, which takes an optimiser of the nodes, Optim(optax.sgd(...)), found "
            f"{kind_of(optim)}: use PC or EPC with it"
        )


def check_nodes(optim: Optim, model: Model, name: str) -> None:
    """Raises if the optimiser is one of weights, which would start anew and lose its state."""
    of_weights = _paths(model, LayerParam)
    wrong = [path for path in _targets(optim) if path in of_weights]
    if wrong:
        raise ValueError(
            f"{name} expected the optimiser of the states, found that of weights ({', '.join(wrong)}): are nodes and "
            "weights swapped? That of the nodes is given nothing, Optim(optax_fn)"
        )


def check_weights(optim: Optim | OptimTree, model: Model, name: str) -> None:
    """Raises unless the optimiser was given exactly the parameters that `WEIGHTS(model)` selects."""
    if optim.state.get() is None:
        raise ValueError(f"{name} expected an optimiser initialised with the weights, found none: write {INITIALISE}")
    known, selected, targets = _paths(model), _paths(WEIGHTS(model)), _targets(optim)
    foreign = [path for path in targets if path not in known]
    if foreign and len(foreign) == len(targets):
        raise ValueError(
            f"{name} expected an optimiser of this model's weights, found one of {', '.join(foreign)}: each model, "
            f"even if it shares layers with another, has an optimiser of its own: {INITIALISE}"
        )
    mistakes = {
        "would not learn, as the optimiser was not given it": [path for path in selected if path not in targets],
        "is frozen or not a LayerParam, but the optimiser was given it": [
            path for path in targets if path not in selected and path not in foreign
        ],
        "is not in the model any more": foreign,
    }
    found = [f"{', '.join(paths)} {mistake}" for mistake, paths in mistakes.items() if paths]
    if found:
        raise ValueError(
            f"{name} expected an optimiser of what WEIGHTS(model) selects, found that {'; '.join(found)}: call "
            f"{name}.retarget(WEIGHTS(model)), which keeps the state of the others, or {name}.init(WEIGHTS(model)), "
            "which starts anew; set frozen = True on what should not learn"
        )


def _targets(optim: Any) -> list[str]:  # an Optim, or an OptimTree, which has one for each node
    state = optim.state.get()
    if isinstance(state, dict):
        return [path + target for path, each in state.items() for target in _targets(each)]
    return [] if state is None else [*state.targets]


def _paths(tree: object, kind: type = object) -> list[str]:
    return [paths[0] for param, paths in paths_of_params(tree) if isinstance(param, kind)]


def warn_of_unlearned(model: Model, influential: frozenset[str]) -> None:
    """Warns of bare arrays and plain `Param`s, which look like weights, among the leaves that make predictions."""
    for path, node in jax.tree_util.tree_leaves_with_path(model, is_leaf=is_param):
        name = path_name(path)
        plain = type(node) is Param and not node.frozen
        bare = isinstance(node, jax.Array) and not node.aval.weak_type  # numbers are weak
        value = get(node)
        if (plain or bare) and _is_inexact(value) and any(f"{found}.".startswith(f"{name}.") for found in influential):
            warnings.warn(
                f"{name} takes part in the prediction, but is {'a plain Param' if plain else 'a bare array'}, which no "
                "algorithm learns: make it a LayerParam to learn it, or a LayerState to keep it as it is",
                stacklevel=2,
            )
    for name, vode in vodes(model).items():
        tforms = [tform for rule in (*vode.ruleset.inputs, *vode.ruleset.outputs) for tform in rule.tforms]
        for what, fn in [("the energy function", vode.energy_fn), *(("a transformation", tform) for tform in tforms)]:
            around = [held for held in held_by(fn) if isinstance(held, (BaseModule, LayerParam))]
            if any(path_to_param(held) is not None for held in around):  # dropout has none
                warnings.warn(
                    f"{what} of {name} reads parameters from around it, which are compiled as they are now and never "
                    "learn: make them attributes of the node, which it is given",
                    stacklevel=2,
                )


def _is_inexact(value: object) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.inexact)

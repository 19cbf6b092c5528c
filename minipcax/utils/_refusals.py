"""Checks of optimisers, and their error messages."""

import inspect
import warnings
from collections.abc import Collection, Iterable
from types import FunctionType

import jax
import jax.numpy as jnp
import numpy as np

from minipcax.core import BaseModule, BaseParam, DynamicParam, get
from minipcax.core.filter import Filter, as_predicate
from minipcax.core.reach import closure, reach
from minipcax.core.refusals import kind_of
from minipcax.core.surroundings import surroundings
from minipcax.core.tree import is_param, path_name, paths_of_params
from minipcax.utils._optax import OptaxState, is_optimiser
from minipcax.utils._targets import Gradients, Targets, Tree, by_path, filled, shapes_of


def names(paths: Iterable[str]) -> str:
    """Paths in a message: the first four, and how many more there are."""
    first, rest = [*paths][:4], [*paths][4:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")


def check_optimiser(candidate: object, name: str, made: bool = False) -> None:
    """Raises unless it is an optimiser or, before it was `made`, a function that can be called to make one."""
    if is_optimiser(candidate):
        return
    expected = f"{name} expected an optax optimiser, or a function that returns one, found"
    if made or not callable(candidate):
        raise TypeError(f"{expected} {candidate!r}: write optax.sgd(0.1), for example")
    try:
        inspect.signature(candidate).bind()
    except TypeError as error:
        function = getattr(candidate, "__name__", repr(candidate))
        raise TypeError(f"{expected} {function}, {error}: call it, as in optax.sgd(0.1)") from error
    except ValueError:  # it has no signature
        return


def warn_of_reads(optax_fn: object, name: str) -> None:
    """Warns of parameters that a function of the optimiser, such as a schedule, reads from around it."""
    found = list[str]()

    def reads(node: object) -> bool:
        if isinstance(node, FunctionType):
            found.extend(key for key, value in _around(node).items() if _holds_learned(value))
        return bool(found)

    if reach(optax_fn, reads) is not None:
        warnings.warn(
            f"{name}: the optimiser reads parameters from around it, in {names(found)}, which are compiled as they are "
            "now, once and for all: for a rate that changes use a schedule, or optax.inject_hyperparams, which keeps "
            "it in optim.state.get().hyperparams; what is not to change is frozen",
            stacklevel=3,
        )


def _around(fn: FunctionType) -> dict[str, object]:
    is_users = fn.__module__ is None or fn.__module__.partition(".")[0] not in ("optax", "jax", "minipcax")
    return surroundings(fn) if is_users else closure(fn)


def _holds_learned(value: object) -> bool:
    def is_learned(node: object) -> bool:
        return isinstance(node, DynamicParam) and not node.is_carried and not getattr(node, "frozen", False)

    return not isinstance(value, FunctionType) and reach(value, is_learned, closures=False) is not None


def check_parameters(parameters: Tree, targets: Targets, name: str) -> None:
    """Raises unless an optimiser can start with these: a tree of parameters, none of which is cleared."""
    leaves = jax.tree.leaves(parameters, is_leaf=is_param)
    # A model may hold bare arrays beside its parameters.
    fitting = (BaseParam, jax.Array, np.ndarray) if any(map(is_param, leaves)) else BaseParam
    others = [f"{kind_of(leaf)} in it" for leaf in leaves if not isinstance(leaf, fitting)]
    if parameters is None or others:
        found = "None" if parameters is None else others[0]
        raise TypeError(f"{name} expected a tree of parameters, such as M(LayerParam)(model), found {found}")
    for path, param in targets.items():
        if param.get() is None:
            raise ValueError(
                f"{name} expected {path} to have a value, but it is cleared: set it first (a node's state by "
                "initialising the nodes), or select other parameters with M"
            )


def check_known(former: Collection[str], paths: Collection[str], targets: Collection[str]) -> None:
    """Raises if a model has none of the parameters that an optimiser is for, though it has their paths."""
    same = [path for path in targets if path in paths]
    if same and not former:
        raise ValueError(
            f"retarget expected some of the parameters that the optimiser is for, found others under their paths, "
            f"{names(same)}: those of a copy of the model, or of layers that were all replaced; call init to start anew"
        )


def checked_step(
    module: Tree, grads: Gradients, state: OptaxState | None, scale_by: object, allow_none: bool
) -> tuple[Targets, Targets]:
    """Returns the parameters and the gradients, by path; raises unless they are what `init` was given, and complete."""
    params, gradients = by_path(module), filled(grads)
    if state is None:
        raise not_initialised("Optim.step", gradients)
    check_model(module, params, state)
    check_once("Optim.step", module, gradients, state.targets)
    check_gradients("Optim.step", grads, gradients, state.targets)
    missing = [path for path in state.targets if path not in gradients]
    if not missing:
        check_shapes(params, gradients, state)
        if scale_by is not None:
            check_scale(scale_by)
    elif not allow_none:
        raise missing_gradients(missing, gradients, state.targets)
    return params, gradients


def not_initialised(name: str, gradients: Targets) -> ValueError:
    """The error for an optimiser that does not know what it is for."""
    return ValueError(
        f"{name} expected an initialised optimiser: call init with the parameters to optimise first, such as "
        f"M(LayerParam)(model); found gradients for {names(gradients) or 'nothing'}"
    )


def check_model(module: Tree, params: Targets, state: OptaxState) -> None:
    """Raises if the model lacks a parameter that `init` was given."""
    lacking = [path for path in state.targets if path not in params]
    if lacking:
        tied = {path: paths[0] for _, paths in paths_of_params(module) for path in paths[1:]}
        now = [f"{path} is now {tied[path]}" for path in lacking if path in tied]
        others = [path for path in params if path not in state.targets]
        raise ValueError(
            f"Optim.step expected the model that init was given, but it has no parameter {names(lacking)}; found "
            f"instead {names(now) or names(others) or 'none'}; after a change of the model, call retarget"
        )


def check_once(name: str, module: Tree, gradients: Targets, targets: Iterable[str]) -> None:
    """Raises if a shared parameter has a gradient at another path than its first, where the sum over its uses is."""
    targets = {*targets}
    for _, (first, *others) in paths_of_params(module):
        if first in targets and not gradients.keys().isdisjoint(others):
            found = [path for path in (first, *others) if path in gradients]
            raise ValueError(
                f"{name} expected one gradient for the parameter {first}, which is also {names(others)}: the sum over "
                f"its uses, at the first path; found one at {' and one at '.join(found)}; functional.grad gives it"
            )


def check_gradients(
    name: str, grads: Gradients, gradients: Targets, targets: Iterable[str], needed: bool = False
) -> None:
    """Raises if gradients are bare arrays, or those of all keywords, or, with `needed`, if none is of a target."""
    targets, leaves = [*targets], jax.tree.leaves(grads, is_leaf=is_param)
    if leaves and not any(map(is_param, leaves)):
        raise TypeError(
            f"{name} expected gradients in parameters, in the places of the model's, as functional.grad gives them, "
            f"found {kind_of(leaves[0])} in their place"
        )
    bare = [
        path_name(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads, is_leaf=is_param)
        if isinstance(leaf, jax.Array) and leaf.ndim and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if bare:
        warnings.warn(
            f"{name} was given gradients of bare arrays, {names(bare)}, which no optimiser changes: make them Params, "
            "or select what is differentiated with a mask, such as M(LayerParam)",
            stacklevel=4,
        )
    if not gradients or not targets or not gradients.keys().isdisjoint(targets):
        return
    for above in [path.removesuffix(targets[0]) for path in gradients if path.endswith(targets[0])]:
        if gradients.keys() >= {above + path for path in targets}:
            raise ValueError(
                f"{name} expected the gradients of one model, found those of all keywords: give it grads{above}"
            )
    if needed:
        raise ValueError(
            f"{name} expected gradients of what init was given, {names(targets)}; found those of {names(gradients)}: "
            "is it the right optimiser? To change what it is for, call retarget"
        )


def missing_gradients(missing: list[str], gradients: Targets, targets: tuple[str, ...]) -> ValueError:
    """The error for targets without a gradient."""
    advice = "differentiate it, leave it out of init, or pass allow_none=True to skip the step"
    if gradients and gradients.keys().isdisjoint(targets):
        whose = f"is for {names(targets)}, and was given the gradients of {names(gradients)}"
        advice = f"this optimiser {whose}: is it the right one? Otherwise {advice}"
    expected = "expected one for every parameter that init was given"
    return ValueError(f"Optim.step found no gradient for {names(missing)}: {expected}; {advice}")


def check_shapes(params: Targets, gradients: Targets, state: OptaxState) -> None:
    """Raises if the gradients have other shapes than the parameters."""
    values, grads = (shapes_of(tree[path].get() for path in state.targets) for tree in (params, gradients))
    differ = differences(state.targets, "parameter", values, "gradient", grads)
    if differ:
        raise ValueError(f"Optim.step expected gradients of the parameters' shapes, found {differ}")


def check_scale(scale_by: object) -> None:
    """Raises if the scale is not one number: an array would be broadcast to the gradients."""
    value, numbers = get(scale_by), (int, float, np.generic, np.ndarray, jax.Array)
    if isinstance(value, bool) or not isinstance(value, numbers) or jnp.shape(value) != ():
        is_array = isinstance(value, np.ndarray | jax.Array)
        found = f"an array of shape {value.shape}" if is_array else kind_of(value)
        raise ValueError(f"Optim.step expected scale_by to be one number, found {found}")


def differences(targets: Iterable[str], first: str, one: Iterable[str], second: str, other: Iterable[str]) -> str:
    """The targets whose shapes differ, with both shapes."""
    pairs = zip(targets, one, other, strict=True)
    return ", ".join(f"{path} ({first} {a}, {second} {b})" for path, a, b in pairs if a != b)


def check_leaf_fn(leaf_fn: Filter) -> None:
    """Raises unless it is a filter of nodes."""
    if isinstance(leaf_fn, BaseModule):
        raise TypeError(
            f"OptimTree expected leaf_fn to be a class of modules or a predicate, found {kind_of(leaf_fn)}: "
            "write OptimTree(optax_fn, Linear, parameters)"
        )
    as_predicate(leaf_fn)  # raises as well


def check_selection(nodes: Collection[str], leaf_fn: object) -> None:
    """Raises if the filter of nodes selects none."""
    if not nodes:
        raise ValueError(
            f"OptimTree expected leaf_fn to select nodes of the model, but {leaf_fn!r} selects none: give the class of "
            "its layers, such as Linear, or a predicate that is true of them"
        )


def check_nodes(optims: Iterable[str], nodes: Iterable[str]) -> None:
    """Raises if the model lacks a node that `OptimTree.init` was given."""
    lacking = [path for path in optims if path not in nodes]
    if lacking:
        raise ValueError(
            f"OptimTree.step expected the model that init was given, but it has no node {names(lacking)}; after a "
            "change of the model, call retarget"
        )

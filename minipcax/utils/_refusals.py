"""What optimisers refuse, and the words for it."""

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from minipcax.core import BaseModule, BaseParam, get
from minipcax.core.refusals import kind_of
from minipcax.core.tree import is_param, paths_of_params
from minipcax.utils._targets import Gradients, OptaxState, Targets, Tree, shapes_of


@runtime_checkable
class Optimiser(Protocol):
    """What optax's optimisers are, `optax.MultiSteps` too, which is of another class."""

    def init(self, params: Any, /) -> Any:  # any pytree
        """The state, for these parameters."""
        ...

    def update(self, updates: Any, state: Any, params: Any = None, /) -> tuple[Any, Any]:  # the same
        """The updates, and the next state."""
        ...


OptaxFn = Optimiser | Callable[[], Optimiser]


def is_optimiser(candidate: object) -> bool:
    """Whether this is an optimiser of optax, and not a function or class that makes one."""
    methods = (getattr(candidate, name, None) for name in ("init", "update"))
    return not isinstance(candidate, type) and all(map(callable, methods))


def check_optimiser(candidate: object, name: str, made: bool = False) -> None:
    """Refuses what is no optimiser and, unless it was `made` by a function, no function that may return one."""
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


def names(paths: Iterable[str]) -> str:
    """Paths in a message, the first few of them."""
    first, rest = [*paths][:4], [*paths][4:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")


def check_parameters(parameters: Tree, targets: Targets, name: str) -> None:
    """Refuses to start with what is no tree of parameters, or with cleared ones."""
    if parameters is None:
        raise TypeError(f"{name} expected a tree of parameters, such as M(LayerParam)(model), found None")
    leaves = jax.tree.leaves(parameters, is_leaf=is_param)
    # A model may hold bare arrays beside its parameters.
    fitting = (BaseParam, jax.Array, np.ndarray) if any(map(is_param, leaves)) else BaseParam
    for leaf in leaves:
        if not isinstance(leaf, fitting):
            found = f"{kind_of(leaf)} in it"
            raise TypeError(f"{name} expected a tree of parameters, such as M(LayerParam)(model), found {found}")
    for path, param in targets.items():
        if param.get() is None:
            raise ValueError(
                f"{name} expected {path} to have a value, but it is cleared: set it first (a node's state by "
                "initialising the nodes), or select other parameters with M"
            )


def check_known(former: Collection[str], paths: Collection[str], targets: Collection[str]) -> None:
    """Refuses to go on with a model that is another one, though it looks the same."""
    same = [path for path in targets if path in paths]
    if same and not former:
        raise ValueError(
            f"retarget expected some of the parameters that the optimiser is for, found others under their paths, "
            f"{names(same)}: those of a copy of the model, or of layers that were all replaced; call init to start anew"
        )


def no_labels(name: str, targets: Iterable[str], error: Exception) -> ValueError:
    """What optax's refusal to start means, where it comes from labels or a mask that are not by path."""
    first = next(iter(targets), ".layer.weight")
    reason = str(error).strip().partition("\n")[0]
    return ValueError(
        f"{name}: optax could not start on a dict from path to array, {{{first!r}: ..., }}; its labels and masks are "
        'by path, not a masked model: write a function, such as lambda params: {path: "fast" if '
        f'path.endswith("bias") else "slow" for path in params}}; optax says: {reason}'
    )


def not_initialised(name: str, gradients: Targets) -> ValueError:
    """For an optimiser that does not know what it is for."""
    return ValueError(
        f"{name} expected an initialised optimiser: call init with the parameters to optimise first, such as "
        f"M(LayerParam)(model); found gradients for {names(_given(gradients)) or 'nothing'}"
    )


def check_model(module: Tree, params: Targets, state: OptaxState) -> None:
    """Refuses a model that lacks what `init` was given."""
    lacking = [path for path in state.targets if path not in params]
    if lacking:
        tied = {path: paths[0] for _, paths in paths_of_params(module) for path in paths[1:]}
        now = [f"{path} is now {tied[path]}" for path in lacking if path in tied]
        others = [path for path in params if path not in state.targets]
        raise ValueError(
            f"Optim.step expected the model that init was given, but it has no parameter {names(lacking)}; found "
            f"instead {names(now) or names(others) or 'none'}; after a change of the model, call retarget"
        )


def check_gradients(
    name: str, grads: Gradients, gradients: Targets, targets: Iterable[str], needed: bool = False
) -> None:
    """Refuses gradients of all keywords and, where some are `needed`, those of other parameters alone."""
    given, targets = {*_given(gradients)}, [*targets]
    leaves = jax.tree.leaves(grads, is_leaf=is_param)
    if leaves and not any(map(is_param, leaves)):
        raise TypeError(
            f"{name} expected gradients in parameters, in the places of the model's, as functional.grad gives them, "
            f"found {kind_of(leaves[0])} in their place"
        )
    if not given or not targets or not given.isdisjoint(targets):
        return
    for above in [path.removesuffix(targets[0]) for path in given if path.endswith(targets[0])]:
        if given >= {above + path for path in targets}:
            raise ValueError(
                f"{name} expected the gradients of one model, found those of all keywords: give it grads{above}"
            )
    if needed:
        raise ValueError(
            f"{name} expected gradients of what init was given, {names(targets)}; found those of {names(given)}: is it "
            "the right optimiser? To change what it is for, call retarget"
        )


def missing_gradients(missing: list[str], gradients: Targets, targets: tuple[str, ...]) -> ValueError:
    """For targets without a gradient."""
    others = [] if {*gradients} & {*targets} else _given(gradients)
    whose = (
        f"this optimiser is for {names(targets)}, and was given the gradients of {names(others)}: is it the right one? "
    )
    return ValueError(
        f"Optim.step found no gradient for {names(missing)}: expected one for every parameter that init was given; "
        f"{whose if others else ''}differentiate it, leave it out of init, or pass allow_none=True to skip the step"
    )


def check_once(name: str, module: Tree, gradients: Targets, targets: Iterable[str]) -> None:
    """Refuses gradients of a shared parameter other than the one, the sum over its uses, at its first path."""
    given, targets = {*_given(gradients)}, {*targets}
    for _, (first, *others) in paths_of_params(module):
        if first in targets and not given.isdisjoint(others):
            found = [path for path in (first, *others) if path in given]
            raise ValueError(
                f"{name} expected one gradient for the parameter {first}, which is also {names(others)}: the sum over "
                f"its uses, at the first path; found one at {' and one at '.join(found)}; functional.grad gives it"
            )


def check_scale(scale_by: Any) -> None:  # a number of any library
    """Refuses a scale that is not one number, and would be broadcast to the gradients."""
    value, numbers = get(scale_by), (int, float, np.generic, np.ndarray, jax.Array)
    if isinstance(value, bool) or not isinstance(value, numbers) or jnp.shape(value) != ():
        is_array = isinstance(value, np.ndarray | jax.Array)
        found = f"an array of shape {value.shape}" if is_array else kind_of(value)
        raise ValueError(f"Optim.step expected scale_by to be one number, found {found}")


def check_shapes(targets: Iterable[str], values: Iterable[Any], grads: Iterable[Any]) -> None:
    """Refuses gradients of other shapes than the parameters'."""
    differ = differences(targets, "parameter", shapes_of(values), "gradient", shapes_of(grads))
    if differ:
        raise ValueError(f"Optim.step expected gradients of the parameters' shapes, found {differ}")


def differences(targets: Iterable[str], first: str, one: Iterable[str], second: str, other: Iterable[str]) -> str:
    """The targets whose shapes differ, with both shapes."""
    pairs = zip(targets, one, other, strict=True)
    return ", ".join(f"{path} ({first} {a}, {second} {b})" for path, a, b in pairs if a != b)


def check_state(before: object, after: object) -> None:
    """Refuses an update that has broadcast what an optimiser remembers, for parameters of other shapes."""
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(state)] for state in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Optim.step found parameters of other shapes than init was given: its state had arrays of shapes "
            f"{shapes[0]}, and would have {shapes[1]}; call init"
        )


def check_nodes(optims: Iterable[str], nodes: Iterable[str]) -> None:
    """Refuses a model that lacks nodes which `OptimTree.init` was given."""
    lacking = [path for path in optims if path not in nodes]
    if lacking:
        raise ValueError(
            f"OptimTree.step expected the model that init was given, but it has no node {names(lacking)}; after a "
            "change of the model, call retarget"
        )


def check_leaf_fn(leaf_fn: object) -> None:
    """Refuses parameters in the place of the filter of nodes."""
    if isinstance(leaf_fn, BaseModule):
        raise TypeError(
            f"OptimTree expected leaf_fn to be a class of modules or a predicate, found {kind_of(leaf_fn)}: "
            "write OptimTree(optax_fn, Linear, parameters)"
        )


def check_selection(nodes: Collection[str], leaf_fn: object) -> None:
    """Refuses a filter of nodes that selects none."""
    if not nodes:
        raise ValueError(
            f"OptimTree expected leaf_fn to select nodes of the model, but {leaf_fn!r} selects none: give the class of "
            "its layers, such as Linear, or a predicate that is true of them"
        )


def _given(gradients: Targets) -> list[str]:
    return [path for path, grad in gradients.items() if grad.get() is not None]

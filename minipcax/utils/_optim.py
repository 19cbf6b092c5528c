"""Optimisers: optax, with its state in a parameter, so that transforms carry it along."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

import minipcax.utils._optax_refusals as optax_refusals
import minipcax.utils._refusals as refusals
from minipcax.core import BaseModule, DynamicParam, Param, tree_ref
from minipcax.core.tree import is_param, path_name
from minipcax.utils._line_search import Value, ValueFn, extra_arguments
from minipcax.utils._optax import OptaxFn, OptaxState, Optimiser, carried, is_optimiser, restarted
from minipcax.utils._targets import (
    Gradients,
    Origin,
    Scale,
    Tree,
    by_path,
    frozen_layers,
    shapes_of,
    without_frozen_layers,
)


class Optim(BaseModule, static=("optax_fn", "_origin")):
    """An optax optimiser of the parameters that are passed to `init`, with its state in the parameter `state`.

    Optax sees them as a dict from path to array. So the labels of `optax.multi_transform`, and masks, are functions of
    that dict: `lambda params: {path: "fast" if path.endswith("bias") else "slow" for path in params}`. A rate that
    changes is a schedule, or is set in `optim.state.get().hyperparams` with `optax.inject_hyperparams`; one that is
    read from a parameter would be compiled as it is, which is warned of.

    Args:
        optax_fn: an optax optimiser, such as `optax.adam(1e-3)`, or a function without arguments that returns one.
        parameters: the parameters to optimise, as for `init`; if `None`, call `init` later.

    Raises:
        TypeError: `optax_fn` is neither an optimiser nor such a function.

    Example:
        >>> w = Param(jnp.array(1.0))
        >>> optim = Optim(optax.sgd(0.1, momentum=0.9), [w])
        >>> _ = optim.step([w], [Param(jnp.array(2.0))])
        >>> w.item(), optim
        (0.800000011920929, Optim(TraceState for 1 parameter))
    """

    state: Param

    def __init__(self, optax_fn: OptaxFn, parameters: Tree | None = None) -> None:
        refusals.check_optimiser(optax_fn, "Optim")
        refusals.warn_of_reads(optax_fn, "Optim")
        self.optax_fn = optax_fn
        self._origin = Origin()
        self.state = Param(None)
        if parameters is not None:
            self.init(parameters)

    def init(self, parameters: Tree) -> None:
        """Creates a new state for these parameters.

        Args:
            parameters: a model, a masked model such as `M(LayerParam)(model)`, or any tree of parameters.

        Raises:
            TypeError: `parameters` is not a tree of parameters, or `optax_fn` does not return an optimiser.
            ValueError: a parameter is cleared, or optax raises an error.
        """
        self._start(parameters)

    def retarget(self, parameters: Tree) -> None:
        """Continues with these parameters: those it already optimises keep their state, new ones start from zero.

        Call it when a model changes during training: layers are frozen or unfrozen, added, inserted or untied, or a
        head is replaced. A parameter is recognised wherever it is now; inside a transform, and by a copy of the
        optimiser, it is recognised by its path. The state of parameters that are gone is dropped. Step counts, and so
        schedules and the bias correction of Adam, continue for all. Without a state, this is `init`.

        Args:
            parameters: as for `init`.

        Raises:
            TypeError: see `init`.
            ValueError: see `init`; or only the paths are known but none of the parameters, as in a copy of the model;
                or the state cannot be separated by parameter, as that of L-BFGS.

        Example:
            >>> old, new = Param(jnp.ones(1)), Param(jnp.ones(1))
            >>> optim = Optim(optax.sgd(0.1, momentum=0.9), [old])
            >>> _ = optim.step([old], [Param(jnp.ones(1))])
            >>> optim.retarget([new, old])
            >>> optim.state.get()[0].trace
            {'[0]': Array([0.], dtype=float32), '[1]': Array([1.], dtype=float32)}
        """
        state, targets = self.state.get(), by_path(parameters)
        if state is None:
            self.init(parameters)
            return
        former = self._origin.former_paths(self, state.targets, targets)
        refusals.check_known(former, state.targets, targets)
        self._start(parameters, former)

    def _start(self, parameters: Tree, former: Mapping[str, str] | None = None) -> None:
        """Makes the state for these parameters; keeps what there is under the former path of each, if given."""
        name = "Optim.init" if former is None else "Optim.retarget"
        targets = by_path(parameters)
        refusals.check_parameters(parameters, targets, name)
        values, optimiser = {path: param.value for path, param in targets.items()}, self._optax()
        with optax_refusals.starting(name, targets):
            state = optimiser.init(values)
        if former is not None and self.state.get() is not None:
            state = carried(self.state.get(), state, targets, former)
        self.state.set(OptaxState(state, tuple(targets), shapes_of(values.values())))
        self._origin = Origin(self, targets)

    def step(
        self,
        module: Tree,
        grads: Gradients,
        scale_by: Scale | None = None,
        apply_updates: bool = True,
        allow_none: bool = False,
        *,
        value: Value | None = None,
        value_fn: ValueFn | None = None,
    ) -> Any:  # the tree of gradients, with updates in their places
        """Updates the parameters that were passed to `init`.

        Some optimisers need more than the gradient: `optax.polyak_sgd` and `optax.contrib.reduce_on_plateau` need
        `value`, and those with a line search, such as `optax.lbfgs`, need `value` and `value_fn`. The algorithms of
        `minipcax.learning` pass both to the optimisers of states and of weights.

        Args:
            module: the whole model.
            grads: its gradients, as `value_and_grad` returns them; those of other parameters are ignored.
            scale_by: a number that multiplies the gradients (and `value`).
            apply_updates: whether to change the parameters; if `False`, only returns the updates.
            allow_none: whether to do nothing if a gradient is missing, instead of raising.
            value: the loss, a scalar, whose gradients are given.
            value_fn: a function from the model to the loss. It is called with copies of `module` that have other values
                of the parameters, and draws the same random numbers in every call.

        Returns:
            The tree of gradients with the updates in their places; `None` if nothing was done.

        Raises:
            ValueError: `init` was not called, or was called for parameters of other paths or shapes; a gradient is
                missing; a shared parameter has two; or `scale_by` or `value` is not one number.
            TypeError: the gradients are bare arrays; or the optimiser needs `value` or `value_fn`.
        """
        state = self.state.get()
        params, gradients = refusals.checked_step(module, grads, state, scale_by, allow_none)
        if not gradients.keys() >= {*state.targets}:
            return None
        values, scaled = ({path: tree[path].value for path in state.targets} for tree in (params, gradients))
        scaled = {path: without_frozen_layers(params[path], grad) for path, grad in scaled.items()}
        if scale_by is not None:
            scaled = jax.tree.map(lambda grad: jnp.asarray(grad * scale_by, jnp.result_type(grad)), scaled)

        if any(map(frozen_layers, params.values())):
            optax_refusals.check_apart(state)
        optimiser = self._optax()
        extra = extra_arguments(optimiser, module, scaled, scale_by, value, value_fn)
        with optax_refusals.updating(state, values):
            update: Any = optimiser.update  # which takes extra arguments if there are any
            updates, optax_state = update(scaled, state.optax, values, **extra)
            optax_refusals.check_state(state.optax, optax_state)
        updates = {path: without_frozen_layers(params[path], update) for path, update in updates.items()}
        if any(map(frozen_layers, params.values())):
            optax_state = restarted(optax_state, optimiser.init(values), params)
        self.state.set(OptaxState(optax_state, state.targets, state.shapes))
        if apply_updates:
            for path, value in optax.apply_updates(values, updates).items():
                params[path].set(value)
        return _put(updates, grads)

    def clear(self) -> None:
        """Removes the state; call `init` before the next step."""
        self.state.set(None)

    def _optax(self) -> Optimiser:
        given: Any = self.optax_fn  # one of two kinds, which only `is_optimiser` tells apart
        optimiser: Optimiser = given if is_optimiser(given) else given()
        refusals.check_optimiser(optimiser, "Optim", made=True)
        return optimiser

    def __repr__(self) -> str:
        state = self.state.get()
        return f"Optim({'not initialised' if state is None else repr(state)})"


def _put(updates: dict[str, Any], grads: Gradients) -> Any:
    """The tree of gradients with the updates in their places, and `None` elsewhere."""

    def update(path: tuple[Any, ...], node: Any) -> Any:
        value = updates.get(path_name(path)) if isinstance(node, DynamicParam) else None
        return None if value is None else type(node).from_structure(node.structure(), (value,))

    return jax.tree_util.tree_map_with_path(update, tree_ref(grads), is_leaf=is_param)

"""Optimisers: optax, with its state in a parameter, so that transforms carry it along."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

import minipcax.utils._refusals as refusals
from minipcax.core import BaseModule, DynamicParam, Param, tree_ref
from minipcax.core.tree import is_param, path_name
from minipcax.utils._refusals import OptaxFn, Optimiser, is_optimiser
from minipcax.utils._targets import Gradients, OptaxState, Origin, Scale, Targets, Tree, by_path, carried, shapes_of


class Optim(BaseModule, static=("optax_fn", "_origin")):
    """An optimiser of the parameters that `init` is given.

    Optax sees them as a dict from path to array. So the labels of `optax.multi_transform`, and masks, are functions of
    that dict: `lambda params: {path: "fast" if path.endswith("bias") else "slow" for path in params}`.

    Args:
        optax_fn: an optax optimiser, or a function that returns one.
        parameters: what to initialise it with.

    Raises:
        TypeError: `optax_fn` is no optimiser.

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
        self.optax_fn = optax_fn
        self._origin = Origin()
        self.state = Param(None)
        if parameters is not None:
            self.init(parameters)

    def init(self, parameters: Tree) -> None:
        """Starts anew, for these parameters: a masked model, such as `M(LayerParam)(model)`.

        Raises:
            TypeError: it is not a tree of parameters, or `optax_fn` is no optimiser.
            ValueError: a parameter is cleared, or optax refuses them.
        """
        targets = by_path(parameters)
        refusals.check_parameters(parameters, targets, "Optim.init")
        self._start(targets, self._fresh(targets))

    def retarget(self, parameters: Tree) -> None:
        """Goes on with these parameters instead: what it holds for those that it knows stays, others start from zero.

        For when a model changes in the middle of training: layers are frozen or unfrozen, added, inserted or untied, a
        head is replaced. A parameter is known again wherever it is now; in a transform, and in an optimiser that is
        itself a copy, by its path. What is held for those that left is dropped. Counts of steps, and so schedules and
        Adam's correction of its bias, go on for all. One that is not initialised is.

        Args:
            parameters: as for `init`.

        Raises:
            TypeError: see `init`.
            ValueError: see `init`; or none of the parameters is known, though paths are, as in a copy of the model; or
                the optimiser's state can not be taken apart by parameter.

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
        self._go_on(parameters, former)

    def _go_on(self, parameters: Tree, former: Mapping[str, str]) -> None:
        """As `retarget`, where it is known which paths the parameters had; the others are new."""
        state, targets = self.state.get(), by_path(parameters)
        refusals.check_parameters(parameters, targets, "Optim.retarget")
        self._start(targets, carried(state.optax, self._fresh(targets), targets, former))

    def _start(self, targets: Targets, optax_state: Any) -> None:  # each optimiser has its own
        values = (param.get() for param in targets.values())
        self.state.set(OptaxState(optax_state, tuple(targets), shapes_of(values)))
        self._origin = Origin(self, targets)

    def _fresh(self, targets: Targets) -> Any:
        """Optax's state before the first step."""
        optimiser = self._optax()
        try:
            return optimiser.init({path: param.get() for path, param in targets.items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise refusals.no_labels("Optim.init", targets, error) from error

    def step(
        self,
        module: Tree,
        grads: Gradients,
        scale_by: Scale | None = None,
        apply_updates: bool = True,
        allow_none: bool = False,
    ) -> Any:  # the tree of gradients, with updates in their places
        """Updates the parameters of a model that `init` was given.

        Args:
            module: the whole model.
            grads: its gradients, as `value_and_grad` gives them.
            scale_by: a factor for the gradients.
            apply_updates: whether to change the parameters, or only to return the updates.
            allow_none: whether to do nothing when a gradient is missing.

        Returns:
            The updates, in the places of the gradients; `None` if nothing was done.

        Raises:
            ValueError: `init` was not called, or for parameters of other paths or shapes; a gradient is missing, or a
                shared parameter has two.
        """
        state, params, gradients = self.state.get(), by_path(module), by_path(grads)
        if state is None:
            raise refusals.not_initialised("Optim.step", gradients)
        refusals.check_model(module, params, state)
        refusals.check_once("Optim.step", module, gradients, state.targets)
        refusals.check_gradients("Optim.step", grads, gradients, state.targets)
        missing = [path for path in state.targets if path not in gradients or gradients[path].get() is None]
        if missing and allow_none:
            return None
        if missing:
            raise refusals.missing_gradients(missing, gradients, state.targets)

        grad_values = {path: gradients[path].get() for path in state.targets}
        values = {path: params[path].get() for path in state.targets}
        refusals.check_shapes(state.targets, values.values(), grad_values.values())
        if scale_by is not None:
            refusals.check_scale(scale_by)
            grad_values = jax.tree.map(lambda grad: jnp.asarray(grad * scale_by, jnp.result_type(grad)), grad_values)
        try:
            updates, optax_state = self._optax().update(grad_values, state.optax, values)
        except (TypeError, ValueError) as error:
            differ = refusals.differences(state.targets, "then", state.shapes, "now", shapes_of(values.values()))
            if differ:
                raise ValueError(f"Optim.step found other shapes than init was given: {differ}; call init") from error
            raise
        refusals.check_state(state.optax, optax_state)
        self.state.set(OptaxState(optax_state, state.targets, state.shapes))
        if apply_updates:
            for path, value in optax.apply_updates(values, updates).items():
                params[path].set(value)
        return _put(updates, grads)

    def clear(self) -> None:
        """Forgets the state, and what the optimiser is for."""
        self.state.set(None)

    def _optax(self) -> Optimiser:
        given: Any = self.optax_fn
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

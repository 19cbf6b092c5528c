"""Optimisers: optax, with its state in a parameter, so that transforms carry it along.

Optax sees the targets as a dict from path to array, `{".layers[0].nn.weight": ...}`: a shared parameter is in it once,
and nothing of the model's own structure gets into the optimiser's state.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import register_dataclass, tree_leaves_with_path

from minipcax.core import BaseModule, BaseParam, DynamicParam, Param, tree_ref
from minipcax.core._filter import Predicate
from minipcax.core._tree import children, is_param, path_name

OptaxFn = optax.GradientTransformation | Callable[[], optax.GradientTransformation]
Tree = object  # a model, or any pytree of models and parameters
# The same tree with gradients, or None, in the places of its parameters.
Gradients = BaseModule | BaseParam[Any] | dict[Any, Any] | list[Any] | tuple[Any, ...] | None


@register_dataclass
@dataclass(frozen=True)
class _State:
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


def _by_path(tree: Tree) -> dict[str, DynamicParam[Any]]:
    """The dynamic parameters of a tree, each once, by path."""
    nodes = tree_leaves_with_path(tree_ref(tree), is_leaf=is_param)
    return {path_name(path): node for path, node in nodes if isinstance(node, DynamicParam)}


def _shapes(values: Iterable[Any]) -> tuple[str, ...]:
    """What the values look like, for comparing them and for messages."""
    return tuple(str(jax.tree.map(jnp.shape, value)) for value in values)


def _differences(targets: Iterable[str], first: str, one: Iterable[str], second: str, other: Iterable[str]) -> str:
    """The targets whose shapes differ, with both shapes."""
    pairs = zip(targets, one, other, strict=True)
    return ", ".join(f"{path} ({first} {a}, {second} {b})" for path, a, b in pairs if a != b)


class Optim(BaseModule, static=("optax_fn",)):
    """An optimiser of the parameters that `init` is given.

    Args:
        optax_fn: an optax optimiser, or a function that returns one.
        parameters: what to initialise it with.

    Example:
        >>> w = Param(jnp.array(1.0))
        >>> optim = Optim(optax.sgd(0.1), [w])
        >>> _ = optim.step([w], [Param(jnp.array(2.0))])
        >>> w.item()
        0.800000011920929
    """

    state: Param

    def __init__(self, optax_fn: OptaxFn, parameters: Tree | None = None) -> None:
        self.optax_fn = optax_fn
        self.state = Param(None)
        if parameters is not None:
            self.init(parameters)

    def init(self, parameters: Tree) -> None:
        """Starts anew, for these parameters: a masked model, such as `M(LayerParam)(model)`.

        Raises:
            TypeError: it is not a tree of parameters, or `optax_fn` is no optimiser.
            ValueError: a parameter is cleared.
        """
        leaves = jax.tree.leaves(parameters, is_leaf=is_param)
        # A model may hold bare arrays beside its parameters.
        fitting = (BaseParam, jax.Array, np.ndarray) if any(map(is_param, leaves)) else BaseParam
        for leaf in leaves:
            if not isinstance(leaf, fitting):
                raise TypeError(
                    "Optim.init expected a tree of parameters, such as M(LayerParam)(model), found a "
                    f"{type(leaf).__name__} in it"
                )
        targets = _by_path(parameters)
        for path, param in targets.items():
            if param.get() is None:
                raise ValueError(
                    f"Optim.init expected {path} to have a value, but it is cleared: set it first (a node's state by "
                    "initialising the nodes), or select other parameters with M"
                )
        values = {path: param.get() for path, param in targets.items()}
        self.state.set(_State(self._optax().init(values), tuple(targets), _shapes(values.values())))

    def step(
        self,
        module: Tree,
        grads: Gradients,
        scale_by: float | jax.Array | None = None,
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
            ValueError: `init` was not called, or for parameters of other paths or shapes, or a gradient is missing.
        """
        state = self.state.get()
        if state is None:
            raise ValueError(
                "Optim.step expected an initialised optimiser: call init with the parameters to optimise first"
            )
        params, gradients = _by_path(module), _by_path(grads)
        lacking = [path for path in state.targets if path not in params]
        if lacking:
            others = [path for path in params if path not in state.targets]
            raise ValueError(
                f"Optim.step expected the model that init was given, but it has no parameter {', '.join(lacking)}; "
                f"found instead {', '.join(others) or 'none'}"
            )
        if isinstance(grads, dict) and not gradients.keys() & {*state.targets}:
            for keyword, of_keyword in grads.items():
                if state.targets and _by_path(of_keyword).keys() >= {*state.targets}:
                    raise ValueError(
                        "Optim.step expected the gradients of one model, found those of all keywords: give it "
                        f"grads[{keyword!r}]"
                    )
        missing = [path for path in state.targets if path not in gradients or gradients[path].get() is None]
        if missing and allow_none:
            return None
        if missing:
            raise ValueError(
                f"Optim.step found no gradient for {', '.join(missing)}: expected one for every parameter that init "
                "was given; differentiate it, leave it out of init, or pass allow_none=True to skip the step"
            )
        grad_values = {path: gradients[path].get() for path in state.targets}
        values = {path: params[path].get() for path in state.targets}
        shapes = _shapes(values.values())
        differ = _differences(state.targets, "parameter", shapes, "gradient", _shapes(grad_values.values()))
        if differ:
            raise ValueError(f"Optim.step expected gradients of the parameters' shapes, found {differ}")
        if scale_by is not None:
            grad_values = jax.tree.map(lambda grad: jnp.asarray(grad * scale_by, jnp.result_type(grad)), grad_values)
        try:
            updates, optax_state = self._optax().update(grad_values, state.optax, values)
        except (TypeError, ValueError) as error:
            differ = _differences(state.targets, "then", state.shapes, "now", shapes)
            if differ:
                raise ValueError(f"Optim.step found other shapes than init was given: {differ}; call init") from error
            raise
        self.state.set(_State(optax_state, state.targets, state.shapes))
        if apply_updates:
            for path, value in optax.apply_updates(values, updates).items():
                params[path].set(value)
        return _put(updates, grads)

    def clear(self) -> None:
        """Forgets the state, and what the optimiser is for."""
        self.state.set(None)

    def _optax(self) -> optax.GradientTransformation:
        optimiser = self.optax_fn() if callable(self.optax_fn) else self.optax_fn
        if not isinstance(optimiser, optax.GradientTransformation):
            raise TypeError(f"Optim expected an optax optimiser, or a function that returns one, found {optimiser!r}")
        return optimiser


def _put(updates: dict[str, Any], grads: Gradients) -> Any:
    """The tree of gradients with the updates in their places, and `None` elsewhere."""

    def update(path: tuple[Any, ...], node: Any) -> Any:
        value = updates.get(path_name(path)) if isinstance(node, DynamicParam) else None
        return None if value is None else type(node).from_structure(node.structure(), (value,))

    return jax.tree_util.tree_map_with_path(update, tree_ref(grads), is_leaf=is_param)


class OptimTree(BaseModule, static=("optax_fn", "leaf_fn")):
    """An independent optimiser for each node that `leaf_fn` selects, such as each layer.

    Args:
        optax_fn: an optax optimiser, or a function that returns one.
        leaf_fn: whether a node of the model gets an optimiser of its own.
        parameters: what to initialise it with.

    Example:
        >>> a, b = Param(jnp.array(1.0)), Param(jnp.array(1.0))
        >>> optim = OptimTree(optax.sgd(0.5), lambda node: isinstance(node, Param), [a, b])
        >>> optim.step([a, b], [Param(jnp.array(1.0)), None])
        >>> a.item(), b.item()
        (0.5, 1.0)
    """

    state: Param  # an Optim for each node, by path

    def __init__(self, optax_fn: OptaxFn, leaf_fn: Predicate, parameters: Tree | None = None) -> None:
        self.optax_fn, self.leaf_fn = optax_fn, leaf_fn
        self.state = Param(None)
        if parameters is not None:
            self.init(parameters)

    def init(self, parameters: Tree) -> None:
        """Starts anew, with an optimiser for each selected node of this tree that has parameters."""
        nodes = self._nodes(tree_ref(parameters), self.leaf_fn)
        self.state.set({path: Optim(self.optax_fn, node) for path, node in nodes.items() if _by_path(node)})

    def step(
        self, module: Tree, grads: Gradients, scale_by: float | jax.Array | None = None, apply_updates: bool = True
    ) -> None:
        """Steps the optimiser of every node that has gradients.

        Raises:
            ValueError: `init` was not called, or for other nodes, or a node has gradients of some targets only.
        """
        if self.state.get() is None:
            raise ValueError("OptimTree.step expected an initialised optimiser: call init with the parameters first")
        optims = jax.tree.map(lambda leaf: leaf, self.state.get())  # a parameter's value is never changed in place
        nodes, gradients = (self._nodes(tree, optims.__contains__, by_path=True) for tree in (module, grads))
        lacking = [path for path in optims if path not in nodes]
        if lacking:
            raise ValueError(
                f"OptimTree.step expected the model that init was given, but it has no node {', '.join(lacking)}"
            )
        for path, optim in optims.items():
            node_grads = gradients.get(path)
            if any(grad.get() is not None for grad in _by_path(node_grads).values()):
                optim.step(nodes[path], node_grads, scale_by, apply_updates)
        self.state.set(optims)

    def clear(self) -> None:
        """Forgets the state of all optimisers."""
        self.state.set(None)

    @staticmethod
    def _nodes(tree: Tree, select: Predicate, by_path: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def visit(node: Any, path: tuple[Any, ...]) -> None:
            if select(path_name(path) if by_path else node):
                found[path_name(path)] = node
            else:
                for key, child in children(node):
                    visit(child, path + key)

        visit(tree, ())
        return found

"""Many optimisers for one model, each independent of the others."""

from typing import Any

import optax

import minipcax.utils._refusals as refusals
from minipcax.core import BaseModule, Param, tree_ref
from minipcax.core.filter import Filter, Predicate, as_predicate
from minipcax.core.tree import children, copied, path_name
from minipcax.utils._line_search import Value
from minipcax.utils._optax import OptaxFn
from minipcax.utils._optim import Optim
from minipcax.utils._targets import Gradients, Origin, Scale, Tree, by_path, filled


class OptimTree(BaseModule, static=("optax_fn", "leaf_fn", "_origin")):
    """An independent `Optim` for each selected node of a model, such as each layer, in the parameter `state`.

    Args:
        optax_fn: an optax optimiser, such as `optax.adam(1e-3)`, or a function without arguments that returns one.
        leaf_fn: which nodes get an optimiser: a class, such as `Linear`, a union of classes or a predicate. Nodes below
            a selected one do not.
        parameters: the parameters to optimise, as for `init`; if `None`, call `init` later.

    Raises:
        TypeError: `optax_fn` is neither an optimiser nor such a function, or `leaf_fn` is none of the above.

    Example:
        >>> a, b = Param(jnp.array(1.0)), Param(jnp.array(1.0))
        >>> optim = OptimTree(optax.sgd(0.5), Param, [a, b])
        >>> optim.step([a, b], [Param(jnp.array(1.0)), None])
        >>> a.item(), b.item()
        (0.5, 1.0)
    """

    state: Param  # holds an Optim for each node, by path

    def __init__(self, optax_fn: OptaxFn, leaf_fn: Filter, parameters: Tree | None = None) -> None:
        refusals.check_optimiser(optax_fn, "OptimTree")
        refusals.warn_of_reads(optax_fn, "OptimTree")
        refusals.check_leaf_fn(leaf_fn)
        self.optax_fn, self.leaf_fn = optax_fn, leaf_fn
        self._origin = Origin()
        self.state = Param(None)
        if parameters is not None:
            self.init(parameters)

    def init(self, parameters: Tree) -> None:
        """Creates a new optimiser for each selected node of this tree that has parameters.

        Args:
            parameters: as for `Optim.init`.

        Raises:
            TypeError: see `Optim.init`.
            ValueError: see `Optim.init`; or no node is selected.
        """
        self._start(parameters, {path: Optim(self.optax_fn, node) for path, node in self._select(parameters).items()})

    def retarget(self, parameters: Tree) -> None:
        """Continues with the selected nodes of this tree, each as in `Optim.retarget`; new nodes start anew.

        Args:
            parameters: as for `Optim.init`.

        Raises:
            TypeError: see `Optim.retarget`.
            ValueError: see `Optim.retarget`; or no node is selected.
        """
        before: dict[str, Optim] | None = self.state.get()
        if before is None:
            self.init(parameters)
            return
        places, targets = _places(before), by_path(parameters)
        former = self._origin.former_paths(self, (*places,), targets)
        refusals.check_known(former, places, targets)
        optims = {}
        for node, tree in self._select(parameters).items():
            known = {path: places[former[node + path]] for path in by_path(tree) if node + path in former}
            owner = next((owner for owner, _ in known.values()), None)  # the node whose optimiser continues here
            optims[node] = Optim(self.optax_fn) if owner is None else copied(before[owner])
            optims[node]._start(tree, {path: old for path, (place, old) in known.items() if place == owner})
        self._start(parameters, optims)

    def step(
        self,
        module: Tree,
        grads: Gradients,
        scale_by: Scale | None = None,
        apply_updates: bool = True,
        *,
        value: Value | None = None,
    ) -> None:
        """Steps the optimiser of every node that has gradients, and skips the others.

        Args:
            module: the whole model.
            grads: its gradients, as `value_and_grad` returns them.
            scale_by: a number that multiplies the gradients.
            apply_updates: whether to change the parameters, or only the states of the optimisers.
            value: the loss, for optimisers that need it, as in `Optim.step`; there is no `value_fn`.

        Raises:
            ValueError: `init` was not called, or was called for other nodes; a node has gradients for some of its
                parameters only; or a shared parameter has two.
            TypeError: see `Optim.step`.
        """
        gradients = filled(grads)
        if self.state.get() is None:
            raise refusals.not_initialised("OptimTree.step", gradients)
        optims = copied(self.state.get())
        nodes, node_grads = (_nodes(tree, optims.__contains__, by_path=True) for tree in (module, grads))
        refusals.check_nodes(optims, nodes)
        refusals.check_once("OptimTree.step", module, gradients, _places(optims))
        refusals.check_gradients("OptimTree.step", grads, gradients, _places(optims), needed=True)
        updates = {
            path: optim.step(nodes[path], node_grads[path], scale_by, apply_updates=False, value=value)
            for path, optim in optims.items()
            if filled(node_grads.get(path))
        }
        self.state.set(optims)
        if apply_updates:
            for node, of_node in updates.items():
                params = by_path(nodes[node])
                for path, update in by_path(of_node).items():
                    params[path].set(optax.apply_updates(params[path].value, update.value))

    def clear(self) -> None:
        """Removes all optimisers; call `init` before the next step."""
        self.state.set(None)

    def _start(self, parameters: Tree, optims: dict[str, Optim]) -> None:
        targets = by_path(parameters)
        self.state.set(optims)
        self._origin = Origin(self, {path: targets[path] for path in _places(optims)})

    def _select(self, parameters: Tree) -> dict[str, Any]:
        refusals.check_parameters(parameters, {}, "OptimTree")  # each optimiser checks its own for cleared ones
        nodes = _nodes(tree_ref(parameters), as_predicate(self.leaf_fn))
        refusals.check_selection(nodes, self.leaf_fn)
        return {path: node for path, node in nodes.items() if by_path(node)}

    def __repr__(self) -> str:
        optims = self.state.get()
        return f"OptimTree({'not initialised' if optims is None else repr(optims)})"


def _places(optims: dict[str, Optim]) -> dict[str, tuple[str, str]]:
    """The path of every target in the whole model: its node, and its path in the node."""
    return {node + path: (node, path) for node, optim in optims.items() for path in optim.state.get().targets}


def _nodes(tree: Tree, select: Predicate, by_path: bool = False) -> dict[str, Any]:
    """The nodes that `select` accepts, or whose paths it accepts, by path; it does not look below one."""
    found: dict[str, Any] = {}

    def visit(node: Any, path: tuple[Any, ...]) -> None:
        if select(path_name(path) if by_path else node):
            found[path_name(path)] = node
        else:
            for key, child in children(node):
                visit(child, path + key)

    visit(tree, ())
    return found

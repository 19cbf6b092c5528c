"""Zero-divergence inference learning: predictive coding timed so that it is backpropagation."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from minipcax.core import tree_ref, tree_unref
from minipcax.functional import grad, scan
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._batch import node_energies, start
from minipcax.learning._checks import check_no_target, require_squared_errors
from minipcax.learning._inference import ByNode, energy_and_gradients
from minipcax.learning._influence import influences
from minipcax.learning._model import NODES, WEIGHTS, Batch, Model, keep_statistics, over_batch, split_nodes, vodes
from minipcax.learning._report import History, Report
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step


@grad({"model": WEIGHTS})
def _gradients_of_level(x: Batch, level: Int[Array, ""], *, model: Model) -> Float[Array, ""]:
    return node_energies(x, model=model)[:, level].mean()


@dataclass(frozen=True)
class ZIL(Algorithm):
    """Z-IL. From the forward values, the states take one step of rate 1 for every node; the error of the output reaches
    node l, for the first time, at step L − l, and in that step its weights learn:

        h ← h − ∂E/∂h,  and at step t:  ΔW from ∂E_l/∂W, with l = L − t

    Then ∂E_l/∂W is the gradient of backpropagation, if the nodes are a chain of squared errors, of which only the last
    is observed (that one may have another energy), without precisions, connections past a node, and `BatchNorm` in
    training. All weights move at the end, by what they were taught.

    In float32 an error h − u loses its digits as it fades from layer to layer. With the weights of `Linear`, gradients
    differ from those of backpropagation by 1e-7 of their norm at 4 layers, by 1e-6 (tanh) to 1e-3 (gelu) at 11, and at
    20 by 1e-3 with tanh, while with relu and gelu nothing is left. Use float64, or `EPC`, which has no such loss.

    The optimiser of the nodes is not used.

    Raises:
        ValueError: the nodes are no chain, or stand in the model in another order than they are called.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> ZIL()(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (2,)

    Reference:
        Song, Lukasiewicz, Xu and Bogacz, Can the Brain Do Backpropagation? Exact Implementation of Backpropagation in
        Predictive Coding Networks, NeurIPS 2020.
    """

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        require_squared_errors(model, "ZIL")
        for path, node in split_nodes(model)[0].items():
            if hasattr(node, "precision"):
                raise ValueError(f"ZIL expected nodes without a precision, found one in {path}: use PC for this model")
        predictions, loss = start(x, y, model=model)
        _check_chain(x, model)

        states = Optim(optax.sgd(1.0), NODES(model))

        def move(level: Int[Array, ""], *, model: Model, states: Optim) -> tuple[Any, ByNode]:
            taught = _gradients_of_level(x, level, model=model)["model"]
            (_, (each,)), grads = energy_and_gradients(x, model=model)
            states.step(model, grads["model"])
            return taught, each.mean(axis=0)

        def move_and_add(
            level: Int[Array, ""], taught: Any, *, model: Model, states: Optim
        ) -> tuple[tuple[Any], ByNode]:
            more, energies = move(level, model=model, states=states)
            return (jax.tree.map(jnp.add, taught, more),), energies

        last = len(model.nodes()) - 1
        taught, first = move(jnp.array(last), model=model, states=states)
        (taught,), later = scan(move_and_add, jnp.arange(last)[::-1])(taught, model=model, states=states)
        weights.step(model, taught)
        return Report(History(jnp.concatenate([first[None], later]), tuple(model.nodes())), loss, predictions)


@over_batch
def _energy_by_node(x: Batch, *, model: Model) -> list[Float[Array, ""]]:
    keep_statistics(model)
    with step(model, clear_params=(VodeParam.Cache, VodeParam.Cache)):
        model(x)
        check_no_target(model)
        return [node.energy() for node in model.nodes().values()]


def _check_chain(x: Batch, model: Model) -> None:
    """Refuses a model in which an energy depends on other states than those of its node and of the one before."""

    def energies(states: dict[str, Array], reference: Any, x: Batch) -> list[Float[Array, "..."]]:
        copy = tree_unref(reference)
        for path, node in vodes(copy).items():
            node.h.set(states[path])
        return _energy_by_node(x, model=copy)

    states = {path: node.h.get() for path, node in vodes(model).items()}
    found = influences(energies, states, tree_ref(model), x)
    nodes = [*model.nodes()]
    for number, path in enumerate(nodes):
        expected = nodes[max(number - 1, 0) : number + 1]
        others = [state for state in states if (f"[0][{state!r}]" in found[number]) != (state in expected)]
        observed = path in split_nodes(model)[1]
        if others or observed != (number == len(nodes) - 1):
            _refuse_other_wiring(nodes, path, observed, others, bool({*others} & {*expected}))


def _refuse_other_wiring(nodes: list[str], path: str, observed: bool, others: list[str], lacking: bool) -> None:
    if others:
        depends = "does not depend" if lacking else "depends"
        wrong = f"the energy of {path} {depends} on the state of {', '.join(others)}"
    else:
        wrong = f"{path} is {'observed' if observed else 'not'}"
    raise ValueError(
        f"ZIL expected a chain, in which every node predicts the next, in the order {', '.join(nodes)}, and only the "
        f"last is observed; found that {wrong}: assign the nodes in the order in which they are called, or use PC for "
        "this model"
    )

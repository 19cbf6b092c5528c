"""Zero-divergence inference learning: predictive coding timed so that it is backpropagation."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

import minipcax.learning._refusals as refusals
from minipcax.core import tree_ref, tree_unref
from minipcax.functional import grad, scan
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._checks import check_no_stack, check_no_target, check_squared_errors
from minipcax.learning._descent import descent
from minipcax.learning._energies import energies_of
from minipcax.learning._forward import start
from minipcax.learning._inference import OBJECTIVE
from minipcax.learning._influence import influences, union
from minipcax.learning._model import (
    NODES,
    WEIGHTS,
    Batch,
    Gradients,
    Model,
    Sample,
    keep_statistics,
    over_batch,
    split_nodes,
    status_of,
    vodes,
)
from minipcax.learning._report import History, Report
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step


@grad({"model": WEIGHTS})
def _gradients_of_level(x: Batch, level: Int[Array, ""], *, model: Model) -> Float[Array, ""]:
    energies = OBJECTIVE.of_batch(x, model=model)
    # Not energies[:, level]: on a mesh with Explicit axes, JAX 0.12 has no gradient of an index that is traced.
    return jnp.where(jnp.arange(energies.shape[1]) == level, energies, 0).sum(axis=1).mean()


@dataclass(frozen=True)
class ZIL(Algorithm):
    """Zero-divergence inference learning (Z-IL): predictive coding timed so that it equals backpropagation.

    From the forward values, the states take one step of rate 1 for every node. The error of the output reaches node l
    for the first time at step L − l, and in that step the weights of that node learn:

        h ← h − ∂E/∂h,  and at step t:  ΔW ∝ −∂E_l/∂W, with l = L − t

    There, ∂E_l/∂W is the gradient of backpropagation, if the nodes are a chain of squared errors of which only the last
    is observed (that one may have another energy), without precisions, connections past a node, and `BatchNorm` in
    training. All weights move at the end, by the sum of these gradients.

    In float32 an error h − u loses its digits as it fades from layer to layer. With the weights of `Linear`, gradients
    differ from those of backpropagation by 1e-7 of their norm at 4 layers, by 1e-6 (tanh) to 1e-3 (gelu) at 11, and at
    20 by 1e-3 with tanh, while with relu and gelu nothing is left. Use float64, or `EPC`, which has no such loss.

    The optimiser of the nodes is not used.

    Raises:
        ValueError: in a call, the nodes are not such a chain, are assigned in another order than they are called, or
            are in a `Stack`, where they cannot be examined one by one.

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
        check_no_stack(model, "ZIL")
        check_squared_errors(model, "ZIL")
        predictions, loss = start(x, y, model=model)
        _check_chain(x, model)

        move = descent(OBJECTIVE, x)

        def learn_and_move(
            level: Int[Array, ""], taught: Gradients, *, model: Model, optim: Optim
        ) -> tuple[tuple[Gradients], Float[Array, "batch nodes"]]:
            more = _gradients_of_level(x, level, model=model)["model"]
            return (jax.tree.map(jnp.add, taught, more),), move(model=model, optim=optim).energies

        nothing = jax.tree.map(jnp.zeros_like, WEIGHTS(model))
        levels = jnp.arange(len(model.nodes()))[::-1]
        states = Optim(optax.sgd(1.0), NODES(model))
        (taught,), energies = scan(learn_and_move, levels)(nothing, model=model, optim=states)
        weights.step(model, taught)
        return Report(History(energies.mean(axis=1), tuple(model.nodes())), loss, predictions)


def _check_chain(x: Batch, model: Model) -> None:
    """Raises unless a node's energy depends on its state and the one before, and its prediction on the latter alone."""

    def look(states: dict[str, Array], reference: Any, x: Batch) -> tuple[list[Any], dict[str, Any]]:
        copy = tree_unref(reference)
        for path, node in vodes(copy).items():
            node.h.set(states[path])
        energies, predictions = _look(x, model=copy)
        return energies, predictions

    states = {path: node.h.get() for path, node in vodes(model).items()}
    energies, predictions = influences(look, states, tree_ref(model), x)
    nodes, observed = [*model.nodes()], split_nodes(model)[1]
    for number, path in enumerate(nodes):
        before, here = nodes[max(number - 1, 0) : number], nodes[number : number + 1]
        if (path in observed) != (number == len(nodes) - 1):
            raise refusals.not_a_chain(nodes, f"{path} is {'observed' if path in observed else 'not'}")
        for name, found, expected in (
            ("energy", energies[number], before + here),
            ("prediction", predictions.get(path), before),
        ):
            others = [state for state in states if (f"[0][{state!r}]" in union(found)) != (state in expected)]
            if others:
                depends = "does not depend" if {*others} & {*expected} else "depends"
                raise refusals.not_a_chain(nodes, f"the {name} of {path} {depends} on the state of {', '.join(others)}")


@over_batch
def _look(x: Sample, *, model: Model) -> tuple[list[Float[Array, "..."]], dict[str, Any]]:
    """Returns the energy of each node, and the prediction of each, by path."""
    keep_statistics(model)
    with step(model, status_of(model), clear_params=(VodeParam.Cache, VodeParam.Cache)):
        model(x)
        check_no_target(model)
        for path, node in split_nodes(model)[0].items():
            if node.get("precision") is not None:
                raise refusals.has_precision(path)
        return energies_of(model.nodes()), {path: node.get("u") for path, node in vodes(model).items()}

"""Zero-divergence inference learning: predictive coding timed so that it is backpropagation."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from minipcax.functional import grad, scan
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._batch import node_energies, start
from minipcax.learning._checks import require_squared_errors
from minipcax.learning._inference import ByNode, energy_and_gradients
from minipcax.learning._model import NODES, WEIGHTS, Batch, Model, split_nodes
from minipcax.learning._report import History, Report
from minipcax.utils import Optim


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

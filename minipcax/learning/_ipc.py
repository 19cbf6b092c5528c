"""Incremental predictive coding: the weights move at every step of inference."""

from dataclasses import dataclass

from minipcax.learning._algorithm import Algorithm
from minipcax.learning._checks import check_minima
from minipcax.learning._descent import Moved, loop, moved
from minipcax.learning._energies import Objective, joined_energies
from minipcax.learning._forward import start
from minipcax.learning._model import NODES, WEIGHTS, Batch, Model
from minipcax.learning._optimisers import check_no_solver
from minipcax.learning._report import Report
from minipcax.utils import Optim

OBJECTIVE = Objective(NODES | WEIGHTS, joined_energies)


@dataclass(frozen=True)
class IPC(Algorithm):
    """Incremental predictive coding (iPC): states and weights are updated together, in every step of inference,

        h ← h − lr_h · ∂E/∂h,  W ← W − lr_W · ∂E/∂W

    With one step from the forward pass, only the output has an error, so only the weights that lead directly to it
    move, as in backpropagation.

    Args:
        steps: the steps of inference and learning for each batch, an int of at least 1; the optimiser of the weights
            takes as many.
        unroll: how many steps to compile as one iteration of the loop, see `infer`.

    Raises:
        ValueError: `steps` or `unroll` is not a positive int.
        TypeError: in a call, `nodes` is a `Solver`.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> IPC(steps=2)(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (2,)

    Reference:
        Salvatori et al., A Stable, Fast, and Fully Automatic Learning Algorithm for Predictive Coding Networks,
        arXiv 2212.00720 (2022).
    """

    steps: int = 8
    unroll: int | bool = 1

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        check_minima(model)
        check_no_solver(nodes, "IPC")
        predictions, loss = start(x, y, model=model)

        def move(*, model: Model, optim: Optim, weights: Optim) -> Moved:
            value_fn = OBJECTIVE.value_fn(x, model)
            energies, gradients = OBJECTIVE.with_gradients(x, model)
            optim.step(model, gradients, value=energies.sum(), value_fn=value_fn)
            # Without a function of the weights, for it would see states that have moved, and the gradients have not.
            weights.step(model, gradients, scale_by=1 / len(energies), value=energies.sum())
            return moved(energies, optim)

        history = loop(move, self.steps, self.unroll, model=model, optim=nodes, weights=weights)
        return Report(history, loss, predictions)

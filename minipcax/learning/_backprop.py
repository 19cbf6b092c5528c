"""Backpropagation on the very same model: the yardstick."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from minipcax.functional import value_and_grad
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._batch import forward, observed_energies
from minipcax.learning._model import WEIGHTS, Batch, Model, split_nodes
from minipcax.learning._report import History, Report
from minipcax.utils import Optim


@value_and_grad({"model": WEIGHTS}, has_aux=True)
def _loss_and_gradients(x: Batch, y: Batch, *, model: Model) -> tuple[Float[Array, ""], History, Batch]:
    predictions = forward(x, y, model=model)
    observed = split_nodes(model)[1]
    if not observed:
        raise ValueError(
            "Backprop expected a model with an observed node, found none: set h.frozen = True of its output node"
        )
    losses = observed_energies(model=model).mean(axis=0)
    return losses.sum(), History(losses[None], tuple(observed)), predictions


@dataclass(frozen=True)
class Backprop(Algorithm):
    """Backpropagation. The loss is the energy of the observed nodes when the others are at their forward values:

        L(W) = E_out(y, u(x; W)),  W ← W − lr · ∂L/∂W

    There is no inference, so that the optimiser of the nodes is not used, and the history has one step, the loss.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> Backprop()(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (1,)

    Reference:
        Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, Nature 323 (1986).
    """

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        (loss, (history, predictions)), grads = _loss_and_gradients(x, y, model=model)
        weights.step(model, grads["model"])
        return Report(history, loss, predictions)

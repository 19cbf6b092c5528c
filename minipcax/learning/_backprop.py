"""Backpropagation on the very same model: the yardstick."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from minipcax.functional import value_and_grad
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._checks import check_observed, check_value_nodes
from minipcax.learning._energies import names_of
from minipcax.learning._forward import forward
from minipcax.learning._model import WEIGHTS, Batch, Model, keeping_keys, split_nodes
from minipcax.learning._report import History, Report
from minipcax.utils import Optim

ByNode = Float[Array, " observed"]


def _loss(x: Batch, y: Batch, *, model: Model) -> tuple[Float[Array, ""], ByNode, Batch]:
    predictions, observed = forward(x, y, model=model)
    losses = observed.mean(axis=0)
    return losses.sum(), losses, predictions


_loss_and_gradients = value_and_grad({"model": WEIGHTS}, has_aux=True)(_loss)


@dataclass(frozen=True)
class Backprop(Algorithm):
    """Backpropagation, to compare with. The loss is the energy of the observed nodes when all others have no error:

        L(W) = E_out(y, u(x; W)),  W ← W − lr · ∂L/∂W

    There is no inference: the optimiser of the nodes is not used, and the history has one step, the loss.

    Raises:
        ValueError: in a call, the model has no observed node, or energies other than those of value nodes.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> Backprop()(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (1,)

    Reference:
        Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, Nature 323 (1986).
    """

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        check_observed(model, "Backprop")
        check_value_nodes(model, "Backprop")
        value_fn = keeping_keys(lambda model: _loss(x, y, model=model)[0], model)
        (loss, (losses, predictions)), gradients = _loss_and_gradients(x, y, model=model)
        weights.step(model, gradients["model"], value=loss, value_fn=value_fn)
        return Report(History(losses[None], names_of(split_nodes(model)[1])), loss, predictions)

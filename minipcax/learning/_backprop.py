"""Backpropagation on the very same model: the yardstick."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.functional import jit, value_and_grad
from minipcax.learning._batch import PER_SAMPLE, WEIGHTS, Model, forward, observed
from minipcax.utils import Optim, step


@dataclass(frozen=True)
class Backprop:
    """Backpropagation; calling it trains a model on one batch.

    The loss is the energy of the observed nodes, those with `h.frozen = True`, when the others are at their forward
    values:

        L(W) = E_out(y, u(x; W)),  W ← W − lr · ∂L/∂W

    Reference:
        Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, Nature 323 (1986).
    """

    def __call__(
        self, x: Any, y: Any, *, model: Model, nodes: Optim | None = None, weights: Optim
    ) -> Float[Array, " 1"]:
        """One update of the weights, compiled as a whole.

        Args:
            x: a batch of samples.
            y: their targets.
            model: the model. Its weights change; its nodes are cleared.
            nodes: not used: there is no inference. It is here so that algorithms can take each other's place.
            weights: the optimiser of the weights, initialised with these.

        Returns:
            The loss before the update, a mean over the samples, as a history of one step.
        """
        return _train(x, y, model=model, weights=weights)


@value_and_grad({"model": WEIGHTS})
def _loss_and_gradients(x: Any, y: Any, *, model: Model) -> Float[Array, ""]:
    forward(x, y, model=model)
    return sum((node.energy() for node in observed(model)), start=jnp.zeros(1)).mean()


@jit
def _train(x: Any, y: Any, *, model: Model, weights: Optim) -> Float[Array, " 1"]:
    with step(model, clear_params=(PER_SAMPLE, PER_SAMPLE)):
        loss, grads = _loss_and_gradients(x, y, model=model)
        weights.step(model, grads["model"])
    return loss[None]

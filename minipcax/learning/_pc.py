"""Predictive coding: inference until the nodes have settled, then learning."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from minipcax.functional import jit
from minipcax.learning._batch import PER_SAMPLE, Model, initialise
from minipcax.learning._inference import infer
from minipcax.learning._learning import learn
from minipcax.utils import Optim, step


@dataclass(frozen=True)
class PC:
    """The predictive coding algorithm; calling it trains a model on one batch.

    Args:
        steps: of inference for each batch.
        unroll: how many of them to compile as one round of the loop, see `infer`.

    Reference:
        Rao and Ballard, Predictive coding in the visual cortex, Nature Neuroscience 2 (1999).
    """

    steps: int = 8
    unroll: int | bool = 1

    def __call__(self, x: Any, y: Any, *, model: Model, nodes: Optim, weights: Optim) -> Float[Array, " steps"]:
        """Initialises the nodes, infers, and learns, compiled as a whole.

        Args:
            x: a batch of samples.
            y: their targets.
            model: the model. Its weights change; its nodes are cleared.
            nodes: the optimiser of the nodes' states.
            weights: the optimiser of the weights, initialised with these.

        Returns:
            The energy before every step of inference, a mean over the samples.
        """
        return _train(x, y, self, model=model, nodes=nodes, weights=weights)


@jit(static_argnums=2)
def _train(x: Any, y: Any, algorithm: PC, *, model: Model, nodes: Optim, weights: Optim) -> Float[Array, " steps"]:
    with step(model, clear_params=PER_SAMPLE):
        initialise(x, y, model=model)
        history = infer(x, algorithm.steps, algorithm.unroll, model=model, optim=nodes)
        learn(x, model=model, optim=weights)
    return history

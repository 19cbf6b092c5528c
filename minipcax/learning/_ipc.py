"""Incremental predictive coding: the weights move at every step of inference."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from minipcax.functional import jit, scan, value_and_grad
from minipcax.learning._batch import NODES, PER_SAMPLE, WEIGHTS, Model, energies, initialise
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step


@dataclass(frozen=True)
class IPC:
    """Incremental predictive coding; calling it trains a model on one batch.

    At every step, states and weights move at once, down the same gradient, taken before either has moved:

        h ← h − lr_h · ∂E/∂h,  W ← W − lr_W · ∂E/∂W

    With one step from the forward pass only the output has an error, so that only the weights that lead directly to it
    move, as in backpropagation.

    Args:
        steps: of inference and learning for each batch.
        unroll: how many of them to compile as one round of the loop, see `infer`.

    Reference:
        Salvatori et al., A Stable, Fast, and Fully Automatic Learning Algorithm for Predictive Coding Networks,
        arXiv 2212.00720 (2022).
    """

    steps: int = 8
    unroll: int | bool = 1

    def __call__(self, x: Any, y: Any, *, model: Model, nodes: Optim, weights: Optim) -> Float[Array, " steps"]:
        """Initialises the nodes, then infers and learns together, compiled as a whole.

        Args:
            x: a batch of samples.
            y: their targets.
            model: the model. Its weights change; its nodes are cleared.
            nodes: the optimiser of the nodes' states; it starts anew, and is cleared afterwards.
            weights: the optimiser of the weights, initialised with these; it steps `steps` times.

        Returns:
            The energy before every step, a mean over the samples.
        """
        return _train(x, y, self, model=model, nodes=nodes, weights=weights)


@value_and_grad({"model": NODES | WEIGHTS}, has_aux=True)
def _energy_and_gradients(x: Any, *, model: Model) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    each = energies(x, model=model)
    return each.sum(), each


@jit(static_argnums=2)
def _train(x: Any, y: Any, algorithm: IPC, *, model: Model, nodes: Optim, weights: Optim) -> Float[Array, " steps"]:
    def move(no_input: None, *, model: Model, nodes: Optim, weights: Optim) -> tuple[tuple[()], Float[Array, ""]]:
        (_, (each,)), grads = _energy_and_gradients(x, model=model)
        nodes.step(model, grads["model"])
        weights.step(model, grads["model"], scale_by=1 / each.size)
        return (), each.mean()

    with step(model, clear_params=PER_SAMPLE):
        initialise(x, y, model=model)
        nodes.init(NODES(model))
        with step(model, clear_params=(VodeParam.Cache, None)):  # a loop can not clear what it starts with
            loop = scan(move, length=algorithm.steps, unroll=algorithm.unroll)
            history = loop(model=model, nodes=nodes, weights=weights)[1]
        nodes.clear()
    return history

"""Nudging: the output is pulled towards the target, or pushed away from it, rather than clamped to it."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from minipcax.functional import jit
from minipcax.learning._batch import PER_SAMPLE, Model, forward, observed
from minipcax.learning._inference import infer
from minipcax.learning._learning import learn
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step


@dataclass(frozen=True)
class Nudging:
    """Predictive coding with a nudged output; calling it trains a model on one batch.

    After the forward pass, the observed nodes, those with `h.frozen = True`, are set to

        h ← u − β (u − y)

    and the gradients of the weights are divided by β. Positive nudging has 0 < β ≤ 1, where 1 is `PC`; negative nudging
    −1 ≤ β < 0; centred nudging alternates the sign, by epoch. A schedule makes a new `Nudging` when β changes, which
    compiles nothing anew: `Nudging(min(1, 0.75 + 0.02 * epoch))`.

    Args:
        beta: how much of the way to the target, and in which direction; not zero.
        steps: of inference for each batch.
        unroll: how many of them to compile as one round of the loop, see `infer`.

    Reference:
        Pinchetti et al., Benchmarking Predictive Coding Networks -- Made Simple, arXiv 2407.01163 (2024).
    """

    beta: float
    steps: int = 8
    unroll: int | bool = 1

    def __post_init__(self) -> None:
        if self.beta == 0:
            raise ValueError("Nudging expected a beta other than 0, by which the gradients are divided")

    def __call__(self, x: Any, y: Any, *, model: Model, nodes: Optim, weights: Optim) -> Float[Array, " steps"]:
        """Initialises the nodes, nudges, infers, and learns, compiled as a whole.

        Args:
            x: a batch of samples.
            y: their targets.
            model: the model. Its weights change; its nodes are cleared.
            nodes: the optimiser of the nodes' states.
            weights: the optimiser of the weights, initialised with these.

        Returns:
            The energy before every step of inference, a mean over the samples.
        """
        return _train(x, y, self.beta, self.steps, self.unroll, model=model, nodes=nodes, weights=weights)


@jit(static_argnums=(3, 4))
def _train(
    x: Any,
    y: Any,
    beta: float | Float[Array, ""],
    steps: int,
    unroll: int | bool,
    *,
    model: Model,
    nodes: Optim,
    weights: Optim,
) -> Float[Array, " steps"]:
    with step(model, clear_params=(PER_SAMPLE, PER_SAMPLE)):
        with step(model, clear_params=(None, VodeParam.Cache)):
            forward(x, y, model=model)
            for node in observed(model):
                u = node.get("u")
                node.h.set(u - beta * (u - node.h))
        history = infer(x, steps, unroll, model=model, optim=nodes)
        learn(x, 1 / beta, model=model, optim=weights)
    return history

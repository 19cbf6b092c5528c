"""Nudging: the output is pulled towards the target, or pushed away from it, rather than clamped to it."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from minipcax.learning._algorithm import Algorithm
from minipcax.learning._batch import forward, observed_loss
from minipcax.learning._inference import relax
from minipcax.learning._learning import learn
from minipcax.learning._model import Batch, Model, split_nodes
from minipcax.learning._report import Report
from minipcax.predictive_coding import Vode, VodeParam, ce_energy, se_energy
from minipcax.utils import Optim, step


def _prediction(path: str, node: Vode[Any]) -> Array | None:
    u: Array | None = node.get("u")
    if u is None or getattr(node.energy_fn, "func", node.energy_fn) is se_energy:
        return u
    if node.energy_fn is ce_energy:
        return jax.nn.softmax(u)
    raise ValueError(
        f"Nudging expected se_energy or ce_energy in the observed node {path}, found {node.energy_fn}, of which it "
        "does not know how a state lies between prediction and target: use PC"
    )


@dataclass(frozen=True)
class Nudging(Algorithm):
    """Predictive coding with a nudged output. After the forward pass, the observed nodes (`h.frozen = True`) are set to

        h ← u − β (u − y)

    (with `ce_energy`, softmax(u) takes the place of u) and the gradients of the weights are divided by β. Positive
    nudging has 0 < β ≤ 1, where 1 is `PC`; negative nudging −1 ≤ β < 0; centred nudging alternates the sign, by epoch.
    A schedule is a new `Nudging` when β changes, which compiles nothing anew: `Nudging(min(1.0, 0.75 + 0.02 * epoch))`,
    `Nudging(0.9 * (-1) ** epoch)`.

    Args:
        beta: how much of the way to the target, and in which direction; not zero.
        steps: of inference for each batch.
        unroll: how many of them to compile as one round of the loop, see `infer`.

    Raises:
        ValueError: β is zero, or beyond 1 or −1.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> Nudging(0.5, steps=2)(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (2,)

    Reference:
        Pinchetti et al., Benchmarking Predictive Coding Networks -- Made Simple, arXiv 2407.01163 (2024).
    """

    beta: float
    steps: int = 8
    unroll: int | bool = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        known = not isinstance(self.beta, Tracer)
        if known and (isinstance(self.beta, (bool, str)) or np.ndim(self.beta) or not 0 < abs(self.beta) <= 1):
            raise ValueError(
                f"Nudging expected a beta other than 0, by which the gradients are divided, and from -1 to 1, found "
                f"{self.beta}: 1 is all the way to the target, negative is away from it"
            )

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        with step(model, clear_params=(None, VodeParam.Cache)):
            predictions = forward(x, y, model=model)
            observed = split_nodes(model)[1]
            loss = observed_loss(model)
            for path, node in observed.items():
                u = _prediction(path, node)
                if u is not None:  # an input that is clamped has none
                    node.h.set(u - self.beta * (u - node.h))
        history = relax(x, self.steps, self.unroll, model=model, optim=nodes)
        learn(x, 1 / self.beta, model=model, optim=weights)
        return Report(history, loss, predictions)

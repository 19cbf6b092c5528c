"""Nudging: the output is pulled towards the target, or pushed away from it, rather than clamped to it."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

import minipcax.learning._refusals as refusals
from minipcax.core.tree import path_name, walk
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._checks import check_value_nodes
from minipcax.learning._forward import forward
from minipcax.learning._inference import relax
from minipcax.learning._learning import learn
from minipcax.learning._model import Batch, Model, energy_function, split_nodes, status_of, vodes
from minipcax.learning._report import Report
from minipcax.learning._solver import Solver
from minipcax.nn import LayerParam
from minipcax.predictive_coding import Amortised, Vode, VodeParam, ce_energy, se_energy
from minipcax.utils import Optim, step


def _least_energetic(path: str, node: Vode[Any]) -> Array | None:
    """Returns the state at which an observed node agrees with its prediction; `None` if it has none, as an input."""
    u: Array | None = node.get("u")
    energy_fn = energy_function(node)
    if u is None or energy_fn is se_energy:
        return u
    if energy_fn is ce_energy:
        return jax.nn.softmax(u)
    raise refusals.unknown_nudge(path, node.energy_fn)


def _check_energies(model: Model) -> None:
    """Raises if weights have a gradient before the nudge, which dividing by β would enlarge, or turn around."""
    for path, node in vodes(model).items():
        normalised = getattr(node.energy_fn, "keywords", {}).get("log_normaliser", False)
        precision = vars(node).get("precision")
        learned = (isinstance(precision, LayerParam) and not precision.frozen) or "precision" in node.cache
        if normalised and learned:
            raise refusals.nudged(path, "a precision that is learned with log_normaliser=True")
    for place, module in walk(model):
        if isinstance(module, Amortised):
            raise refusals.nudged(path_name(place), "a network that learns from where inference ends")


@dataclass(frozen=True)
class Nudging(Algorithm):
    """Predictive coding with a nudged output: after the forward pass, each observed node (`h.frozen = True`) is set to

        h ← u − β (u − y)

    (with `ce_energy`, softmax(u) takes the place of u), inference runs as in `PC`, and the gradients of the weights are
    divided by β. So all energies must be least at the predictions, where weights must have no gradient. Positive
    nudging has 0 < β ≤ 1, where 1 is `PC`; negative nudging −1 ≤ β < 0; centred nudging alternates the sign. For a
    schedule, make a new `Nudging` when β changes, which does not compile again: `Nudging(0.9 * (-1) ** epoch)`, or
    `Nudging(min(1.0, 0.75 + 0.02 * epoch))`.

    Args:
        beta: β, the fraction of the way from the prediction to the target, from −1 to 1 but not 0.
        steps: the steps of inference for each batch, an int of at least 1.
        unroll: how many steps to compile as one iteration of the loop, see `infer`.

    Raises:
        ValueError: β is 0 or not from −1 to 1, `steps` or `unroll` is not a positive int, or, in a call, an observed
            node has an energy function other than `se_energy` and `ce_energy`, the model learns a precision, or has
            an `Amortised` node or energies other than those of value nodes.

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
            raise refusals.other_beta(self.beta)

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim | Solver, weights: Optim) -> Report:
        check_value_nodes(model, "Nudging")
        with step(model, status_of(model), clear_params=(None, VodeParam.Cache)):
            predictions, observed = forward(x, y, model=model)
            _check_energies(model)
            for path, node in split_nodes(model)[1].items():
                u = _least_energetic(path, node)
                if u is not None:
                    node.h.set(u - self.beta * (u - node.h))
        history = relax(x, self.steps, self.unroll, model=model, optim=nodes)
        learn(x, 1 / self.beta, model=model, optim=weights)
        return Report(history, observed.sum(axis=-1).mean(), predictions)

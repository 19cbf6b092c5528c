"""What all algorithms are: an immutable object of hyperparameters, whose call is one training step on a batch.

A new idea is a short file beside this one: a frozen dataclass that says how to train, made of `initialise`, `relax`,
`learn` or one's own parts. Say, predictive coding that learns twice from every batch:

    @dataclass(frozen=True)
    class Eager(Algorithm):
        steps: int = 8

        def train(self, x, y, *, model, nodes, weights):
            predictions = initialise(x, y, model=model)
            history = relax(x, self.steps, model=model, optim=nodes)
            learn(x, model=model, optim=weights)
            learn(x, model=model, optim=weights)
            return Report(history, history.total[0], predictions)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Self

import jax

from minipcax.functional import jit
from minipcax.learning._batch import PER_SAMPLE, Batch, Model
from minipcax.learning._report import Report
from minipcax.utils import Optim, step


@dataclass(frozen=True)
class Algorithm(ABC):
    """The base of the algorithms.

    An algorithm is a pytree: its hyperparameters that are floats are traced, so that a schedule compiles nothing anew,
    and all others are structure.

    Example:
        >>> jax.tree.leaves(Nudging(0.5, steps=4))
        [0.5]
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        jax.tree_util.register_pytree_node(cls, cls._flatten, cls._unflatten)

    def __call__(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        """Trains a model on one batch, compiled as a whole.

        Args:
            x: a batch of samples.
            y: their targets.
            model: the model. Its weights change; the states of its nodes are cleared.
            nodes: the optimiser of the nodes' states.
            weights: the optimiser of the weights, initialised with these.

        Returns:
            The energies, the loss and the predictions.
        """
        return _train(self, x, y, model=model, nodes=nodes, weights=weights)

    @abstractmethod
    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        """The training step, with the arguments of the call. The nodes are cleared before and after it."""

    def _flatten(self) -> tuple[list[Any], tuple[Any, ...]]:
        values = [getattr(self, field.name) for field in fields(self)]
        traced = [isinstance(value, (float, jax.Array)) for value in values]
        children = [value for value, is_traced in zip(values, traced, strict=True) if is_traced]
        return children, tuple(None if is_traced else (value,) for value, is_traced in zip(values, traced, strict=True))

    @classmethod
    def _unflatten(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> Self:
        algorithm, traced = object.__new__(cls), iter(children)
        for field, static in zip(fields(cls), structure, strict=True):
            object.__setattr__(algorithm, field.name, static[0] if static else next(traced))
        return algorithm


@jit
def _train(algorithm: Algorithm, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
    with step(model, clear_params=(PER_SAMPLE, PER_SAMPLE)):
        return algorithm.train(x, y, model=model, nodes=nodes, weights=weights)

"""What all algorithms are: an immutable object of hyperparameters, whose call is one training step on a batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np

from minipcax.functional import jit
from minipcax.learning._inference import check_steps
from minipcax.learning._model import PER_SAMPLE, Batch, Model, split_nodes
from minipcax.learning._report import Report
from minipcax.utils import Optim, step

TRACED = (float, np.floating, np.ndarray, jax.Array)


@dataclass(frozen=True)
class Algorithm(ABC):
    """The base of the algorithms. A new one is a frozen dataclass that says how to train.

    It is made of `start` (the forward pass), `relax`, `learn`, or one's own parts. Its hyperparameters that are floats
    or arrays are traced, so that a schedule compiles nothing anew; all others are structure.

    Raises:
        ValueError: `steps`, if there are any, is not a positive int; or a model has no node to observe the targets.
        TypeError: an optimiser is not an `Optim`.

    Example: predictive coding that learns twice from every batch.
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Eager(Algorithm):
        ...     steps: int = 8
        ...
        ...     def train(self, x, y, *, model, nodes, weights):
        ...         predictions, loss = start(x, y, model=model)
        ...         history = relax(x, self.steps, model=model, optim=nodes)
        ...         learn(x, model=model, optim=weights)
        ...         learn(x, model=model, optim=weights)
        ...         return Report(history, loss, predictions)
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> Eager(steps=3)(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (3,)
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
        for name, optim in (("nodes", nodes), ("weights", weights)):
            if not isinstance(optim, Optim):
                raise TypeError(
                    f"{name} expected an Optim, found a {type(optim).__name__}: write Optim(optax.sgd(...))"
                )
        return _train(self, x, y, model=model, nodes=nodes, weights=weights)

    def __post_init__(self) -> None:
        check_steps(getattr(self, "steps", 1))

    @abstractmethod
    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        """The training step, with the arguments of the call. The states of the nodes are cleared before and after."""

    def _flatten(self) -> tuple[list[Any], tuple[Any, ...]]:
        traced = {name: value for name, value in vars(self).items() if isinstance(value, TRACED)}
        static = tuple((name, value) for name, value in vars(self).items() if name not in traced)
        return [*traced.values()], (tuple(traced), static)

    @classmethod
    def _unflatten(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> Self:
        names, static = structure
        algorithm = object.__new__(cls)
        vars(algorithm).update(zip(names, children, strict=True))
        vars(algorithm).update(static)
        return algorithm


@jit
def _train(algorithm: Algorithm, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
    if y is not None and not split_nodes(model)[1]:
        raise ValueError(
            "expected a model with an observed node, which takes the targets, found none: set h.frozen = True of its "
            "output node"
        )
    with step(model, clear_params=(PER_SAMPLE, PER_SAMPLE)):
        return algorithm.train(x, y, model=model, nodes=nodes, weights=weights)

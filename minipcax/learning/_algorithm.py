"""The base of all algorithms: an immutable object of hyperparameters, whose call is one training step on a batch."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import minipcax.learning._refusals as refusals
from minipcax.core.refusals import path_to_param
from minipcax.functional import jit
from minipcax.learning._checks import check_loop, check_model, check_observed
from minipcax.learning._forward import clear_other_batches
from minipcax.learning._hyperparameters import Hyperparameters
from minipcax.learning._model import PER_SAMPLE, Batch, Model, status_of
from minipcax.learning._optimisers import check_kinds, check_nodes, check_weights, warn_of_unlearned
from minipcax.learning._pass import check_pass
from minipcax.learning._report import Report
from minipcax.learning._solver import Solver
from minipcax.learning._starts import start_from_present
from minipcax.predictive_coding import VodeParam
from minipcax.utils import M, Optim, step


@dataclass(frozen=True)
class Algorithm(Hyperparameters, ABC):
    """The base class of all algorithms: immutable hyperparameters, whose call is one training step on a batch.

    A new algorithm is a subclass with a `train` method. Its annotated attributes are its hyperparameters: it becomes a
    frozen dataclass without a decorator. `train` consists of `start` (the forward pass), `relax` and `learn`, or of
    parts of your own. Hyperparameters that are floats or arrays, or containers of these alone, are traced, so a
    schedule does not compile again; for a new value of any other, it does.

    Raises:
        ValueError: `steps` or `unroll`, if there are any, is not a positive int.

    Example:
        Predictive coding that learns twice from every batch:

        >>> class Eager(Algorithm):
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

    def __call__(self, x: Batch, y: Batch, *, model: Model, nodes: Optim | Solver, weights: Optim) -> Report:
        """Trains a model on one batch, compiled as a whole.

        Args:
            x: a batch of samples, of shape (batch, ...), or a tree of such arrays.
            y: their targets, of shape (batch, ...), or `None` in a model without targets.
            model: the model. Its weights change; the states of its nodes are cleared.
            nodes: an `Optim` for the states of the nodes, not initialised; or a `Solver`, for algorithms that take one.
            weights: an optimiser initialised with `WEIGHTS(model)`.

        Returns:
            A `Report` of the energies, the loss and the predictions.

        Raises:
            ValueError: the model has no observed node (`h.frozen = True`), or none that targets reach; it skips a
                node or calls one twice; the batch is empty; or `weights` was not initialised with `WEIGHTS(model)`.
            TypeError: an optimiser is not an `Optim`, the model is not an `EnergyModule` with a call, a hyperparameter
                is or holds a parameter, or arrays beside other things, or Python code depends on a traced one.
        """
        check_kinds(nodes, weights)
        try:
            return _train(self, x, y, model=model, nodes=nodes, weights=weights)
        except TypeError as error:
            named = re.search(r"args\[0\]\.(\w+)", str(error))  # JAX's name for where the tracer came from
            if named is None or named.group(1) not in vars(self):  # such as that of an attribute of the model
                raise
            raise refusals.traced_choice(self, named.group(1)) from error

    def __post_init__(self) -> None:
        check_loop(getattr(self, "steps", 1), getattr(self, "unroll", 1))

    @abstractmethod
    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        """Implements the training step, with the arguments of a call; nodes are cleared before and after it."""


@jit
def _train(algorithm: Algorithm, x: Batch, y: Batch, *, model: Model, nodes: Any, weights: Optim) -> Report:
    for hyperparameters in (algorithm, nodes):
        where = path_to_param(hyperparameters, closures=False) if not isinstance(hyperparameters, Optim) else None
        if where is not None:
            raise refusals.held(hyperparameters, where)
    check_model(model)
    if isinstance(nodes, Optim):
        check_nodes(nodes, model, "nodes")
    check_weights(weights, model, "weights")
    if y is not None:
        check_observed(model, type(algorithm).__name__)
    cleared = PER_SAMPLE
    if getattr(algorithm, "start", None) is start_from_present:
        cleared = M(VodeParam.Cache)
        clear_other_batches((x, y), model)
    with step(model, status_of(model), clear_params=(cleared, cleared)):
        # `forward` checks the pass as well, for those who call it by hand; here, an algorithm may have one of its own.
        warn_of_unlearned(model, check_pass(x, y, model=model, learns=True))
        return algorithm.train(x, y, model=model, nodes=nodes, weights=weights)

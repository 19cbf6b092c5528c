"""What all algorithms are: an immutable object of hyperparameters, whose call is one training step on a batch."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Self, dataclass_transform

import jax
import numpy as np
from jax.tree_util import GetAttrKey

from minipcax.functional import jit
from minipcax.learning._checks import check_model, check_pass
from minipcax.learning._inference import check_steps, check_unroll
from minipcax.learning._model import PER_SAMPLE, Batch, Model, split_nodes
from minipcax.learning._optimisers import check_kinds, check_optimisers, warn_of_unlearned
from minipcax.learning._report import Report
from minipcax.utils import Optim, step

TRACED = (float, np.floating, np.ndarray, jax.Array)


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Algorithm(ABC):
    """The base of the algorithms. A new one is a class that says how to train; its annotated attributes are its
    hyperparameters, for it becomes a frozen dataclass without being told.

    It is made of `start` (the forward pass), `relax`, `learn`, or one's own parts. Its hyperparameters that are floats
    or arrays are traced, so that a schedule compiles nothing anew; all others are structure.

    Raises:
        ValueError: `steps` or `unroll`, if there are any, is not a positive int; a model has no node to observe the
            targets, or they do not reach it; a node is left out, or called twice; or the optimiser of the weights is
            not that of what `WEIGHTS(model)` selects.
        TypeError: an optimiser is not an `Optim`, the model no `EnergyModule`, or a choice depends on what is traced.

    Example: predictive coding that learns twice from every batch.
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

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(cls, cls._flatten_with_keys, cls._unflatten, cls._flatten)
        for base in cls.__bases__:
            _make_dataclass(base)
        for field in fields(cls):  # those of the bases: `steps = 64` is a new default, as `steps: int = 64` is
            if field.name in vars(cls):
                cls.__annotations__ = {field.name: field.type} | vars(cls).get("__annotations__", {})

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        _make_dataclass(cls)  # not before: the class may yet be decorated
        return super().__new__(cls)

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
        check_kinds(nodes, weights)
        try:
            return _train(self, x, y, model=model, nodes=nodes, weights=weights)
        except TypeError as error:
            _refuse_choice_by_traced(self, error)
            raise

    def __post_init__(self) -> None:
        check_steps(getattr(self, "steps", 1))
        check_unroll(getattr(self, "unroll", 1))

    @abstractmethod
    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        """The training step, with the arguments of the call. The states of the nodes are cleared before and after."""

    def _flatten(self) -> tuple[list[Any], tuple[Any, ...]]:
        traced = {name: value for name, value in vars(self).items() if isinstance(value, TRACED)}
        static = tuple((name, value) for name, value in vars(self).items() if name not in traced)
        return [*traced.values()], (tuple(traced), static)

    def _flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, structure = self._flatten()
        return [(GetAttrKey(name), value) for name, value in zip(structure[0], values, strict=True)], structure

    @classmethod
    def _unflatten(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> Self:
        names, static = structure
        algorithm = object.__new__(cls)
        vars(algorithm).update(zip(names, children, strict=True))
        vars(algorithm).update(static)
        return algorithm


def _refuse_choice_by_traced(algorithm: Algorithm, error: Exception) -> None:
    named = re.search(r"args\[0\]\.(\w+)", str(error))  # as JAX calls what the tracer came from
    if named is not None:
        raise TypeError(
            f"{type(algorithm).__name__}.train needs to know its hyperparameter {named.group(1)} while it is compiled, "
            "but floats and arrays are traced, so that a schedule compiles nothing anew: choose with jnp.where or "
            "minipcax.functional.cond, or let a hyperparameter that is a bool, an int or a string say it"
        ) from error


def _make_dataclass(cls: type) -> None:
    own = vars(cls)
    if issubclass(cls, Algorithm) and "__dataclass_params__" not in own and "__init__" not in own:
        dataclass(frozen=True)(cls)


@jit
def _train(algorithm: Algorithm, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
    check_model(model)
    check_optimisers(nodes, weights, model)
    if y is not None and not split_nodes(model)[1]:
        raise ValueError(
            "expected a model with an observed node, which takes the targets, found none: set h.frozen = True of its "
            "output node"
        )
    with step(model, clear_params=(PER_SAMPLE, PER_SAMPLE)):
        warn_of_unlearned(model, check_pass(x, y, model=model))
        return algorithm.train(x, y, model=model, nodes=nodes, weights=weights)

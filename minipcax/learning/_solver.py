"""Solvers: other ways than the steps of an optimiser in which states get from a start to states of least energy.

A solver sees inference as a `Problem`, the energy as a pure function of the states, and nothing of models and their
parameters. So what is written for such functions, such as the ODE solvers of diffrax, can be used as it is, and so can
one of your own. Algorithms take a solver where they take the optimiser of the nodes:

    PC(steps=100)(x, y, model=model, nodes=GradientFlow(), weights=weights)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from minipcax.core import DynamicParam
from minipcax.core.random import keeping_key
from minipcax.core.tree import copied, paths_of_params
from minipcax.learning._hyperparameters import Hyperparameters, check_number
from minipcax.learning._model import NODES, Model, Number

States = dict[str, Array]  # of the inferred nodes, by path
Energies = Float[Array, "*batch nodes"]


@dataclass(frozen=True)
class GradientTolerance(Hyperparameters):
    """A tolerance for inference, which stops where the gradient is small: ‖∂E/∂h‖ ≤ `most`.

    Args:
        most: the largest norm over all states of a sample, a number of at least 0; for a batch, it bounds the root of
            the mean square over the samples.
        per_sample: whether each sample stops on its own, instead of all once the batch has settled. An `Optim` that
            looks at the whole batch, such as L-BFGS, still does; a `Solver` then solves each sample by itself, and no
            layer may look across samples.

    Raises:
        ValueError: `most` is not such a number.

    Example:
        >>> PC(steps=100, tolerance=GradientTolerance(1e-3)).tolerance
        GradientTolerance(most=0.001, per_sample=False)
    """

    most: Number
    per_sample: bool = False

    def __post_init__(self) -> None:
        check_number(self, "most", self.most)

    def settled(self, gradients: States, samples: int) -> Bool[Array, "*samples"]:
        """Returns whether the batch has settled, or, of shape (samples,), which of its samples have."""
        squares = jnp.stack([jnp.square(each.reshape(samples, -1)).sum(axis=1) for each in gradients.values()])
        norms = jnp.sqrt(squares.sum(axis=0))
        return (norms if self.per_sample else jnp.sqrt(jnp.square(norms).mean())) <= self.most


class Snapshot(NamedTuple):
    """What a solver keeps of the states at one step; several of them have a leading axis of steps.

    Args:
        energies: of shape (batch, nodes), or (nodes,) if the problem is that of one sample.
        states: a dict from path to state, if they are recorded, else `None`.

    Example:
        >>> Snapshot(jnp.zeros((5, 2)), None).energies.shape  # of 5 samples in 2 nodes
        (5, 2)
    """

    energies: Float[Array, "..."]
    states: States | None


class Solution(NamedTuple):
    """What a solver returns.

    Args:
        states: a dict from path to state at the end, of the shapes of `problem.states`.
        snapshots: those before each step, with a leading axis of steps; once the solver has stopped, the last is
            repeated.
        gradients: how many times the gradient was computed, a scalar array.

    Example:
        The solution of a solver that takes one step and stays where it is:

        >>> here = {".vode.h": jnp.zeros((5, 4))}
        >>> Solution(here, Snapshot(jnp.zeros((1, 5, 2)), None), jnp.array(0)).states.keys()
        dict_keys(['.vode.h'])
    """

    states: States
    snapshots: Snapshot
    gradients: Int[Array, ""]


class Problem:
    """Inference as a solver sees it: the energy as a function of the states of the inferred nodes.

    `states` is the dict from path to state at the start, each of shape (batch, ...), or (...) if the problem is that of
    one sample. Everything else, random keys included, is fixed. The methods are pure, and may be called within any
    transform or loop of JAX. A `Solver` is given a problem; nobody else needs to make one.

    Example:
        >>> class Still(Solver):
        ...     def solve(self, problem, steps):
        ...         print(jax.tree.map(jnp.shape, problem.states), problem.energies(problem.states).shape)
        ...         snapshots = jax.tree.map(lambda each: each[None], problem.snapshot(problem.states))
        ...         return Solution(problem.states, snapshots, jnp.array(0))
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> _ = relax(x, 1, model=model, optim=Still())
        {'.vode.h': (5, 4)} (5, 2)
    """

    states: States  # at the start

    def __init__(
        self,
        energies: Callable[..., Float[Array, "*batch nodes"]],  # of the model, by keyword
        model: Model,
        tolerance: GradientTolerance | None,
        record: bool,
    ) -> None:
        self._energies, self._model, self._tolerance, self._record = keeping_key(energies), model, tolerance, record
        self.states = states_of(model)

    def energies(self, states: States) -> Float[Array, "*batch nodes"]:
        """Returns the energy of each node, of shape (batch, nodes), or (nodes,) for the problem of one sample.

        Raises:
            ValueError: the states are not those of the inferred nodes.
        """
        if states.keys() != self.states.keys():
            raise ValueError(f"expected the states of all inferred nodes, {[*self.states]}, found {[*states]}")
        copy = copied(self._model)
        for path, param in inferred(copy).items():
            param.set(states[path])
        return self._energies(model=copy)

    def energy(self, states: States) -> Float[Array, ""]:
        """Returns the sum of all energies, which the solver minimises."""
        return self.energies(states).sum()

    def snapshot(self, states: States) -> Snapshot:
        """Returns the snapshot of these states."""
        return Snapshot(self.energies(states), states if self._record else None)

    def gradients(self, states: States) -> tuple[Snapshot, States]:
        """Returns the snapshot of these states, and ∂E/∂h by path."""

        def energy(states: States) -> tuple[Float[Array, ""], Snapshot]:
            snapshot = self.snapshot(states)
            return snapshot.energies.sum(), snapshot

        gradients, snapshot = jax.grad(energy, has_aux=True)(states)
        return snapshot, gradients

    @property
    def has_tolerance(self) -> bool:
        """Whether the solver should stop when the gradient is small."""
        return self._tolerance is not None

    def settled(self, gradients: States) -> Bool[Array, ""]:
        """Returns whether the gradient is small enough to stop; `False` without a tolerance."""
        if self._tolerance is None:
            return jnp.array(False)
        samples = 1 if self._tolerance.per_sample else len(next(iter(gradients.values())))
        return self._tolerance.settled(gradients, samples).all()


class Solver(Hyperparameters, ABC):
    """The base class of solvers, which take the place of the optimiser of the nodes: `PC()(..., nodes=LBFGS(), ...)`.

    A new solver is a subclass with a `solve` method. Its annotated attributes are its hyperparameters, as in
    `Algorithm`.

    Example:
        Newton's method, which finds the states of a linear network in one step:

        >>> class Newton(Solver):
        ...     def solve(self, problem, steps):
        ...         def newton(states, _):
        ...             flat, shaped = jax.flatten_util.ravel_pytree(states)
        ...             energy = lambda flat: problem.energy(shaped(flat))
        ...             move = jnp.linalg.solve(jax.hessian(energy)(flat), jax.grad(energy)(flat))
        ...             return shaped(flat - move), problem.snapshot(states)
        ...         states, snapshots = jax.lax.scan(newton, problem.states, length=steps)
        ...         return Solution(states, snapshots, jnp.array(steps))
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> weights = Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> report = PC(steps=2)(x, y, model=model, nodes=Newton(), weights=weights)
        >>> report.energies.shape, int(report.history.gradients)
        ((2,), 2)
    """

    @abstractmethod
    def solve(self, problem: Problem, steps: int) -> Solution:
        """Returns states of minimal energy, found from `problem.states` in at most this number of steps."""


def inferred(model: Any) -> dict[str, DynamicParam[Any]]:  # a model, or gradients in its form
    """Returns the parameters that hold the states of the inferred nodes, by path."""
    return {paths[0]: param for param, paths in paths_of_params(model) if NODES.apply(param)}


def states_of(model: Any) -> States:  # as for `inferred`
    """Returns their values, by path."""
    return {path: param.get() for path, param in inferred(model).items()}

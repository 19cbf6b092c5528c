"""Inference: the states of the nodes move down the energy, with the weights fixed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from minipcax.functional import jit
from minipcax.learning._checks import check_loop, check_minima, check_model, check_solution, check_states, checked_stop
from minipcax.learning._descent import Tolerance, descent, loop
from minipcax.learning._energies import Objective, joined_energies, names_of
from minipcax.learning._model import NODES, Batch, Model, over_samples, status_of
from minipcax.learning._optimisers import check_kind
from minipcax.learning._report import History
from minipcax.learning._solver import GradientTolerance, Problem, Snapshot, Solver, inferred
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step

OBJECTIVE = Objective(NODES, joined_energies)


def infer(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: Tolerance | None = None,
    reset: bool = True,
    *,
    model: Model,
    optim: Optim | Solver,
) -> Float[Array, " steps"]:
    """Relaxes the states of the nodes for a number of steps: h ← h − lr ∂E/∂h, or what the optimiser does instead.

    E is the sum over nodes and samples, so a sample moves the same in a batch of any size. The loop is compiled as one
    `jax.lax.scan`: neither memory nor compile time grow with the number of steps.

    Args:
        x: a batch of samples, of shape (batch, ...); the nodes hold states of the same batch (see `initialise`).
        steps: the number of steps, an int of at least 1; each number compiles once.
        unroll: how many steps to compile as one iteration of the loop, an int of at least 1. `True` means all, without
            a loop: it takes longer to compile, but JAX on CPUs runs convolutions in loops many times slower.
        tolerance: a number of at least 0: updates stop once a step changes the energy of the batch by at most this
            fraction (devices that share a batch then exchange the energy in every step). Or a `GradientTolerance`:
            updates stop once the gradient is small, of the batch or of each sample. `None` takes all steps.
        reset: whether the optimiser starts anew and is cleared afterwards; if `False`, it continues from its last
            state, and all batches must have one size.
        model: the model; the states of its nodes change, except those of frozen nodes.
        optim: an `Optim` for the states, not initialised; or a `Solver`, for which `steps` is the maximum, and `unroll`
            and `reset` have no effect.

    Returns:
        The energy before every step, a mean over the samples, of shape (steps,).

    Raises:
        TypeError: `steps` is an array, such as targets; the model is not an `EnergyModule` with a call; or a `Solver`
            is given a number as tolerance.
        ValueError: an argument is out of range; a state is cleared; `optim` was initialised with weights; or an
            inferred node has `ce_energy`, which has no minimum in h.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> infer(x, 3, model=model, optim=Optim(optax.sgd(0.1))).round(6).tolist()  # nothing is observed
        [0.0, 0.0, 0.0]

    Reference:
        Whittington and Bogacz, An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network,
        Neural Computation 29 (2017).
    """
    check_loop(steps, unroll, tolerance, reset)
    check_kind("optim", optim, Optim | Solver)
    return _infer(x, steps, unroll, tolerance, reset, model=model, optim=optim)


@jit(static_argnums=(1, 2, 4))
def _infer(*args: Any, model: Model, optim: Optim | Solver) -> Float[Array, " steps"]:
    return relax(*args, model=model, optim=optim).total


def relax(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: Tolerance | None = None,
    reset: bool = True,
    record: bool = False,
    *,
    model: Model,
    optim: Optim | Solver,
) -> History:
    """Does what `infer` does, inside a `jit`, and returns the energy of every node.

    It takes the arguments of `infer`; with `record`, the history also has the states before every step.

    Returns:
        A `History`, with energies of shape (steps, nodes).

    Raises:
        TypeError: see `infer`.
        ValueError: see `infer`.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> relax(x, 2, model=model, optim=Optim(optax.sgd(0.1))).energies.shape
        (2, 2)
    """
    check_model(model)
    check_minima(model)
    return descend(OBJECTIVE, x, steps, unroll, tolerance, reset, record, model=model, optim=optim)


def descend(
    objective: Objective,
    x: Batch,
    steps: int,
    unroll: int | bool,
    tolerance: Tolerance | None,
    reset: bool = True,
    record: bool = False,
    *,
    model: Model,
    optim: Optim | Solver,
) -> History:
    """Brings the states to a lower value of the objective, as `infer` says."""
    check_loop(steps, unroll, tolerance, reset)
    check_kind("optim", optim, Optim | Solver)
    check_states(model)
    if not inferred(model):  # all nodes are observed, and nothing is left to move
        optim, tolerance = Optim(optax.identity()), None
    if isinstance(optim, Solver):
        return _solve(optim, objective, x, steps, checked_stop(tolerance), record, model)
    move = descent(objective, x, tolerance if isinstance(tolerance, GradientTolerance) else None)
    return loop(move, steps, unroll, tolerance, reset, record, model=model, optim=optim)


def _solve(
    solver: Solver,
    objective: Objective,
    x: Batch,
    steps: int,
    tolerance: GradientTolerance | None,
    record: bool,
    model: Model,
) -> History:
    per_sample = tolerance is not None and tolerance.per_sample
    energies = objective.of_sample if per_sample else objective.of_batch

    def solve(x: Batch, /, *, model: Model) -> tuple[Snapshot, Int[Array, ""]]:
        problem = Problem(partial(energies, x), model, tolerance, record)
        solution = solver.solve(problem, steps)
        check_solution(solution, problem, steps, solver)
        for path, param in inferred(model).items():
            param.set(solution.states[path])
        return solution.snapshots, solution.gradients

    with step(model, status_of(model), clear_params=(VodeParam.Cache, None)):
        name = "GradientTolerance(per_sample=True) with a solver"
        snapshots, gradients = (over_samples(solve, name) if per_sample else solve)(x, model=model)
    if per_sample:
        snapshots = jax.tree.map(lambda array: jnp.moveaxis(array, 0, 1), snapshots)
    return History(snapshots.energies.mean(axis=1), names_of(model.nodes()), gradients, snapshots.states)

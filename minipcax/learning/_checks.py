"""Checks of arguments and of models, that need no forward pass; `_pass` has the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minipcax.core.refusals import kind_of
from minipcax.core.tree import path_name, walk
from minipcax.learning._model import Batch, Model, energy_function, split_nodes, vodes
from minipcax.learning._solver import GradientTolerance, Problem, Solution, Solver
from minipcax.predictive_coding import EnergyModule, Vode, VodeParam, ce_energy, se_energy


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Adds the path of a node to the message of a `ValueError` raised in the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in {path or 'the model'}, {error}") from error


def check_not_targets(name: str, expected: str, value: Any) -> None:  # anything that a caller may write
    """Raises if an argument is an array, as when targets are passed in its place."""
    if np.ndim(value):
        raise TypeError(
            f"{name} expected {expected}, found an array of shape {np.shape(value)}: targets go to "
            "initialise(x, y, model=model)"
        )


def check_loop(steps: object, unroll: object = 1, tolerance: object = None, reset: object = True) -> None:
    """Raises if an argument of `infer` is out of its range."""
    check_not_targets("steps", "a positive int", steps)
    all_steps = "a positive int, or True for all steps (a tolerance is given by name, tolerance=...)"
    known = isinstance(tolerance, jax.Array | GradientTolerance) or _is_at_least(0, tolerance, (int, float, np.number))
    _expect(_is_at_least(1, steps), "steps", "a positive int", steps)
    _expect(isinstance(unroll, bool) or _is_at_least(1, unroll), "unroll", all_steps, unroll)
    _expect(tolerance is None or known, "tolerance", "a number of at least 0, a GradientTolerance, or None", tolerance)
    _expect(isinstance(reset, (bool, np.bool_)), "reset", "a bool", reset)


def checked_stop(tolerance: object) -> GradientTolerance | None:
    """Returns where a solver stops; raises if that is a share of the energy."""
    if not isinstance(tolerance, GradientTolerance | None):
        raise TypeError(
            "a solver expected tolerance=GradientTolerance(...), or None, found a share of the energy, which is for "
            "the steps of an optimiser: their changes of the energy can be compared"
        )
    return tolerance


def check_solution(solution: Solution, problem: Problem, steps: int, solver: Solver) -> None:
    """Raises unless a solver has returned states like those at the start, and as many snapshots as steps."""
    name = f"{type(solver).__name__}.solve"
    if not isinstance(solution, Solution):
        raise TypeError(f"{name} expected to return Solution(states, snapshots, gradients), found {solution!r}")
    expected, found = (jax.tree.map(_shape_and_dtype, states) for states in (problem.states, solution.states))
    if expected != found:
        raise ValueError(f"{name} expected to return states of shapes {expected}, found {found}")
    if jax.tree.map(jnp.shape, [solution.gradients]) != [()]:
        raise ValueError(f"{name} expected to return how many gradients it took, found {solution.gradients!r}")
    one: Any = jax.eval_shape(problem.snapshot, problem.states)
    expected = jax.tree.map(lambda each: (steps, *each.shape), one)
    found = jax.tree.map(jnp.shape, solution.snapshots)
    if expected != found:
        raise ValueError(
            f"{name} expected to return problem.snapshot(states) before each of {steps} steps, with shapes {expected}, "
            f"found {found}"
        )


def _shape_and_dtype(array: Any) -> str:  # as JAX writes it
    return f"{jnp.result_type(array)}{list(jnp.shape(array))}"


def _is_at_least(least: int, value: Any, kinds: tuple[Any, ...] = (int, np.integer)) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and bool(value >= least)


def _expect(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{name} expected {expected}, found {found!r}")


def check_model(model: Model) -> None:
    """Raises if the model is not an `EnergyModule` with a call and value nodes."""
    if not isinstance(model, Model):
        lacks = "call" if hasattr(model, "nodes") else "nodes"
        raise TypeError(
            f"expected a model of value nodes, found {kind_of(model)}, which has no {lacks}: make it an EnergyModule, "
            "with a Vode after each layer, and a __call__(self, x, y=None) that returns the prediction for one sample"
        )
    if not model.nodes():
        raise ValueError("expected a model with value nodes, found none: put a Vode after each layer")
    for path, node in vodes(model).items():
        if not isinstance(node.h, VodeParam):
            raise TypeError(
                f"expected the state of {path or 'the model'} to be a VodeParam, which has a value for each sample, "
                f"found {kind_of(node.h)}: give the node a param_type that is a subclass of VodeParam"
            )
    statuses = {module.status: path_name(path) for path, module in walk(model) if isinstance(module, EnergyModule)}
    if len(statuses) > 1:
        found = ", ".join(f"{status!r} in {path or 'the model'}" for status, path in statuses.items())
        raise ValueError(
            f"expected a model of one status, found {found}: set that of all its modules, with step(model, status)"
        )


def check_samples(x: Batch, y: Batch) -> None:
    """Raises if a batch has no samples."""
    for array in jax.tree.leaves((x, y)):
        if jnp.shape(array)[:1] == (0,):
            raise ValueError(f"expected a batch of samples, found none: an array of shape {jnp.shape(array)}")


def check_states(model: Model) -> None:
    """Raises if the state of a node is cleared."""
    cleared = [f"{path}.h" for path, node in vodes(model).items() if node.h.get() is None]
    if cleared:
        raise ValueError(
            f"expected all nodes to have a state, found none in {', '.join(cleared)}: call "
            "initialise(x, y, model=model) first, which sets those of all nodes"
        )


def check_observed(model: Model, name: str) -> None:
    """Raises if the model has no observed node."""
    if not split_nodes(model)[1]:
        raise ValueError(
            f"{name} expected a model with an observed node, found none: set h.frozen = True of its output node, which "
            "takes the targets"
        )


def check_no_target(model: Model) -> None:
    """Raises if the model has set an observed node to its prediction although there was no target."""
    for path, node in split_nodes(model)[1].items():
        if node.h.get() is not None and node.h.get() is node.get("u"):
            raise ValueError(
                f"the model set the observed node {path} to its prediction when it was given no target, which leaves "
                'no error: write `if y is not None: node.set("h", y)`'
            )


def check_minima(model: Model) -> None:
    """Raises if the energy of an inferred node has no minimum: `ce_energy` is linear in h, and unbounded below."""
    for path, node in split_nodes(model)[0].items():
        if energy_function(node) is ce_energy and node.ruleset.output_for(node.status, "h") is None:
            raise ValueError(
                f"inference expected every inferred node to have an energy with a minimum, found ce_energy in {path}, "
                f"which is linear in h and unbounded below: observe the node, {path}.h.frozen = True and a target, or "
                "give it se_energy"
            )


def check_value_nodes(model: Model, name: str) -> None:
    """Raises if the model has an energy other than those of value nodes."""
    for path, node in model.nodes().items():
        built_in = isinstance(node, Vode) and (type(node).energy is Vode.energy or _is_of_stack(node))
        if not built_in:
            raise ValueError(
                f"{name} expected a model with the energies of value nodes alone, found {kind_of(node)} in "
                f"{path or 'the model'}, whose energy() is its own: make it a Vode with an energy_fn, or use PC, which "
                "takes any energy"
            )


def check_no_stack(model: Model, name: str) -> None:
    """Raises if the model has a `Stack`."""
    for path, node in vodes(model).items():
        if _is_of_stack(node):
            raise ValueError(
                f"{name} expected single nodes, to see whether each predicts the next, found those of a Stack in {path}"
                ": use a list of blocks and nodes, or Backprop, whose gradients are the same"
            )


def _is_of_stack(node: Vode[Any]) -> bool:
    return node.energy_names() != [""]


def check_squared_errors(model: Model, name: str) -> None:
    """Raises if an energy of the model is not of h − u alone, except in observed nodes, or if a node has own rules."""
    check_value_nodes(model, name)
    built_in = Vode().ruleset
    for path, node in split_nodes(model)[0].items():
        if energy_function(node) is not se_energy or node.ruleset != built_in:
            raise ValueError(
                f"{name} expected every inferred node to have se_energy and the built-in rules, found others in "
                f"{path}: use PC for this model"
            )

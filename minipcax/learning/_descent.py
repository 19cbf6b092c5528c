"""Descent: the states move by the steps of an optimiser, in a compiled loop."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from minipcax.functional import cond, scan
from minipcax.learning._energies import Objective, names_of
from minipcax.learning._model import NODES, Batch, Model, Number, status_of
from minipcax.learning._optimisers import check_nodes
from minipcax.learning._report import History
from minipcax.learning._solver import GradientTolerance, States, inferred, states_of
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step

Zoom, Backtracking = optax.ScaleByZoomLinesearchState, optax.ScaleByBacktrackingLinesearchState  # line searches
Tolerance = Number | GradientTolerance


class Moved(NamedTuple):
    """What a step leaves behind, beside the states."""

    energies: Float[Array, "batch nodes"]  # before it
    gradients: Int[Array, ""]  # how many it took
    settled: Bool[Array, "*samples"]  # whether the gradient was small, and nothing has moved


Move = Callable[..., Moved]  # a step, given the model and its optimisers by name


def moved(energies: Float[Array, "batch nodes"], optim: Optim, settled: Array | bool = False) -> Moved:
    """Returns what is known after a step of an optimiser, which may have searched along a line."""
    nodes = jax.tree.leaves(optim.state.get().optax, is_leaf=lambda node: isinstance(node, (Zoom, Backtracking)))
    count = jnp.array(1, jnp.int32)
    for node in nodes:
        if isinstance(node, Zoom):
            count += jnp.asarray(node.info.num_linesearch_steps, jnp.int32)
        elif isinstance(node, Backtracking):  # looks at values alone, and may store the gradient where it ends
            count += node.grad is not None
    return Moved(energies, count, jnp.asarray(settled))


def descent(objective: Objective, x: Batch, tolerance: GradientTolerance | None = None) -> Move:
    """Returns a step of inference: the states of the nodes move down the gradients, as the optimiser says."""

    def move(*, model: Model, optim: Optim) -> Moved:
        value_fn = objective.value_fn(x, model)
        energies, gradients = objective.with_gradients(x, model)
        take_step = partial(optim.step, model, gradients, value=energies.sum(), value_fn=value_fn)
        if tolerance is None:
            take_step()
            return moved(energies, optim)
        settled = tolerance.settled(states_of(gradients), len(energies))
        updates = states_of(take_step(apply_updates=False))
        for path, param in inferred(model).items():
            state = param.get()
            stays = settled.reshape(-1, *[1] * (state.ndim - 1))
            param.set(jnp.where(stays, state, optax.apply_updates(state, updates[path])))
        return moved(energies, optim, settled)

    return move


def loop(
    move: Move,
    steps: int,
    unroll: int | bool,
    tolerance: Tolerance | None = None,
    reset: bool = True,
    record: bool = False,
    **tracked: Any,
) -> History:
    """Runs `move`, as `infer` says, in a compiled loop; `tracked` are its arguments, with `model` and `optim`."""
    model, optim = tracked["model"], tracked["optim"]
    check_nodes(optim, model, "inference")
    if reset or optim.state.get() is None:
        optim.init(NODES(model))
    run = _all_steps if tolerance is None else partial(_until_settled, tolerance)
    with step(
        model, status_of(model), clear_params=(VodeParam.Cache, None)
    ):  # in a loop, parameters cannot be cleared for good
        (energies, counts, settled), states = run(move, steps, unroll, record, tracked)
    if reset:
        optim.clear()
    done = jnp.concatenate([jnp.zeros_like(settled[:1]), settled[:-1]])  # not yet in the step that shows it
    taken = jnp.where(done.T, 0, counts).sum(axis=-1, dtype=jnp.int32)
    # The mean is taken after the loop; inside, it would make devices that share a batch wait for each other.
    return History(energies.mean(axis=1), names_of(model.nodes()), taken, states)


Steps = tuple[Moved, States | None]  # with an axis of steps


def _all_steps(move: Move, steps: int, unroll: int | bool, record: bool, tracked: dict[str, Any]) -> Steps:
    def one_step(no_input: None, /, **tracked: Any) -> tuple[tuple[()], Steps]:
        states = states_of(tracked["model"]) if record else None
        return (), (move(**tracked), states)

    all_steps: Steps = scan(one_step, length=steps, unroll=unroll)(**tracked)[1]
    return all_steps


def _until_settled(
    tolerance: Tolerance, move: Move, steps: int, unroll: int | bool, record: bool, tracked: dict[str, Any]
) -> Steps:
    def unless_settled(
        no_input: None, before: Float[Array, ""], last: Moved, /, **tracked: Any
    ) -> tuple[tuple[Float[Array, ""], Moved], Steps]:
        # Of samples first, for devices that share a batch to exchange one number.
        total = last.energies.sum(axis=1).mean()
        if isinstance(tolerance, GradientTolerance):
            settled = last.settled.all()
        else:
            settled = jnp.abs(total - before) <= tolerance * jnp.abs(before)
        states = states_of(tracked["model"]) if record else None
        again = last._replace(gradients=jnp.zeros_like(last.gradients))
        now: Moved = cond(lambda **tracked: again, move)(settled, **tracked)
        return (total, now), (now, states)

    start, first = states_of(tracked["model"]) if record else None, move(**tracked)
    before = jnp.full_like(first.energies.sum(), jnp.nan)  # to which no energy is close
    later: Steps = scan(unless_settled, length=steps - 1, unroll=unroll)(before, first, **tracked)[1]
    together: Steps = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), (first, start), later)
    return together

"""Inference: the states of the nodes move down the energy, with the weights fixed."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from minipcax.functional import cond, jit, scan, value_and_grad
from minipcax.learning._batch import summed_energy
from minipcax.learning._checks import check_minima, check_model, check_states
from minipcax.learning._model import NODES, Batch, Model, Number
from minipcax.learning._optimisers import check_nodes
from minipcax.learning._report import History
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step

ByNode = Float[Array, " nodes"]  # the energy of every node, from input to output
Energies = Float[Array, "steps nodes"]

energy_and_gradients = value_and_grad({"model": NODES}, has_aux=True)(summed_energy)


def relax(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: Number | None = None,
    reset: bool = True,
    *,
    model: Model,
    optim: Optim,
) -> History:
    """Inference as in `infer`, for use inside a `jit`; returns the energies node by node.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> relax(x, 2, model=model, optim=Optim(optax.sgd(0.1))).energies.shape
        (2, 2)
    """
    check_model(model)
    check_states(model)
    check_minima(model)
    check_nodes(optim, model, "inference")
    if reset or optim.state.get() is None:
        optim.init(NODES(model))

    def move(*, model: Model, optim: Optim) -> ByNode:
        (_, (each,)), grads = energy_and_gradients(x, model=model)
        optim.step(model, grads["model"])
        return each.mean(axis=0)

    if tolerance is None:
        history = loop(move, steps, unroll, model=model, optim=optim)
    else:
        history = _loop_until_settled(move, steps, unroll, tolerance, model=model, optim=optim)
    if reset:
        optim.clear()
    return History(history, tuple(model.nodes()))


def loop(move: Callable[..., ByNode], steps: int, unroll: int | bool, *, model: Model, **optims: Optim) -> Energies:
    """The energies of a number of steps, compiled as one loop; `move` takes the model and the optimisers."""
    check_steps(steps)

    def one_step(no_input: None, /, **tracked: Any) -> tuple[tuple[()], ByNode]:
        return (), move(**tracked)

    with step(model, clear_params=(VodeParam.Cache, None)):  # a loop can not clear what it starts with
        energies: Energies = scan(one_step, length=steps, unroll=unroll)(model=model, **optims)[1]
    return energies


def _loop_until_settled(
    move: Callable[..., ByNode], steps: int, unroll: int | bool, tolerance: Number, *, model: Model, optim: Optim
) -> Energies:
    check_steps(steps)

    def unless_settled(
        no_input: None, before: Float[Array, ""], last: ByNode, *, model: Model, optim: Optim
    ) -> tuple[tuple[Float[Array, ""], ByNode], ByNode]:
        def stay(*, model: Model, optim: Optim) -> ByNode:
            return last

        settled = jnp.abs(last.sum() - before) <= tolerance * jnp.abs(before)
        energies = cond(stay, move)(settled, model=model, optim=optim)
        return (last.sum(), energies), energies

    with step(model, clear_params=(VodeParam.Cache, None)):
        first = move(model=model, optim=optim)
        start = jnp.full_like(first.sum(), jnp.nan)  # which is close to nothing
        later = scan(unless_settled, length=steps - 1, unroll=unroll)(start, first, model=model, optim=optim)[1]
    return jnp.concatenate([first[None], later])


def check_steps(steps: object) -> None:
    """Refuses what is no number of steps."""
    if isinstance(steps, (np.ndarray, Array)):
        raise TypeError(
            f"steps expected a positive int, found an array of shape {steps.shape}: targets go to "
            "initialise(x, y, model=model)"
        )
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps expected a positive int, found {steps!r}")


def check_unroll(unroll: object) -> None:
    """Refuses what is no number of steps to compile as one."""
    if not isinstance(unroll, (int, np.integer, bool)) or (unroll < 1 and unroll is not False):
        raise ValueError(
            f"unroll expected a positive int, or True for all steps, found {unroll!r}; a tolerance is given by name, "
            "tolerance=..."
        )


def check_ending(tolerance: object, reset: object) -> None:
    """Refuses what says nothing about when inference ends, or about what becomes of its optimiser."""
    number = isinstance(tolerance, (int, float, np.number)) and not isinstance(tolerance, bool) and tolerance >= 0
    if not (tolerance is None or isinstance(tolerance, Array) or number):
        raise ValueError(f"tolerance expected a number of at least 0, or None, found {tolerance!r}")
    if not isinstance(reset, (bool, np.bool_)):
        raise ValueError(f"reset expected a bool, found {reset!r}")


def infer(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: Number | None = None,
    reset: bool = True,
    *,
    model: Model,
    optim: Optim,
) -> Float[Array, " steps"]:
    """Relaxes the states of the nodes for a number of steps: h ← h − lr ∂E/∂h, or what else the optimiser does.

    E is the sum over nodes and samples, so that a sample moves the same in a batch of any size. The loop is compiled as
    one `jax.lax.scan`: neither memory nor compile time grow with the number of steps.

    Args:
        x: a batch of samples; the nodes hold states of the same batch (see `initialise`).
        steps: how many steps; another number compiles anew.
        unroll: how many of them to compile as one round of the loop. `True` means all, without a loop, which takes
            longer to compile; JAX on CPUs runs convolutions in loops many times slower than outside.
        tolerance: nothing moves any more once a step has changed the energy by no more than this share of it.
        reset: whether the optimiser starts anew, and is cleared afterwards; or else goes on from its last state, for
            which all batches must be of one size.
        model: the model, whose nodes change, but for the frozen ones.
        optim: the optimiser of the nodes.

    Returns:
        The energy before every step, a mean over the samples.

    Raises:
        TypeError: the steps are an array, such as targets, or the model is no `EnergyModule`.
        ValueError: an argument is out of its range; a state is cleared; or the energy of a node has no minimum.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> infer(x, 3, model=model, optim=Optim(optax.sgd(0.1))).round(6).tolist()  # nothing is observed
        [0.0, 0.0, 0.0]

    Reference:
        Whittington and Bogacz, An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network,
        Neural Computation 29 (2017).
    """
    check_steps(steps)
    check_unroll(unroll)
    check_ending(tolerance, reset)
    return _infer(x, steps, unroll, tolerance, reset, model=model, optim=optim)


@jit(static_argnums=(1, 2, 4))
def _infer(*args: Any, model: Model, optim: Optim) -> Float[Array, " steps"]:
    return relax(*args, model=model, optim=optim).total

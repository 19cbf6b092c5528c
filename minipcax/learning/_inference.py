"""Inference: the states of the nodes move down the energy, with the weights fixed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.functional import cond, jit, scan
from minipcax.learning._checks import check_loop, check_minima, check_model, check_states
from minipcax.learning._energies import names_of, with_gradients
from minipcax.learning._model import NODES, Batch, Gradients, Model, Number
from minipcax.learning._optimisers import check_nodes
from minipcax.learning._report import History
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step

Energies = Float[Array, "batch nodes"]
AllEnergies = Float[Array, "steps batch nodes"]
Move = Callable[..., Energies]  # a step of inference, given the model and its optimisers by name
EnergiesAndGradients = Callable[[Batch, Model], tuple[Energies, Gradients]]

_energies_and_gradients = with_gradients(NODES)


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
    """Relaxes the states of the nodes for a number of steps: h ← h − lr ∂E/∂h, or whatever the optimiser does.

    E is the sum over nodes and samples, so that a sample moves the same in a batch of any size. The loop is compiled as
    one `jax.lax.scan`: neither memory nor compile time grow with the number of steps.

    Args:
        x: a batch of samples; the nodes hold states of the same batch (see `initialise`).
        steps: the number of steps; another number compiles again.
        unroll: how many of them to compile as one round of the loop. `True` means all, without a loop, which takes
            longer to compile; JAX on CPUs runs convolutions in loops many times slower than outside.
        tolerance: updates stop once a step changes the energy, over the whole batch, by at most this fraction of it.
            Devices that share a batch then exchange one number, the energy, in every step, and none without it.
        reset: whether the optimiser starts anew, and is cleared afterwards; otherwise it continues from its last state,
            and all batches must be of one size.
        model: the model, whose nodes change, except the frozen ones.
        optim: the optimiser of the nodes.

    Returns:
        The energy before every step, a mean over the samples.

    Raises:
        TypeError: `steps` is an array, such as targets, or the model is not an `EnergyModule`.
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
    check_loop(steps, unroll, tolerance, reset)
    return _infer(x, steps, unroll, tolerance, reset, model=model, optim=optim)


@jit(static_argnums=(1, 2, 4))
def _infer(*args: Any, model: Model, optim: Optim) -> Float[Array, " steps"]:
    return relax(*args, model=model, optim=optim).total


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
    """`infer`, for use inside a `jit`; returns the energies node by node.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> relax(x, 2, model=model, optim=Optim(optax.sgd(0.1))).energies.shape
        (2, 2)
    """
    check_model(model)
    check_minima(model)
    return loop(descent(_energies_and_gradients, x), steps, unroll, tolerance, reset, model=model, optim=optim)


def descent(energies_and_gradients: EnergiesAndGradients, x: Batch) -> Move:
    """Returns a step of inference: the states of the nodes move down the gradients, as the optimiser says."""

    def move(*, model: Model, optim: Optim) -> Energies:
        energies, gradients = energies_and_gradients(x, model)
        optim.step(model, gradients)
        return energies

    return move


def loop(
    move: Move, steps: int, unroll: int | bool, tolerance: Number | None = None, reset: bool = True, **tracked: Any
) -> History:
    """Runs `move`, as `infer` says, in a compiled loop; `tracked` are its arguments, with `model` and `optim`."""
    check_loop(steps, unroll, tolerance, reset)
    model, optim = tracked["model"], tracked["optim"]
    check_states(model)
    check_nodes(optim, model, "inference")
    if reset or optim.state.get() is None:
        optim.init(NODES(model))
    run = _all_steps if tolerance is None else partial(_until_settled, tolerance)
    with step(model, clear_params=(VodeParam.Cache, None)):  # in a loop, parameters cannot be cleared for good
        energies = run(move, steps, unroll, tracked)
    if reset:
        optim.clear()
    # The mean is taken after the loop; inside, it would make devices that share a batch wait for each other.
    return History(energies.mean(axis=1), names_of(model.nodes()))


def _all_steps(move: Move, steps: int, unroll: int | bool, tracked: dict[str, Any]) -> AllEnergies:
    def one_step(no_input: None, /, **tracked: Any) -> tuple[tuple[()], Energies]:
        return (), move(**tracked)

    energies: AllEnergies = scan(one_step, length=steps, unroll=unroll)(**tracked)[1]
    return energies


def _until_settled(
    tolerance: Number, move: Move, steps: int, unroll: int | bool, tracked: dict[str, Any]
) -> AllEnergies:
    def unless_settled(
        no_input: None, before: Float[Array, ""], last: Energies, /, **tracked: Any
    ) -> tuple[tuple[Float[Array, ""], Energies], Energies]:
        total = last.sum(axis=1).mean()  # of samples first, for devices that share a batch to exchange one number
        settled = jnp.abs(total - before) <= tolerance * jnp.abs(before)
        energies = cond(lambda **tracked: last, move)(settled, **tracked)
        return (total, energies), energies

    first = move(**tracked)
    before = jnp.full_like(first.sum(), jnp.nan)  # to which no energy is close
    later = scan(unless_settled, length=steps - 1, unroll=unroll)(before, first, **tracked)[1]
    return jnp.concatenate([first[None], later])

"""Inference: the states of the nodes move down the energy, with the weights fixed."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.functional import cond, jit, scan, value_and_grad
from minipcax.learning._batch import NODES, Batch, Model, means, summed_energy, total
from minipcax.learning._report import History
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step

ByNode = list[Float[Array, ""]]  # the energy of every node, from input to output

_energy_and_gradients = value_and_grad({"model": NODES}, has_aux=True)(summed_energy)


def relax(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: float | Float[Array, ""] | None = None,
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
    share = 0.0 if tolerance is None else tolerance
    if reset or optim.state.get() is None:
        optim.init(NODES(model))

    def move(*, model: Model, optim: Optim) -> ByNode:
        (_, (each,)), grads = _energy_and_gradients(x, model=model)
        optim.step(model, grads["model"])
        return means(each)

    def always(no_input: None, *, model: Model, optim: Optim) -> tuple[tuple[()], ByNode]:
        return (), move(model=model, optim=optim)

    def unless_settled(
        no_input: None, before: Float[Array, ""], last: ByNode, *, model: Model, optim: Optim
    ) -> tuple[tuple[Float[Array, ""], ByNode], ByNode]:
        settled = jnp.abs(total(last) - before) <= share * jnp.abs(before)
        energies = cond(lambda *, model, optim: last, move)(settled, model=model, optim=optim)
        return (total(last), energies), energies

    with step(model, clear_params=(VodeParam.Cache, None)):  # a loop can not clear what it starts with
        if tolerance is None:
            history = scan(always, length=steps, unroll=unroll)(model=model, optim=optim)[1]
        else:
            first = move(model=model, optim=optim)
            start = jnp.full_like(total(first), jnp.nan)  # which is close to nothing
            later = scan(unless_settled, length=steps - 1, unroll=unroll)(start, first, model=model, optim=optim)[1]
            history = [jnp.append(*pair) for pair in zip(first, later, strict=True)]
    if reset:
        optim.clear()
    return History.of(history, model.nodes())


@jit(static_argnums=(1, 2, 4))
def infer(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: float | Float[Array, ""] | None = None,
    reset: bool = True,
    /,
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
        reset: whether the optimiser starts anew, and is cleared afterwards; or else goes on from its last state.
        model: the model, whose nodes change, but for the frozen ones.
        optim: the optimiser of the nodes.

    Returns:
        The energy before every step, a mean over the samples.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> infer(x, 3, model=model, optim=Optim(optax.sgd(0.1))).round(6).tolist()  # nothing is observed
        [0.0, 0.0, 0.0]

    Reference:
        Whittington and Bogacz, An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network,
        Neural Computation 29 (2017).
    """
    return relax(x, steps, unroll, tolerance, reset, model=model, optim=optim).total

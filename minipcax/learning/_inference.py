"""Inference: the states of the nodes move down the energy, with the weights fixed."""

from typing import Any

from jaxtyping import Array, Float

from minipcax.functional import jit, scan, value_and_grad
from minipcax.learning._batch import NODES, Model, energies
from minipcax.predictive_coding import VodeParam
from minipcax.utils import Optim, step


@value_and_grad({"model": NODES}, has_aux=True)
def _energy_and_gradients(x: Any, *, model: Model) -> tuple[Float[Array, ""], Float[Array, ""]]:
    each = energies(x, model=model)
    return each.sum(), each.mean()


@jit(static_argnums=(1, 2))
def infer(x: Any, steps: int, unroll: int | bool = 1, /, *, model: Model, optim: Optim) -> Float[Array, " steps"]:
    """Relaxes the states of the nodes for a number of steps: h ← h − lr ∂E/∂h, or what else the optimiser does.

    E is the sum over nodes and samples, so that a sample moves the same in a batch of any size. The loop is compiled as
    one `jax.lax.scan`: neither memory nor compile time grow with the number of steps.

    Args:
        x: a batch of samples; the nodes hold states of the same batch (see `initialise`).
        steps: how many steps; another number compiles anew.
        unroll: how many of them to compile as one round of the loop. `True` means all, without a loop, which takes
            longer to compile; JAX on CPUs runs convolutions in loops many times slower than outside.
        model: the model, whose nodes change, but for the frozen ones.
        optim: the optimiser of the nodes; it starts anew, and is cleared afterwards.

    Returns:
        The energy before every step, a mean over the samples.

    Reference:
        Whittington and Bogacz, An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network,
        Neural Computation 29 (2017).
    """
    optim.init(NODES(model))

    def relax(no_input: None, *, model: Model, optim: Optim) -> tuple[tuple[()], Float[Array, ""]]:
        (_, (energy,)), grads = _energy_and_gradients(x, model=model)
        optim.step(model, grads["model"])
        return (), energy

    with step(model, clear_params=(VodeParam.Cache, None)):  # a loop can not clear what it starts with
        history = scan(relax, length=steps, unroll=unroll)(model=model, optim=optim)[1]
    optim.clear()
    return history

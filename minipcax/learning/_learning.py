"""Learning: the weights move down the energy, with the states of the nodes fixed."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.functional import jit, value_and_grad
from minipcax.learning._batch import energies
from minipcax.learning._checks import check_model
from minipcax.learning._model import WEIGHTS, Batch, Model, Number
from minipcax.learning._optimisers import check_weights
from minipcax.utils import Optim, OptimTree


@value_and_grad({"model": WEIGHTS})
def _energy_and_gradients(x: Batch, *, model: Model) -> Float[Array, ""]:
    return energies(x, model=model).mean()


def learn(x: Batch, scale_by: Number | None = None, *, model: Model, optim: Optim | OptimTree) -> Float[Array, ""]:
    """One update of the weights at the present state of the nodes, from the energy's mean over the samples.

    Args:
        x: the batch of samples that the nodes hold states of.
        scale_by: a factor for the gradients.
        model: the model, whose weights change, but for the frozen ones.
        optim: the optimiser of the weights.

    Returns:
        The energy before the update, a mean over the samples.

    Raises:
        TypeError: the factor is an array, such as targets, or the model is no `EnergyModule`.
        ValueError: the optimiser is not that of what `WEIGHTS(model)` selects, or a state is cleared.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> learn(x, model=model, optim=Optim(optax.sgd(0.1), WEIGHTS(model))).round(6).item()
        0.0
    """
    if scale_by is not None and jnp.ndim(scale_by) > 0:
        _refuse_factors(jnp.shape(scale_by))
    return _learn(x, scale_by, model=model, optim=optim)


@jit
def _learn(x: Batch, scale_by: Number | None, *, model: Model, optim: Optim | OptimTree) -> Float[Array, ""]:
    check_model(model)
    check_weights(optim, model, "optim")
    energy, grads = _energy_and_gradients(x, model=model)
    optim.step(model, grads["model"], scale_by)
    return energy


def _refuse_factors(shape: tuple[int, ...]) -> None:
    raise TypeError(
        f"scale_by expected a number, found an array of shape {shape}: targets go to initialise(x, y, model=model)"
    )

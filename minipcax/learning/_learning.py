"""Learning: the weights move down the energy, with the states of the nodes fixed."""

from jaxtyping import Array, Float

from minipcax.functional import jit, value_and_grad
from minipcax.learning._checks import check_model, check_not_targets
from minipcax.learning._energies import energies
from minipcax.learning._model import WEIGHTS, Batch, Model, Number, keeping_keys
from minipcax.learning._optimisers import check_weights
from minipcax.utils import Optim, OptimTree


@value_and_grad({"model": WEIGHTS})
def _energy_and_gradients(x: Batch, *, model: Model) -> Float[Array, ""]:
    return energies(x, model=model).mean()


def learn(x: Batch, scale_by: Number | None = None, *, model: Model, optim: Optim | OptimTree) -> Float[Array, ""]:
    """Updates the weights once, at the present states of the nodes, from the energy's mean over the samples.

    Args:
        x: the batch of samples that the nodes hold states of.
        scale_by: a factor for the gradients.
        model: the model, whose weights change, except the frozen ones.
        optim: the optimiser of the weights.

    Returns:
        The energy before the update, a mean over the samples.

    Raises:
        TypeError: the factor is an array, such as targets, or the model is not an `EnergyModule`.
        ValueError: the optimiser is not that of what `WEIGHTS(model)` selects, or a state is cleared.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> learn(x, model=model, optim=Optim(optax.sgd(0.1), WEIGHTS(model))).round(6).item()
        0.0
    """
    check_not_targets("scale_by", "a number", scale_by)
    return _learn(x, scale_by, model=model, optim=optim)


@jit
def _learn(x: Batch, scale_by: Number | None, *, model: Model, optim: Optim | OptimTree) -> Float[Array, ""]:
    check_model(model)
    check_weights(optim, model, "optim")
    value_fn = keeping_keys(lambda model: energies(x, model=model).mean(), model)
    energy, gradients = _energy_and_gradients(x, model=model)
    if isinstance(optim, OptimTree):
        optim.step(model, gradients["model"], scale_by, value=energy)
    else:
        optim.step(model, gradients["model"], scale_by, value=energy, value_fn=value_fn)
    return energy

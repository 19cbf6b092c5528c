"""Learning: the weights move down the energy, with the states of the nodes fixed."""

from jaxtyping import Array, Float

from minipcax.functional import jit, value_and_grad
from minipcax.learning._checks import check_model, check_not_targets
from minipcax.learning._energies import energies
from minipcax.learning._model import WEIGHTS, Batch, Model, Number, keeping_keys
from minipcax.learning._optimisers import check_kind, check_weights
from minipcax.utils import Optim, OptimTree


@value_and_grad({"model": WEIGHTS})
def _energy_and_gradients(x: Batch, *, model: Model) -> Float[Array, ""]:
    return energies(x, model=model).mean()


def learn(x: Batch, scale_by: Number | None = None, *, model: Model, optim: Optim | OptimTree) -> Float[Array, ""]:
    """Updates the weights once, at the present states of the nodes: W ← W − lr ∂E/∂W, or what the optimiser does.

    E is the mean over the samples of the energy summed over the nodes.

    Args:
        x: the batch of samples whose states the nodes hold, of shape (batch, ...).
        scale_by: a number that multiplies the gradients.
        model: the model; its weights change, except frozen ones.
        optim: an optimiser initialised with `WEIGHTS(model)`.

    Returns:
        The energy before the update, a scalar.

    Raises:
        TypeError: `scale_by` is an array, such as targets, or the model is not an `EnergyModule` with a call.
        ValueError: the optimiser was not initialised with exactly `WEIGHTS(model)`, or a state is cleared.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> learn(x, model=model, optim=Optim(optax.sgd(0.1), WEIGHTS(model))).round(6).item()
        0.0
    """
    check_not_targets("scale_by", "a number", scale_by)
    check_kind("optim", optim, Optim | OptimTree)
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

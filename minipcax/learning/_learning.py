"""Learning: the weights move down the energy, with the states of the nodes fixed."""

from jaxtyping import Array, Float

from minipcax.functional import jit, value_and_grad
from minipcax.learning._batch import energies
from minipcax.learning._model import WEIGHTS, Batch, Model, Number
from minipcax.utils import Optim


@value_and_grad({"model": WEIGHTS})
def _energy_and_gradients(x: Batch, *, model: Model) -> Float[Array, ""]:
    return energies(x, model=model).mean()


@jit
def learn(x: Batch, scale_by: Number | None = None, *, model: Model, optim: Optim) -> Float[Array, ""]:
    """One update of the weights at the present state of the nodes, from the energy's mean over the samples.

    Args:
        x: the batch of samples that the nodes hold states of.
        scale_by: a factor for the gradients.
        model: the model, whose weights change, but for the frozen ones.
        optim: the optimiser of the weights.

    Returns:
        The energy before the update, a mean over the samples.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> learn(x, model=model, optim=Optim(optax.sgd(0.1), WEIGHTS(model))).round(6).item()
        0.0
    """
    energy, grads = _energy_and_gradients(x, model=model)
    optim.step(model, grads["model"], scale_by)
    return energy

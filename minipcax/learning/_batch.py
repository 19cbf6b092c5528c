"""A model of one sample, applied to a batch.

A model is an `EnergyModule` whose call takes one sample, `model(x, y)`: it sends x through its layers and value nodes,
clamps the output node to the target y unless that is `None`, and returns its prediction. Nodes with `h.frozen = True`,
such as the clamped one, are not inferred; weights with `frozen = True` are not learned.
"""

from typing import Any, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minipcax.functional import jit, vmap
from minipcax.nn import LayerParam
from minipcax.predictive_coding import STATUS, VodeParam
from minipcax.utils import M, step

NODES = M(VodeParam).hasnot(frozen=True)
WEIGHTS = M(LayerParam).hasnot(frozen=True)
# What belongs to one sample, and so has an axis of samples.
PER_SAMPLE = VodeParam | VodeParam.Cache


class Model(Protocol):
    """What the algorithms need to know of a model."""

    # What a sample, a target and a prediction are is the model's own business.
    def __call__(self, x: Any, y: Any = None) -> Any:
        """The prediction for one sample."""
        ...

    def energy(self) -> Float[Array, "..."]:
        """The energy of all nodes."""
        ...


@vmap({"model": M(PER_SAMPLE).to((None, 0))})
def _predictions(x: Any, y: Any, *, model: Model) -> Any:
    return model(x, y)


@vmap({"model": M(PER_SAMPLE).to((None, 0))})
def energies(x: Any, *, model: Model) -> Float[Array, ""]:
    """The energy of every sample of a batch, at the present state of the nodes."""
    model(x)
    return model.energy()


@jit
def initialise(x: Any, y: Any = None, *, model: Model) -> None:
    """Batched forward initialisation: every node's state becomes its prediction, and the output node the target.

    Args:
        x: a batch of samples, with a leading axis of samples.
        y: their targets; `None` leaves the output node at its prediction.
        model: the model; the states of its nodes get a leading axis of samples.
    """
    with step(model, STATUS.INIT, clear_params=VodeParam.Cache):
        _predictions(x, y, model=model)


@jit
def predict(x: Any, model: Model) -> Any:
    """The model's predictions for a batch, in one pass forward. Nothing is written to the model."""
    with step(model, STATUS.INIT):
        return _predictions(x, None, model=model)


def accuracy(x: Any, labels: Int[Array, " batch"], model: Model) -> float:
    """The share of a batch for which the largest output is that of the label."""
    return float(jnp.mean(jnp.argmax(predict(x, model), axis=-1) == labels))

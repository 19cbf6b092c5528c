"""The forward pass of a model of one sample, over a batch.

A model is an `EnergyModule` whose call takes one sample, `model(x, y)`: it sends x through its layers and value nodes,
clamps the output node to the target y unless that is `None`, and returns its prediction. Nodes with `h.frozen = True`,
such as the clamped one, are not inferred; weights with `frozen = True` are not learned. The states are `VodeParam`s, or
of a subclass. Here, the status is `STATUS.INIT`; inference and learning follow the rules of the status that they find.

Layers that look across samples find the batch as the axis "batch" of a `vmap`. The running statistics of `BatchNorm`
are updated by `initialise`, unless in eval mode, and by nothing else. `Dropout` draws a new mask in every step, unless
in eval mode: call `model.train()` before training and `model.eval()` before testing, where a model has either.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from minipcax.core.extract import clear_params
from minipcax.functional import jit
from minipcax.learning._checks import check_model
from minipcax.learning._energies import energies_of, joined
from minipcax.learning._model import PER_SAMPLE, Batch, Model, Sample, keep_statistics, over_batch, split_nodes
from minipcax.learning._pass import check_pass
from minipcax.learning._report import share_right
from minipcax.predictive_coding import STATUS, VodeParam
from minipcax.utils import step


@over_batch
def _forward(x: Sample, y: Sample, *, model: Model) -> tuple[Sample, Float[Array, " observed"]]:
    with step(model, STATUS.INIT):
        prediction = model(x, y)
    energies = energies_of(split_nodes(model)[1])
    return prediction, joined(energies) if energies else jnp.zeros(0)


def forward(x: Batch, y: Batch, *, model: Model) -> tuple[Batch, Float[Array, "batch observed"]]:
    """Calls the model; returns the predictions, and the energies of the observed nodes. Their sum is the loss.

    For use inside a `jit`, on cleared nodes. It sets the states, and leaves the predictions in the nodes' caches.
    """
    check_pass(x, y, model=model)
    return _forward(x, y, model=model)


def start(x: Batch, y: Batch, *, model: Model) -> tuple[Batch, Float[Array, ""]]:
    """Does what `initialise` does, inside a `jit`, and also returns the loss.

    Args:
        x: as for `initialise`.
        y: as for `initialise`.
        model: as for `initialise`.

    Returns:
        The predictions, and the energy of the observed nodes, a mean over the samples.

    Raises:
        ValueError: see `initialise`.

    Example:
        >>> predictions, loss = start(jnp.ones((5, 2)), jnp.zeros((5, 1)), model=ResidualNetwork(2, 4, 1, depth=2))
        >>> jnp.allclose(loss, 0.5 * (predictions**2).mean()).item()
        True
    """
    check_model(model)
    clear_other_batches((x, y), model)
    with step(model, clear_params=(VodeParam.Cache, VodeParam.Cache)):
        predictions, observed = forward(x, y, model=model)
    return predictions, observed.sum(axis=-1).mean()


@jit
def initialise(x: Batch, y: Batch = None, *, model: Model) -> Batch:
    """Forward initialisation: sets every node's state to its prediction, and that of the output node to the target.

        h_l = u_l = f_l(h_{l−1}),  h_L = y

    Set any other known state, such as that of a node in the middle, afterwards.

    Args:
        x: a batch of samples, of shape (batch, ...), or a tree of such arrays.
        y: their targets, of shape (batch, ...); `None` leaves the output node at its prediction.
        model: the model; the states of its nodes get shape (batch, ...).

    Returns:
        The predictions, with a leading axis of samples.

    Raises:
        ValueError: the model has no value nodes, the batch is empty, the targets do not reach an observed node, or the
            model skips a node or calls one twice.

    Example:
        >>> model = ResidualNetwork(2, 4, 1, depth=2)
        >>> _ = initialise(jnp.ones((5, 2)), jnp.zeros((5, 1)), model=model)
        >>> [vode.h for vode in model.submodules(Vode)]
        [VodeParam([5,4], float32), VodeParam([5,1], float32)]
    """
    return start(x, y, model=model)[0]


def clear_other_batches(batch: Batch, model: Model) -> None:
    """Clears what an earlier batch of another size left in the nodes."""
    sizes = {np.shape(array)[:1] for array in jax.tree.leaves(batch)}

    def is_other(param: Any) -> bool:
        return PER_SAMPLE.apply(param) and not sizes >= {np.shape(array)[:1] for array in jax.tree.leaves(param.get())}

    clear_params(model, is_other)


def predict(x: Batch, model: Model) -> Batch:
    """Returns the model's predictions for a batch, from one forward pass; the model is unchanged.

    Args:
        x: a batch of samples, of shape (batch, ...), or a tree of such arrays.
        model: the model; call `model.eval()` first if it has `Dropout` or `BatchNorm`.

    Raises:
        ValueError: the model has no value nodes, or x holds no arrays.

    Example:
        >>> predict(jnp.ones((5, 2)), ResidualNetwork(2, 4, 1, depth=2)).shape
        (5, 1)
    """
    if not jax.tree.leaves(x):
        raise ValueError(
            f"predict expected a batch of samples, found {x!r}: a model without inputs makes one prediction, "
            "model(None) within step(model, STATUS.INIT); initialise(None, y, model=model) returns one for each y"
        )
    return _predict(x, model)  # by position, and so on a copy


@jit
def _predict(x: Batch, model: Model, /) -> Batch:
    check_model(model)
    keep_statistics(model)
    clear_other_batches(x, model)
    with step(model, STATUS.INIT, clear_params=(VodeParam.Cache, None)):
        return _call(x, model=model)


@over_batch
def _call(x: Sample, *, model: Model) -> Sample:
    return model(x)


def accuracy(x: Batch, labels: Int[Array | np.ndarray, " batch"], model: Model) -> float:
    """Returns the fraction of a batch for which the largest output is that of the label.

    Args:
        x: a batch of samples, of shape (batch, ...).
        labels: their class numbers, ints of shape (batch,).
        model: the model, whose predictions have shape (batch, classes).

    Raises:
        ValueError: the labels are not of shape (batch,), or the batch is empty.

    Example:
        >>> accuracy(jnp.ones((5, 2)), jnp.zeros(5, int), ResidualNetwork(2, 4, 1, depth=2))  # there is one class only
        1.0
    """
    return share_right(predict(x, model), labels)

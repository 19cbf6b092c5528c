"""A model of one sample, applied to a batch.

A model is an `EnergyModule` whose call takes one sample, `model(x, y)`: it sends x through its layers and value nodes,
clamps the output node to the target y unless that is `None`, and returns its prediction. Nodes with `h.frozen = True`,
such as the clamped one, are not inferred; weights with `frozen = True` are not learned. The states are `VodeParam`s, or
of a subclass.

Layers that look across samples find the batch as the axis "batch" of a `vmap`. The running statistics of `BatchNorm`
are moved by `initialise`, unless in eval mode, and by nothing else. `Dropout` draws anew in every step, unless in eval
mode: call `model.train()` before training and `model.eval()` before testing, where a model has either.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from minipcax.core.extract import clear_params
from minipcax.functional import jit
from minipcax.learning._checks import check_no_target, check_pass
from minipcax.learning._model import PER_SAMPLE, Batch, Model, keep_statistics, over_batch, split_nodes, vodes
from minipcax.learning._report import share_right
from minipcax.predictive_coding import STATUS, EnergyModule, VodeParam
from minipcax.utils import step


@over_batch
def _predictions(x: Batch, y: Batch, *, model: Model) -> Batch:
    return model(x, y)


@over_batch
def node_energies(x: Batch, *, model: Model) -> Float[Array, " nodes"]:
    """The energy of every node for every sample of a batch, of shape (batch, nodes), at the present states."""
    keep_statistics(model)
    without_state = [path for path, node in vodes(model).items() if node.h.get() is None]
    with step(model, clear_params=(VodeParam.Cache, VodeParam.Cache)):
        try:
            model(x)
        except (AttributeError, TypeError) as error:
            if without_state:
                raise ValueError(
                    f"the energy needs the states of all nodes, but that of {', '.join(without_state)} is cleared: "
                    "call initialise(x, y, model=model) first"
                ) from error
            raise
        check_no_target(model)
        return energies_of(model.nodes())


def energies(x: Batch, *, model: Model) -> Float[Array, " batch"]:
    """The energy of every sample of a batch, at the present state of the nodes.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> energies(x, model=model).round(6).tolist()  # every state is its prediction
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    return node_energies(x, model=model).sum(axis=-1)


def summed_energy(x: Batch, *, model: Model) -> tuple[Float[Array, ""], Float[Array, "batch nodes"]]:
    """What states descend: the energy, summed over nodes and samples; and that of every node and sample."""
    each = node_energies(x, model=model)
    return each.sum(), each


def energies_of(
    nodes: Mapping[str, EnergyModule], known: Mapping[int, Float[Array, ""]] = {}
) -> Float[Array, " nodes"]:
    """The energies of nodes, for one sample; those of some may be known, by the node's id."""
    if not nodes:
        raise ValueError("expected a model with value nodes, found none: put a Vode after each layer")
    energies = []
    for path, node in nodes.items():
        try:
            energies.append(known[id(node)] if id(node) in known else node.energy())
        except ValueError as error:
            raise ValueError(f"in {path or 'the model'}, {error}") from error
    return jnp.stack(energies)


def forward(x: Batch, y: Batch, *, model: Model) -> Batch:
    """A forward pass that leaves predictions in the nodes' caches; for use inside a `jit`, on cleared nodes."""
    check_pass(x, y, model=model)
    with step(model, STATUS.INIT):
        return _predictions(x, y, model=model)


def _clear_other_batches(batch: Batch, model: Model) -> None:
    """Clears what an earlier batch left in the nodes, where it does not fit this one."""
    sizes = {np.shape(array)[:1] for array in jax.tree.leaves(batch)}

    def does_not_fit(param: Any) -> bool:
        arrays = jax.tree.leaves(param.get()) if PER_SAMPLE.apply(param) else []
        return not sizes >= {np.shape(array)[:1] for array in arrays}

    clear_params(model, does_not_fit)


@jit
def initialise(x: Batch, y: Batch = None, *, model: Model) -> Batch:
    """Batched forward initialisation: every node's state becomes its prediction, and the output node the target.

    What else is known, such as the state of a node in the middle, is clamped afterwards.

    Args:
        x: a batch of samples, with a leading axis of samples.
        y: their targets; `None` leaves the output node at its prediction.
        model: the model; the states of its nodes get a leading axis of samples.

    Returns:
        The predictions.

    Raises:
        TypeError: the model is no `EnergyModule`.
        ValueError: there is no sample, a target or node is not reached, or a node is called twice, see `Algorithm`.

    Example:
        >>> model = ResidualNetwork(2, 4, 1, depth=2)
        >>> _ = initialise(jnp.ones((5, 2)), jnp.zeros((5, 1)), model=model)
        >>> [vode.h for vode in model.vodes]
        [VodeParam([5,4], float32), VodeParam([5,1], float32)]
    """
    return start(x, y, model=model)[0]


def start(x: Batch, y: Batch, *, model: Model) -> tuple[Batch, Float[Array, ""]]:
    """As `initialise`, for use inside a `jit`; returns the predictions, and the energy of the observed nodes: the loss.

    Example:
        >>> predictions, loss = start(jnp.ones((5, 2)), jnp.zeros((5, 1)), model=ResidualNetwork(2, 4, 1, depth=2))
        >>> jnp.allclose(loss, 0.5 * (predictions**2).mean()).item()
        True
    """
    _clear_other_batches((x, y), model)
    with step(model, clear_params=(VodeParam.Cache, VodeParam.Cache)):
        predictions = forward(x, y, model=model)
        return predictions, observed_loss(model)


def observed_loss(model: Model) -> Float[Array, ""]:
    """The energy of the observed nodes after a forward pass, a mean over the samples."""
    return observed_energies(model=model).sum(axis=-1).mean() if split_nodes(model)[1] else jnp.zeros(())


@over_batch
def observed_energies(*, model: Model) -> Float[Array, " nodes"]:
    """The energy of every observed node for every sample, of shape (batch, nodes), after a forward pass."""
    return energies_of(split_nodes(model)[1])


def predict(x: Batch, model: Model) -> Batch:
    """The model's predictions for a batch, in one pass forward. Nothing is written to the model.

    Example:
        >>> predict(jnp.ones((5, 2)), ResidualNetwork(2, 4, 1, depth=2)).shape
        (5, 1)
    """
    return _predict(x, model)  # by position, and so on a copy


@jit
def _predict(x: Batch, model: Model, /) -> Batch:
    keep_statistics(model)
    _clear_other_batches(x, model)
    with step(model, STATUS.INIT, clear_params=(VodeParam.Cache, None)):
        return _predictions(x, None, model=model)


def accuracy(x: Batch, labels: Int[Array | np.ndarray, " batch"], model: Model) -> float:
    """The share of a batch for which the largest output is that of the label.

    Example:
        >>> accuracy(jnp.ones((5, 2)), jnp.zeros(5, int), ResidualNetwork(2, 4, 1, depth=2))  # there is but one class
        1.0
    """
    return share_right(predict(x, model), labels)

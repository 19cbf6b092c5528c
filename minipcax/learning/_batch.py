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
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from minipcax.core import tree_apply
from minipcax.core._tree import path_name, walk
from minipcax.functional import jit, vmap
from minipcax.learning._report import share_right
from minipcax.nn import BatchNorm, LayerParam
from minipcax.predictive_coding import STATUS, EnergyModule, Vode, VodeParam, se_energy
from minipcax.predictive_coding._energy_module import clear_params
from minipcax.utils import M, step

NODES = M(VodeParam).hasnot(frozen=True)
WEIGHTS = M(LayerParam).hasnot(frozen=True)
# What belongs to one sample, and so has an axis of samples.
PER_SAMPLE = VodeParam | VodeParam.Cache
over_batch = vmap({"model": M(PER_SAMPLE).to((None, 0))}, axis_name="batch")

# What a sample, a target and a prediction are is the model's own business; a batch of them has an axis more, the first.
Sample = Any
Batch = Any
Number = float | Float[Array, ""]


@runtime_checkable
class Model(Protocol):
    """What the algorithms need to know of a model.

    Example:
        >>> isinstance(ResidualNetwork(2, 4, 1, depth=2), Model), isinstance(Linear(2, 1), Model)
        (True, False)
    """

    def __call__(self, x: Sample, y: Sample = None, /) -> Sample:
        """The prediction for one sample."""
        ...

    def nodes(self) -> dict[str, EnergyModule]:
        """What has an energy, by its path, from input to output."""
        ...


@over_batch
def _predictions(x: Batch, y: Batch, *, model: Model) -> Batch:
    return model(x, y)


@over_batch
def node_energies(x: Batch, *, model: Model) -> Float[Array, " nodes"]:
    """The energy of every node for every sample of a batch, of shape (batch, nodes), at the present states."""
    keep_statistics(model)
    without_state = [path for path, node in _vodes(model).items() if node.h.get() is None]
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
        for path, node in split_nodes(model)[1].items():
            if node.h.get() is not None and node.h.get() is node.get("u"):
                raise ValueError(
                    f"the model set the observed node {path} to its prediction when it was given no target, which "
                    'leaves no error: write `if y is not None: node.set("h", y)`'
                )
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


def energies_of(nodes: Mapping[str, EnergyModule]) -> Float[Array, " nodes"]:
    """The energies of nodes, for one sample."""
    if not nodes:
        raise ValueError("expected a model with value nodes, found none: put a Vode after each layer")
    return jnp.stack([node.energy() for node in nodes.values()])


def forward(x: Batch, y: Batch, *, model: Model) -> Batch:
    """A forward pass that leaves predictions in the nodes' caches; for use inside a `jit`, on cleared nodes."""
    with step(model, STATUS.INIT):
        return _predictions(x, y, model=model)


def split_nodes(model: Model) -> tuple[dict[str, Vode[Any]], dict[str, Vode[Any]]]:
    """The nodes that are inferred, and the observed ones (`h.frozen = True`), by their paths from input to output."""
    nodes = _vodes(model)
    inferred = {path: node for path, node in nodes.items() if not node.h.frozen}
    return inferred, {path: node for path, node in nodes.items() if path not in inferred}


def _vodes(model: Model) -> dict[str, Vode[Any]]:
    return {path_name(path): node for path, node in walk(model) if isinstance(node, Vode)}


def require_squared_errors(model: Model, name: str) -> None:
    """Refuses a model with an inferred node whose energy is not of h − u alone, or that has rules of its own."""
    built_in = Vode().ruleset
    for path, node in split_nodes(model)[0].items():
        if getattr(node.energy_fn, "func", node.energy_fn) is not se_energy or node.ruleset != built_in:
            raise ValueError(
                f"{name} expected every inferred node to have se_energy and the built-in rules, found others in "
                f"{path}: use PC for this model"
            )


def keep_statistics(model: Model) -> None:
    """Freezes running statistics; inside a transform that does not escape."""
    tree_apply(BatchNorm.eval, lambda node: isinstance(node, BatchNorm), model)


def _clear_other_batches(batch: Batch, model: Model) -> None:
    """Clears what an earlier batch left in the nodes, where it does not fit this one."""
    sizes = {np.shape(array)[:1] for array in jax.tree.leaves(batch)}

    def does_not_fit(param: Any) -> bool:
        arrays = jax.tree.leaves(param.get()) if isinstance(param, PER_SAMPLE) else []
        return not sizes >= {np.shape(array)[:1] for array in arrays}

    clear_params(model, does_not_fit)


@jit
def initialise(x: Batch, y: Batch = None, *, model: Model) -> Batch:
    """Batched forward initialisation: every node's state becomes its prediction, and the output node the target.

    Args:
        x: a batch of samples, with a leading axis of samples.
        y: their targets; `None` leaves the output node at its prediction.
        model: the model; the states of its nodes get a leading axis of samples.

    Returns:
        The predictions.

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
    with step(model, clear_params=(VodeParam.Cache, None)):
        return forward(x, None, model=model)


def accuracy(x: Batch, labels: Int[Array | np.ndarray, " batch"], model: Model) -> float:
    """The share of a batch for which the largest output is that of the label.

    Example:
        >>> accuracy(jnp.ones((5, 2)), jnp.zeros(5, int), ResidualNetwork(2, 4, 1, depth=2))  # there is but one class
        1.0
    """
    return share_right(predict(x, model), labels)

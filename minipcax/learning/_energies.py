"""The energies of a batch at the present states, of shape (batch, nodes), and what descends them.

They are reduced where they are used: states descend the sum over nodes and samples, so that a sample moves the same in
a batch of any size; weights descend the mean over samples.
"""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.functional import value_and_grad
from minipcax.learning._checks import check_model, check_no_target, check_states, naming
from minipcax.learning._model import (
    Batch,
    Gradients,
    Model,
    Sample,
    keep_statistics,
    keeping_keys,
    over_batch,
    status_of,
)
from minipcax.predictive_coding import EnergyModule, Vode, VodeParam
from minipcax.utils import M, step


def names_of(nodes: Mapping[str, EnergyModule]) -> tuple[str, ...]:
    """Returns a name for each energy: the path of its node; in a `Stack`, with the number of the layer."""
    names = {path: node.energy_names() if isinstance(node, Vode) else [""] for path, node in nodes.items()}
    return tuple(path + name for path in names for name in names[path])


def energies_of(nodes: Mapping[str, EnergyModule]) -> list[Float[Array, "..."]]:
    """Returns the energy of each node for one sample, after the model was called; for a `Stack`, one of each layer."""
    energies = []
    for path, node in nodes.items():
        with naming(path):
            energies.append(node.energy())
    return energies


def joined(energies: Sequence[Float[Array, "..."]]) -> Float[Array, " energies"]:
    """Joins the energies of all nodes, for one sample, into one array."""
    return jnp.concatenate([jnp.ravel(each) for each in energies])


def joined_energies(x: Sample, *, model: Model) -> Float[Array, " energies"]:
    """Calls the model on one sample, and returns the energies of all nodes, at the present states, in one array."""
    keep_statistics(model)
    with step(model, status_of(model), clear_params=(VodeParam.Cache, VodeParam.Cache)):
        model(x)
        check_no_target(model)
        return joined(energies_of(model.nodes()))


_joined_energies = over_batch(joined_energies)


def energies(x: Batch, *, model: Model) -> Float[Array, " batch"]:
    """Returns the energy of every sample of a batch, summed over the nodes, at their present states.

    Args:
        x: the batch of samples whose states the nodes hold, of shape (batch, ...).
        model: the model; it is unchanged.

    Raises:
        TypeError: the model is not an `EnergyModule` with a call.
        ValueError: a state is cleared.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> energies(x, model=model).round(6).tolist()  # every state is its prediction
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    check_model(model)
    check_states(model)
    return _joined_energies(x, model=model).sum(axis=-1)


class Objective:
    """Energies whose sum is descended by the parameters of a mask.

    Args:
        mask: which parameters.
        of_sample: the energies of all nodes, given `(x, *, model)` for one sample.
    """

    def __init__(self, mask: M, of_sample: Callable[..., Float[Array, " nodes"]]) -> None:
        self.of_sample, self.of_batch = of_sample, over_batch(of_sample)

        @value_and_grad({"model": mask}, has_aux=True)
        def summed(x: Batch, *, model: Model) -> tuple[Float[Array, ""], Float[Array, "batch nodes"]]:
            energies = self.of_batch(x, model=model)
            return energies.sum(), energies

        self._summed = summed

    def with_gradients(self, x: Batch, model: Model) -> tuple[Float[Array, "batch nodes"], Gradients]:
        """Returns the energies of a batch, and the gradients of their sum."""
        (_, (energies,)), gradients = self._summed(x, model=model)
        return energies, gradients["model"]

    def value_fn(self, x: Batch, model: Model) -> Callable[[Model], Float[Array, ""]]:
        """Returns the sum as a function of the model, which draws the random keys that are drawn next, every time."""
        return keeping_keys(lambda model: self.of_batch(x, model=model).sum(), model)

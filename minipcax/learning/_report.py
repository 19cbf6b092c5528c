"""What a training step reports: the energies, node by node and step by step, the loss, and the predictions."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """The energy of every node before every step of inference, each a mean over the samples.

    Example:
        >>> history = History(jnp.array([[1.0, 2.0], [1.0, jnp.nan]]), (".vodes[0]", ".vodes[1]"))
        >>> history.total.tolist()
        [3.0, nan]
        >>> history.check()
        Traceback (most recent call last):
        FloatingPointError: the energy of .vodes[1] is nan at step 2 of 2: lower the learning rates, or scale the inputs
    """

    energies: Float[Array, "*batches steps nodes"]
    nodes: tuple[str, ...] = field(metadata={"static": True})  # their paths

    @property
    def total(self) -> Float[Array, "*batches steps"]:
        """The energy of all nodes together."""
        return self.energies.sum(axis=-1)

    def check(self) -> Self:
        """Waits for the energies; returns this history when all of them are finite. For use outside transforms.

        Raises:
            FloatingPointError: one is not; the message names the first such step and node.
        """
        energies = np.asarray(self.energies)
        broken = np.argwhere(~np.isfinite(energies))
        if len(broken):
            *_, number, index = broken[0]  # a loop over batches puts an axis before these
            found = energies[tuple(broken[0])]
            raise FloatingPointError(
                f"the energy of {self.nodes[index] or 'the model'} is {found} at step {number + 1} of "
                f"{energies.shape[-2]}: lower the learning rates, or scale the inputs"
            )
        return self


def share_right(predictions: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]) -> float:
    """The share of a batch for which the largest prediction is that of the label."""
    if np.shape(labels) != np.shape(predictions)[:1]:
        raise ValueError(
            f"accuracy expected the number of its class for each sample, of shape {np.shape(predictions)[:1]}, found "
            f"labels of shape {np.shape(labels)}"
        )
    if not np.size(labels):
        raise ValueError("accuracy expected a batch of samples, found none")
    return float(jnp.mean(jnp.argmax(predictions, axis=-1) == labels))


class Report(NamedTuple):
    """What happened in one training step.

    Example:
        >>> report = Report(History(jnp.array([[0.5], [0.25]]), (".vode",)), jnp.array(0.5), jnp.array([[0.1, 0.9]]))
        >>> report.energies.tolist(), report.accuracy(jnp.array([1]))
        ([0.5, 0.25], 1.0)
    """

    history: History  # the energies while it trained
    loss: Float[Array, ""]  # the energy of the observed nodes after the forward pass, a mean over the samples
    predictions: Any  # of the forward pass, for every sample

    @property
    def energies(self) -> Float[Array, " steps"]:
        """The energy before every step of inference, a mean over the samples."""
        return self.history.total

    def accuracy(self, labels: Int[Array | np.ndarray, " batch"]) -> float:
        """The share of the batch for which the largest prediction is that of the label."""
        return share_right(self.predictions, labels)

    def check(self) -> Self:
        """Waits for the step; returns this report when all energies are finite.

        To stop a training loop before it goes on with what is not a number, without waiting for the step under way,
        check the report of the step before.

        Raises:
            FloatingPointError: one is not; the message names the first such step and node.
        """
        self.history.check()
        return self

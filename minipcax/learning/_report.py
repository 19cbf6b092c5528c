"""The report of a training step: the energies, node by node and step by step, the loss, and the predictions."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from minipcax.learning._refusals import check_no_tracer, not_finite, warn_unlearned


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """The energy of every node before every step of inference, each a mean over the samples.

    Args:
        energies: the energies, of shape (steps, nodes); once inference has stopped, the last row is repeated.
        nodes: the paths of the nodes; in a `Stack`, with the number of the layer.
        gradients: how many times inference computed the gradient of the states, line searches included: one number, or
            one per sample if each sample stops on its own.
        states: a dict from path to the states before every step, of shape (steps, batch, ...), if they were recorded.

    Example:
        >>> history = History(jnp.array([[1.0, 2.0], [1.0, jnp.nan]]), (".vodes[0]", ".vodes[1]"))
        >>> history.total.tolist()
        [3.0, nan]
        >>> history.check()
        Traceback (most recent call last):
        FloatingPointError: the energy of .vodes[1] is nan at step 2 of 2: lower the learning rates, or scale the inputs
    """

    energies: Float[Array, "*batches steps nodes"]
    nodes: tuple[str, ...] = field(metadata={"static": True})
    gradients: Int[Array, "..."] | int = 0
    states: dict[str, Array] | None = None

    @property
    def total(self) -> Float[Array, "*batches steps"]:
        """The energy of each step, summed over the nodes."""
        return self.energies.sum(axis=-1)

    def check(self) -> Self:
        """Waits for the energies, outside transforms, and returns this history if all of them are finite.

        Warns if inference ended before the error of the output had reached all nodes.

        Raises:
            FloatingPointError: an energy is not finite; the message names the first such step and node.
            TypeError: it is called inside a transform.
        """
        check_no_tracer(self.energies)
        energies = np.asarray(self.energies)
        broken = np.argwhere(~np.isfinite(energies))
        if len(broken):
            *_, number, index = broken[0]  # a loop over batches adds an axis before these
            found = energies[tuple(broken[0])]
            raise not_finite(self.nodes[index], float(found), int(number) + 1, energies.shape[-2])
        ahead = _ahead_of_the_error(energies)
        if ahead:
            warn_unlearned([self.nodes[index] for index in ahead], len(self.nodes))
        return self


def _ahead_of_the_error(energies: Float[np.ndarray, "*batches steps nodes"]) -> list[int]:
    """Returns the nodes, by index, that the error of the output had not reached when inference ended on some batch.

    It spreads from node to node, and ahead of it, states are their predictions: energies of 0, or in a `Stack`, where
    the forward pass may round differently, of what they were at the start. It was still on its way if the last step
    reached another node, or if at its front it was lost to rounding; others may have an energy that is always 0.
    Weights learn after one more step than the history has, in which it moves on as in others.
    """
    found = set[int]()
    for each in abs(energies.reshape(-1, *energies.shape[-2:])):
        rounding = jnp.finfo(each.dtype).eps * each[-1].sum()  # type: ignore[no-untyped-call]  # jax
        has_energy = each > np.where(each[0] < rounding, 10 * each[0], 0)
        first, *reached = np.diff(has_energy.sum(axis=-1), prepend=0)  # in each step
        front = each[-1].min(initial=np.inf, where=has_energy[-1])
        on_its_way = any(reached) and (reached[-1] or front < rounding)
        ahead = np.flatnonzero(~has_energy[-1])
        if on_its_way and len(ahead) > max(first, *reached):
            found.update(ahead.tolist())
    return sorted(found)


def share_right(predictions: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]) -> float:
    """Returns the share of a batch for which the largest prediction is that of the label."""
    if np.shape(labels) != np.shape(predictions)[:1]:
        raise ValueError(
            f"accuracy expected one class number for each sample, of shape {np.shape(predictions)[:1]}, found labels "
            f"of shape {np.shape(labels)}"
        )
    if not np.size(labels):
        raise ValueError("accuracy expected a batch of samples, found none")
    return float(jnp.mean(jnp.argmax(predictions, axis=-1) == labels))


class Report(NamedTuple):
    """The result of one training step.

    Args:
        history: the `History` of the energies during inference.
        loss: the energy of the observed nodes after the forward pass, a mean over the samples.
        predictions: those of the forward pass, of shape (batch, ...).

    Example:
        >>> report = Report(History(jnp.array([[0.5], [0.25]]), (".vode",)), jnp.array(0.5), jnp.array([[0.1, 0.9]]))
        >>> report.energies.tolist(), report.accuracy(jnp.array([1]))
        ([0.5, 0.25], 1.0)
    """

    history: History
    loss: Float[Array, ""]
    predictions: Any  # of any form, as the model returns them

    @property
    def energies(self) -> Float[Array, " steps"]:
        """The energy before every step of inference, a mean over the samples."""
        return self.history.total

    def accuracy(self, labels: Int[Array | np.ndarray, " batch"]) -> float:
        """Returns the fraction of the batch for which the largest prediction is that of the label.

        Raises:
            ValueError: `labels` are not class numbers of shape (batch,).
        """
        return share_right(self.predictions, labels)

    def check(self) -> Self:
        """Waits for the training step, and returns this report if all energies are finite.

        To stop a training loop early without waiting for the present step, check the report of the previous one. Warns
        if inference ended before the error of the output had reached all nodes.

        Raises:
            FloatingPointError: an energy is not finite; the message names the first such step and node.
            TypeError: it is called inside a transform.
        """
        self.history.check()
        return self

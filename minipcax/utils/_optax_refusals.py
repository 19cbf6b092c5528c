"""The words for what optax refuses, or would do wrong in silence, while it starts or updates."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from minipcax.utils._optax import OptaxState, first_mixed
from minipcax.utils._refusals import differences
from minipcax.utils._targets import shapes_of


@contextmanager
def starting(name: str, targets: Iterable[str]) -> Iterator[None]:
    """Within the block, explains an error of optax, which has most often to do with labels or masks."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        first = next(iter(targets), ".layer.weight")
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{name}: optax could not start on a dict from path to array, {{{first!r}: ..., }}; its labels and masks "
            'are by path, not a masked model: write a function, such as lambda params: {path: "fast" if '
            f'path.endswith("bias") else "slow" for path in params}}; optax says: {reason}'
        ) from error


@contextmanager
def updating(state: OptaxState, values: dict[str, Any]) -> Iterator[None]:
    """Within the block, explains an error of optax by the shapes of the parameters, if they are not those of `init`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        lacking = [name for name in ("value", "value_fn") if f"'{name}'" in str(error) and "missing" in str(error)]
        if lacking:
            raise TypeError(
                f"Optim.step expected {' and '.join(f'{name}=' for name in lacking)}, which this optimiser needs to "
                "look further than the gradient: the value that the gradients are of, and a function from the model "
                "to it. ZIL has neither, IPC and EPC at fixed states no function of weights; OptimTree passes none on"
            ) from error
        if any(words in str(error) for words in ("MaskedNode", "Expected named tuple")):  # that of older JAX, too
            raise TypeError(
                "Optim.step expected an optimiser of all its parameters: optax gives one that is behind "
                "optax.masked or optax.multi_transform some of them, but a line search needs the gradients, and the "
                "function, of the same ones; set frozen = True on what should not move, or leave it out of init"
            ) from error
        differ = differences(state.targets, "then", state.shapes, "now", shapes_of(values.values()))
        if differ:
            raise ValueError(f"Optim.step found other shapes than init was given: {differ}; call init") from error
        raise


def check_apart(state: OptaxState) -> None:
    """Raises if layers are frozen, and the optimiser remembers numbers that mix them with others."""
    mixed = first_mixed(state.optax, state.targets)
    if mixed is not None:
        raise ValueError(
            f"Optim.step expected a state that is kept for each parameter, as Stack.freeze_only has frozen layers, but "
            f"{mixed} in optax's mixes them, as that of L-BFGS does: use another optimiser, such as optax.adam"
        )


def check_state(before: object, after: object) -> None:
    """Raises if an update has broadcast the state to other shapes."""
    old, new = ([jnp.shape(leaf) for leaf in jax.tree.leaves(state)] for state in (before, after))
    if old != new:
        raise ValueError(f"Optim.step expected a state with arrays of shapes {old}, found {new}; call init")

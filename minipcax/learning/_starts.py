"""Where inference starts: at the predictions of a forward pass (`start`), at random, or where the states are.

A start is called like `start`, and returns what it returns; `PC` takes one as `start=`. A network that learns where to
start is part of a model, see `Amortised` in `minipcax.predictive_coding`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from minipcax.core import RKG
from minipcax.core.refusals import kind_of
from minipcax.learning._forward import start
from minipcax.learning._hyperparameters import Hyperparameters, check_number
from minipcax.learning._model import Batch, Model, Number
from minipcax.learning._solver import inferred

Start = Callable[..., tuple[Batch, Float[Array, ""]]]  # of (x, y, *, model), as `start`


@dataclass(frozen=True)
class RandomStart(Hyperparameters):
    """A start for `PC`: the inferred states start at random, h ~ N(0, scale²). The predictions are unaffected.

    Args:
        scale: the standard deviation, a number of at least 0. The noise is drawn from `RKG`.

    Raises:
        ValueError: `scale` is not such a number.

    Example:
        >>> model = ResidualNetwork(2, 4, 1, depth=2)
        >>> _ = RandomStart(0.1)(jnp.ones((5, 2)), jnp.zeros((5, 1)), model=model)
        >>> jnp.abs(model.vode.h.get()).max().item() < 1
        True
    """

    scale: Number = 1.0

    def __post_init__(self) -> None:
        check_number(self, "scale", self.scale)

    def __call__(self, x: Batch, y: Batch, *, model: Model) -> tuple[Batch, Float[Array, ""]]:
        """Sets the states of a batch, and returns the predictions and the loss, as `start` does."""
        result = start(x, y, model=model)
        for param in inferred(model).values():
            state = param.get()
            noise = jax.random.normal(RKG(), state.shape, state.dtype)
            zeros = jnp.where(False, state, 0)  # sharded as the state is, which the noise is not
            param.set(zeros + noise * jnp.asarray(self.scale, state.dtype))
        return result


def check_start(start: object) -> None:
    """Raises if a start cannot be called for a batch."""
    if not callable(start) or isinstance(start, type):
        raise TypeError(
            "PC expected a start, such as RandomStart(0.1), start_from_present or a function like `start`, "
            f"found {kind_of(start) if isinstance(start, type) else repr(start)}"
        )


def checked_result(result: Any) -> tuple[Batch, Float[Array, ""]]:  # what a start of any kind returns
    """Returns what a start returns; raises if that is not what `start` does."""
    if not (isinstance(result, tuple) and len(result) == 2 and np.shape(result[1]) == ()):
        raise TypeError(
            "PC expected its start to return the predictions and the loss, a scalar, as `start` does (`initialise` "
            f"returns the predictions alone), found {'an array' if isinstance(result, jax.Array) else kind_of(result)}"
        )
    return result


def start_from_present(x: Batch, y: Batch, *, model: Model) -> tuple[Batch, Float[Array, ""]]:
    """A start for `PC`: the inferred states stay as they are, as for the next frame of a film.

    States that are cleared, or of another shape, start at their predictions. `PC(start=start_from_present)` does not
    clear the states after a batch, so the next batch continues from them; with a start of your own, even one that calls
    this function, they are cleared.

    Args:
        x: as for `start`.
        y: as for `start`.
        model: as for `start`.

    Returns:
        The predictions and the loss, as `start` does.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = model.vode.h.set(jnp.full((5, 4), 3.0))
        >>> _ = start_from_present(x, jnp.zeros((5, 1)), model=model)
        >>> model.vode.h.max().item()
        3.0
    """
    before = {path: param.get() for path, param in inferred(model).items()}  # of cleared ones, None
    result = start(x, y, model=model)
    for path, param in inferred(model).items():
        if before[path] is not None and before[path].shape == param.get().shape:
            param.set(before[path])
    return result

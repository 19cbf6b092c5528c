"""Predictive coding: inference until the nodes have settled, then learning."""

from dataclasses import dataclass, field

from minipcax.learning._algorithm import Algorithm
from minipcax.learning._checks import check_loop
from minipcax.learning._forward import start
from minipcax.learning._inference import relax
from minipcax.learning._learning import learn
from minipcax.learning._model import Batch, Model
from minipcax.learning._report import Report
from minipcax.learning._solver import GradientTolerance, Solver
from minipcax.learning._starts import Start, check_start, checked_result
from minipcax.utils import Optim


@dataclass(frozen=True)
class PC(Algorithm):
    """Predictive coding: inference, then learning. After a forward pass, with the output clamped to the target,

        h ← h − lr_h · ∂E/∂h,  for T steps;  then W ← W − lr_W · ∂E/∂W

    An error reaches the l-th node before the output in step l, smaller by a factor of about lr_h^l. So with
    fewer steps than layers the first layers do not learn, and neither do they where the error is smaller than the
    rounding of the states, as with small rates in float32; `report.check()` warns of both. Take more or larger steps,
    float64, or `EPC`, which loses no digits.

    Args:
        steps: T, the steps of inference for each batch, an int of at least 1.
        unroll: how many steps to compile as one iteration of the loop, see `infer`.
        tolerance: a number of at least 0: inference ends early once a step changes the energy by at most this fraction.
            Or a `GradientTolerance`: it ends once the gradient is small.
        reset: whether the optimiser of the nodes starts anew for each batch; if `False`, it continues from its last
            state, and all batches must have one size.
        start: a function `start(x, y, *, model)` that sets the first states: `start` (the predictions), a
            `RandomStart`, `start_from_present`, or your own.
        record: whether the history has the states before every step of inference.

    Raises:
        ValueError: `steps`, `unroll`, `tolerance` or `reset` is out of range.
        TypeError: `start` cannot be called.

    Example:
        >>> class Model(EnergyModule):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.layer, self.vode = Linear(2, 1), Vode()
        ...         self.vode.h.frozen = True
        ...
        ...     def __call__(self, x: Array, y: Array | None = None) -> Array:
        ...         u: Array = self.vode(self.layer(x), output="u")
        ...         if y is not None:
        ...             self.vode.set("h", y)
        ...         return u
        >>> model = Model()
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> report = PC(steps=3)(jnp.ones((5, 2)), jnp.ones((5, 1)), model=model, nodes=nodes, weights=weights)
        >>> report.energies.shape, report.predictions.shape
        ((3,), (5, 1))
        >>> jnp.allclose(report.energies, report.loss).item()  # the only node is clamped
        True

    Reference:
        Rao and Ballard, Predictive coding in the visual cortex, Nature Neuroscience 2 (1999).
    """

    steps: int = 8
    unroll: int | bool = 1
    tolerance: float | GradientTolerance | None = None
    reset: bool = True
    start: Start = field(default=start, repr=False)
    record: bool = False

    def __post_init__(self) -> None:
        check_start(self.start)
        check_loop(self.steps, self.unroll, self.tolerance, self.reset)

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim | Solver, weights: Optim) -> Report:
        predictions, loss = checked_result(self.start(x, y, model=model))
        options = self.unroll, self.tolerance, self.reset, self.record
        history = relax(x, self.steps, *options, model=model, optim=nodes)
        learn(x, model=model, optim=weights)
        return Report(history, loss, predictions)

"""Inference as an ordinary differential equation, solved by diffrax, which is only needed here."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from minipcax.learning._hyperparameters import check_number
from minipcax.learning._model import Number
from minipcax.learning._solver import Problem, Snapshot, Solution, Solver, States


@dataclass(frozen=True)
class GradientFlow(Solver):
    """A solver for inference that follows the gradient in continuous time:

        dh/dt = −∂E/∂h,  from t = 0 to `time`

    It uses diffrax (`pip install 'minipcax[solvers]'`), by default Heun's method with adaptive steps, of which it takes
    at most the `steps` of the algorithm.

    Args:
        time: the end of the integration, a number of at least 0.
        dt: the length of the first step, which diffrax chooses if it is `None`; constant steps need it.
        method: an explicit Runge–Kutta method of diffrax, or `diffrax.Euler()`; `None` means `diffrax.Heun()`.
        controller: a step size controller of diffrax; `None` means `diffrax.PIDController(rtol=1e-3, atol=1e-3)`.

    Raises:
        ValueError: `time` or `dt` is not a number of at least 0.
        TypeError: in a call, the method or the controller is not one of these.
        ImportError: in a call, diffrax is not installed.

    Example:
        >>> GradientFlow(time=10.0)
        GradientFlow(time=10.0, dt=None, method=None, controller=None)

    Reference:
        Innocenti et al., JPC: Flexible Inference for Predictive Coding Networks in JAX, arXiv 2412.03676 (2024).
    """

    time: Number = 20.0
    dt: Number | None = None
    method: Any = None  # of diffrax, which may not be there to name its types
    controller: Any = None

    def __post_init__(self) -> None:
        check_number(self, "time", self.time)
        if self.dt is not None:
            check_number(self, "dt", self.dt)

    def solve(self, problem: Problem, steps: int) -> Solution:
        try:
            import diffrax
        except ImportError as error:
            raise ImportError("GradientFlow needs diffrax: pip install 'minipcax[solvers]'") from error
        method = diffrax.Heun() if self.method is None else self.method
        first, each = _gradients_taken(method, self.dt, diffrax)
        controller = diffrax.PIDController(rtol=1e-3, atol=1e-3) if self.controller is None else self.controller
        if not isinstance(controller, diffrax.AbstractStepSizeController):
            raise TypeError(f"GradientFlow expected a step size controller of diffrax, found {controller!r}")

        def field(t: Any, states: States, args: Any) -> States:
            downhill: States = jax.tree.map(jnp.negative, problem.gradients(states)[1])
            return downhill

        def settled(t: Any, states: States, args: Any, **_: Any) -> Any:
            return problem.settled(problem.gradients(states)[1])

        def snapshot(t: Any, states: States, args: Any) -> Snapshot:
            return problem.snapshot(states)

        along_the_way = diffrax.SubSaveAt(t0=True, steps=True, fn=snapshot)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            method,
            0.0,
            self.time,
            self.dt,
            problem.states,
            saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(t1=True), along_the_way]),
            stepsize_controller=controller,
            event=diffrax.Event(settled) if problem.has_tolerance else None,
            max_steps=steps,
            throw=False,
        )
        ys: Any = solution.ys
        last, kept = ys
        tried, accepted = solution.stats["num_steps"], solution.stats["num_accepted_steps"]
        numbers = jnp.minimum(jnp.arange(steps), accepted)
        looks = (tried + 1) * int(problem.has_tolerance)  # at the start, and after rejected steps too
        gradients = first + tried * each + looks
        return Solution(
            # Times are float32, so that states of less precision do not stay what they were.
            jax.tree.map(lambda array, start: array[0].astype(start.dtype), last, problem.states),
            jax.tree.map(lambda array: array[numbers], kept),
            gradients,
        )


def _gradients_taken(method: Any, dt: Number | None, diffrax: Any) -> tuple[int, int]:  # a module that may be missing
    """Returns how many gradients are computed before the first step, two of them to choose its length, and in each."""
    to_choose = 2 * (dt is None)
    if isinstance(method, diffrax.Euler):
        return to_choose, 1
    if not isinstance(method, diffrax.AbstractERK):
        raise TypeError(
            "GradientFlow expected an explicit Runge–Kutta method of diffrax, whose gradients can be counted, such as "
            f"diffrax.Heun() or diffrax.Tsit5(), found {method!r}"
        )
    tableau = method.tableau  # with FSAL, the last gradient of one step is the first of the next
    return to_choose + tableau.fsal, tableau.num_stages - tableau.fsal

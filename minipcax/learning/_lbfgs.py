"""L-BFGS as a solver: inference that learns the curvature of the energy while it goes down."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int

from minipcax.learning._solver import Problem, Snapshot, Solution, Solver, States


class At(NamedTuple):
    """Where the search has come to."""

    number: Int[Array, ""]  # of the step
    states: States
    optax: Any  # optax's state, which holds the gradient
    gradients: Int[Array, ""]
    snapshots: Snapshot


@dataclass(frozen=True)
class LBFGS(Solver):
    """A solver for inference by L-BFGS with a line search,

        h ← h − η H ∂E/∂h,  where H approximates the inverse Hessian, and η satisfies the Wolfe conditions

    Each step computes the gradient once or twice, because it continues from the last gradient of its search;
    `Optim(optax.lbfgs())`, which computes it anew at the start of each step, takes about twice as many. With
    `GradientTolerance(..., per_sample=True)`, every sample has its own H and η.

    Args:
        memory: the number of past steps from which H is made, an int of at least 1.

    Raises:
        ValueError: `memory` is not a positive int.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> weights, algorithm = Optim(optax.sgd(0.1), WEIGHTS(model)), PC(steps=20, tolerance=GradientTolerance(1e-4))
        >>> report = algorithm(x, y, model=model, nodes=LBFGS(), weights=weights)
        >>> int(report.history.gradients) < 20
        True

    Reference:
        Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Mathematical Programming 45
        (1989).
    """

    memory: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.memory, (int, np.integer)) or isinstance(self.memory, bool) or self.memory < 1:
            raise ValueError(f"LBFGS expected memory to be a positive int, found {self.memory!r}")

    def solve(self, problem: Problem, steps: int) -> Solution:
        optimiser, value_fn = optax.lbfgs(memory_size=int(self.memory)), problem.energy
        update: Any = optimiser.update  # which takes more than the gradient

        def unsettled(at: At) -> Bool[Array, ""]:
            return (at.number < steps) & ~problem.settled(optax.tree_utils.tree_get(at.optax, "grad"))

        def seen(at: At) -> Snapshot:
            now = problem.snapshot(at.states)
            snapshots: Snapshot = jax.tree.map(lambda every, one: every.at[at.number].set(one), at.snapshots, now)
            return snapshots

        def move(at: At) -> At:
            value, gradient = (optax.tree_utils.tree_get(at.optax, name) for name in ("value", "grad"))
            updates, state = update(gradient, at.optax, at.states, value=value, grad=gradient, value_fn=value_fn)
            tried = jnp.asarray(optax.tree_utils.tree_get(state, "num_linesearch_steps"), jnp.int32)
            return At(at.number + 1, optax.apply_updates(at.states, updates), state, at.gradients + tried, seen(at))

        value, gradient = jax.value_and_grad(value_fn)(problem.states)
        state = optax.tree_utils.tree_set(optimiser.init(problem.states), value=value, grad=gradient)
        form: Any = jax.eval_shape(problem.snapshot, problem.states)
        nothing = jax.tree.map(lambda one: jnp.zeros((steps, *one.shape), one.dtype), form)
        number, one = jnp.array(0, jnp.int32), jnp.array(1, jnp.int32)
        end = jax.lax.while_loop(unsettled, move, At(number, problem.states, state, one, nothing))
        numbers = jnp.minimum(jnp.arange(steps), end.number)  # after an early end, the last is repeated
        return Solution(end.states, jax.tree.map(lambda every: every[numbers], seen(end)), end.gradients)

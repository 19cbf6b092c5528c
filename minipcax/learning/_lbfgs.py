"""L-BFGS as a solver: inference that learns the curvature of the energy while it goes down."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from minipcax.learning._solver import Problem, Snapshot, Solution, Solver, States

Carry = tuple[States, Any, Int[Array, ""]]  # Any is optax's state


@dataclass(frozen=True)
class LBFGS(Solver):
    """L-BFGS with a line search. Each step computes the gradient once or twice, for it continues from the last gradient
    of its search; `Optim(optax.lbfgs())`, which computes it anew at the start of each step, takes about twice as many.

        h ← h − η H ∂E/∂h,  where H approximates the inverse Hessian, and η satisfies the Wolfe conditions

    With `GradientTolerance(..., per_sample=True)`, every sample has its own curvature and search.

    Args:
        memory: how many past steps H is made from.

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

    def solve(self, problem: Problem, steps: int) -> Solution:
        optimiser, value_fn = optax.lbfgs(memory_size=self.memory), problem.energy
        update: Any = optimiser.update  # which takes more than the gradient

        def move(states: States, state: Any) -> Carry:
            value, gradient = (optax.tree_utils.tree_get(state, name) for name in ("value", "grad"))
            updates, state = update(gradient, state, states, value=value, grad=gradient, value_fn=value_fn)
            count = jnp.asarray(optax.tree_utils.tree_get(state, "num_linesearch_steps"), jnp.int32)
            return optax.apply_updates(states, updates), state, count

        def one_step(carry: Carry, _: None) -> tuple[Carry, Snapshot]:
            states, state, count = carry
            settled = problem.settled(optax.tree_utils.tree_get(state, "grad"))
            states_now, state, more = jax.lax.cond(
                settled, lambda *at: (*at, jnp.zeros_like(count)), move, states, state
            )
            return (states_now, state, count + more), problem.snapshot(states)

        value, gradient = jax.value_and_grad(value_fn)(problem.states)
        state = optax.tree_utils.tree_set(optimiser.init(problem.states), value=value, grad=gradient)
        start = problem.states, state, jnp.array(1, jnp.int32)
        (states, _, count), snapshots = jax.lax.scan(one_step, start, length=steps)
        return Solution(states, snapshots, count)

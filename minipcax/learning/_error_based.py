"""Error-based predictive coding: inference over the errors of the nodes instead of their states.

With h = u + e, a node's state follows from the errors of all nodes before it, so that one backward pass carries the
error of the output to any depth; from state to state it takes one step of inference a layer, and fades on the way.

What inference optimises is a node's parameter `h`, so that is where an error is kept between passes. Within a pass it
is a parameter of its own: `_errors_apart`, which works on the copy of the model in `vmap`, clears `h`, which becomes
u + e when the prediction u arrives; the error is then an entry of the node, and the node's energy is that of its error.
So the pass is the same as in any other algorithm, and no model ever sees an error as a state.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

import minipcax.learning._refusals as refusals
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._checks import check_loop, check_model, check_squared_errors, check_states
from minipcax.learning._descent import Tolerance
from minipcax.learning._energies import Objective, joined_energies
from minipcax.learning._forward import start
from minipcax.learning._inference import descend
from minipcax.learning._model import (
    NODES,
    WEIGHTS,
    Batch,
    Model,
    Sample,
    keep_statistics,
    over_batch,
    split_nodes,
    status_of,
)
from minipcax.learning._order import check_order
from minipcax.learning._report import History, Report
from minipcax.learning._solver import GradientTolerance, Solver
from minipcax.predictive_coding import STATUS, Ruleset, Vode, VodeParam, se_energy
from minipcax.utils import Optim, step

# The names of the parameter and of the entry. No model has such names, for they are not identifiers.
KEPT, ERROR = "h - u, kept", "h - u"


@dataclass(frozen=True)
class EPC(Algorithm):
    """Error-based predictive coding (ePC): infers the errors e = h − u of the nodes instead of their states,

        h_l = u_l + e_l,  E(e) = Σ ½ e_l² + E_out(y, u_L(e)),  e ← e − lr_e · ∂E/∂e,  for T steps

    from e = 0 and with the output clamped. Then the weights learn as in `PC`, from ∂E/∂W at fixed states. Both have the
    same equilibria. An error is never computed as the difference of two nearly equal numbers, so it loses no digits.

    With `gradient="global"`, as in the reference and in jpc, the weights learn from dE(e, W)/dW at fixed errors, where
    the states h(e, W) depend on the weights:

        dE(e, W)/dW = ∂E(h, W)/∂W + ∂E(h, W)/∂h · ∂h(e, W)/∂W

    Both gradients are the same at equilibrium, where ∂E/∂h = 0. Before any inference, at e = 0, the global gradient is
    that of backpropagation, and the local one that of the output layer alone.

    The optimiser of the nodes is that of the errors. An error moves all states after it, so its rate must be smaller
    than that of states: for gradient descent in a linear network, below 2 / (1 + ‖∂u_L/∂e‖²), with the spectral norm.
    The inferred nodes must have `se_energy` and the built-in rules, and no prediction may read a state that is
    predicted after it, as with feedback.

    Args:
        steps: T, the steps of inference for each batch, an int of at least 1.
        unroll: how many steps to compile as one iteration of the loop, see `infer`.
        gradient: what the weights learn from: "local" at fixed states, or "global" at fixed errors.
        tolerance: when inference ends early, as for `PC`.

    Raises:
        ValueError: `gradient` is neither of these, `steps`, `unroll` or `tolerance` is out of range, or, in a call, an
            inferred node has another energy function or rules of its own.

    Example:
        >>> model, x, y = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2)), jnp.ones((5, 1))
        >>> nodes, weights = Optim(optax.sgd(0.1)), Optim(optax.sgd(0.1), WEIGHTS(model))
        >>> EPC(steps=2)(x, y, model=model, nodes=nodes, weights=weights).energies.shape
        (2,)

    Reference:
        Goemaere et al., Error Optimization: Overcoming Exponential Signal Decay in Deep Predictive Coding Networks,
        arXiv 2505.20137 (2025).
    """

    steps: int = 8
    unroll: int | bool = 1
    gradient: Literal["local", "global"] = "local"
    tolerance: float | GradientTolerance | None = None

    def __post_init__(self) -> None:
        check_loop(self.steps, self.unroll, self.tolerance)
        if self.gradient not in ("local", "global"):
            raise refusals.other_gradient(self.gradient)

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim | Solver, weights: Optim) -> Report:
        predictions, loss = start(x, y, model=model)
        history = relax_errors(x, self.steps, self.unroll, tolerance=self.tolerance, model=model, optim=nodes)
        objective = AT_FIXED_ERRORS if self.gradient == "global" else AT_FIXED_STATES
        # A line search may move only what the gradient takes to move; at other weights, the states are others too.
        value_fn = objective.value_fn(x, model) if self.gradient == "global" else None
        energies, gradients = objective.with_gradients(x, model)
        weights.step(model, gradients, scale_by=1 / len(energies), value=energies.sum(), value_fn=value_fn)
        return Report(history, loss, predictions)


def relax_errors(
    x: Batch,
    steps: int,
    unroll: int | bool = 1,
    tolerance: Tolerance | None = None,
    *,
    record: bool = False,
    model: Model,
    optim: Optim | Solver,
) -> History:
    """Infers the errors of the nodes, inside a `jit`, and leaves them in place of the states `h`; see `EPC`.

    It takes the arguments of `relax`, except `reset`: it starts from errors of zero, with a new optimiser. With
    `record`, the history also has the errors before every step, under the paths of the states.

    Returns:
        A `History`, with energies of shape (steps, nodes).

    Raises:
        TypeError: see `infer`.
        ValueError: see `infer`; an inferred node has another energy function than `se_energy`, or rules of its own; or
            a prediction reads a state that is predicted after it.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> relax_errors(x, 2, model=model, optim=Optim(optax.sgd(0.1))).total.round(6).tolist()  # nothing is observed
        [0.0, 0.0]
    """
    check_model(model)
    check_states(model)
    check_squared_errors(model, "EPC")
    check_order(x, model, _errors_apart)
    states = [(node.h, node.h.get()) for node in split_nodes(model)[0].values()]
    try:
        for h, state in states:
            h.set(jnp.where(False, state, 0))  # sharded as the state is, which `zeros_like` of JAX 0.12 forgets
        return descend(OBJECTIVE, x, steps, unroll, tolerance, record=record, model=model, optim=optim)
    except BaseException:
        for h, state in states:
            h.set(state)
        raise


@over_batch
def states_from_errors(x: Sample, *, model: Model) -> None:
    """Replaces the errors that `relax_errors` leaves in the nodes by the states h = u + e.

    Args:
        x: the batch of samples whose errors the nodes hold, of shape (batch, ...).
        model: the model; the states of its inferred nodes change.

    Raises:
        ValueError: a node is cleared.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> state = model.vode.h.get()
        >>> _ = model.vode.h.set(jnp.ones_like(state))
        >>> states_from_errors(x, model=model)
        >>> jnp.allclose(model.vode.h.get(), state + 1).item()
        True
    """
    check_states(model)
    keep_statistics(model)
    with step(model, status_of(model), clear_params=(VodeParam.Cache, VodeParam.Cache)), _errors_apart(model):
        model(x)


@contextmanager
def _errors_apart(model: Model, fixed: bool = False) -> Iterator[None]:
    """Within the block, errors are apart from the nodes' `h`, which after the pass hold the states u + e.

    Works on the copy of the model inside `vmap`, whose rules and energies are not restored; only the parameters must
    go, because a transform cannot return new ones.

    Args:
        model: the model, for one sample.
        fixed: whether the states are constants, or have gradients with respect to the errors.
    """
    nodes = split_nodes(model)[0].values()
    kept = {id(node.h): type(node.h).from_structure(node.h.structure(), (node.h.get(),)) for node in nodes}
    rules = Ruleset({STATUS.ALL: ("u <- u", "h <- u:plus_error")}, {"plus_error": partial(_plus_error, fixed)})
    for node in nodes:
        setattr(node, KEPT, kept[id(node.h)])
        node.ruleset, node.energy_fn = rules, partial(_energy_of_error, node.energy_fn or se_energy, fixed)
        node.h.set(None)
    try:
        yield
    finally:
        for node in nodes:
            delattr(node, KEPT)


def _plus_error(fixed: bool, vode: Vode[Any], key: str, u: Array, rkg: object) -> Array:
    known: Array | None = vode.h.get()
    if known is not None:  # of another node with the same state, which was predicted before and has the error
        return known
    vode.cache[ERROR] = vode.get(KEPT)
    state: Array = u + vode.get(KEPT)
    return stop_gradient(state) if fixed else state


def _energy_of_error(energy_fn: Callable[..., Array], fixed: bool, vode: Vode[Any]) -> Float[Array, "..."]:
    """Returns the energy of e and 0, which is that of h = u + e and u; but in floats (u + e) − u is not e."""
    error, u = vode.get(ERROR), vode.get("u")
    if error is None:
        return energy_fn(vode)
    zero = u - stop_gradient(u) if fixed else jnp.zeros_like(u)  # at fixed states, its gradient is that of u
    return energy_fn(Vode().set("h", error).set("u", zero).set("precision", vode.get("precision")))


def _node_energies(fixed: bool, x: Sample, *, model: Model) -> Float[Array, " nodes"]:
    with _errors_apart(model, fixed):
        energies = joined_energies(x, model=model)
        for node in split_nodes(model)[0].values():
            node.h.set(node.get(KEPT))
    return energies


OBJECTIVE = Objective(NODES, partial(_node_energies, False))
AT_FIXED_ERRORS = Objective(WEIGHTS, partial(_node_energies, False))
AT_FIXED_STATES = Objective(WEIGHTS, partial(_node_energies, True))

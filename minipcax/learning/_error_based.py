"""Error-based predictive coding: inference over the errors of the nodes instead of their states.

With h = u + e, a node's state follows from the errors of all nodes before it, so one pass backward carries the error of
the output to any depth; from state to state it takes one step of inference a layer, and fades on the way.

While errors are inferred, a node's parameter `h` holds its error. In the copy of the model that `vmap` works on, an
input rule turns it into the state when the prediction arrives.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from minipcax.functional import value_and_grad
from minipcax.learning._algorithm import Algorithm
from minipcax.learning._batch import energies_of, start
from minipcax.learning._checks import check_model, check_states, require_squared_errors
from minipcax.learning._inference import ByNode, loop
from minipcax.learning._model import NODES, WEIGHTS, Batch, Model, keep_statistics, over_batch, split_nodes
from minipcax.learning._report import History, Report
from minipcax.predictive_coding import STATUS, Ruleset, Vode, VodeParam
from minipcax.utils import Optim, step


@dataclass(frozen=True)
class EPC(Algorithm):
    """Error-based predictive coding (ePC). After a forward pass, with all errors zero and the output clamped,

        h_l = u_l + e_l,  E(e) = Σ ½ e_l² + E_out(y, u_L(e)),  e ← e − lr_e · ∂E/∂e,  for T steps

    and then the weights learn as in `PC`, from ∂E/∂W at fixed states. Both have the same equilibria. An error is
    itself what is inferred, never the difference of two numbers that are nearly the same, and so loses no digits.

    The optimiser of the nodes is that of the errors. An error moves all states after it, so that its rate must be
    smaller than that of states: for gradient descent in a linear network, below 2 / (1 + ‖∂u_L/∂e‖²), with the spectral
    norm. The inferred nodes must have `se_energy` and the built-in rules.

    Args:
        steps: T, of inference for each batch.
        unroll: how many of them to compile as one round of the loop, see `infer`.

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

    def train(self, x: Batch, y: Batch, *, model: Model, nodes: Optim, weights: Optim) -> Report:
        predictions, loss = start(x, y, model=model)
        history = relax_errors(x, self.steps, self.unroll, model=model, optim=nodes)
        weights.step(model, _learning_gradients(x, model=model)[1]["model"])
        return Report(history, loss, predictions)


def relax_errors(
    x: Batch, steps: int, unroll: int | bool = 1, reset: bool = True, *, model: Model, optim: Optim
) -> History:
    """Infers the errors, and leaves them in the nodes in place of the states; for use inside a `jit`.

    It starts from zero and with a new optimiser, or without `reset` from the errors and the optimiser that are there.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> relax_errors(x, 2, model=model, optim=Optim(optax.sgd(0.1))).total.round(6).tolist()  # nothing is observed
        [0.0, 0.0]
    """
    check_model(model)
    check_states(model)
    require_squared_errors(model, "EPC")
    if reset or optim.state.get() is None:
        for node in split_nodes(model)[0].values():
            node.h.set(jnp.zeros_like(node.h.get()))
        optim.init(NODES(model))

    def move(*, model: Model, optim: Optim) -> ByNode:
        (_, (energies,)), grads = _energy_and_gradients(x, model=model)
        optim.step(model, grads["model"])
        return energies

    history = loop(move, steps, unroll, model=model, optim=optim)
    if reset:
        optim.clear()
    return History(history, tuple(model.nodes()))


@over_batch
def states_from_errors(x: Batch, *, model: Model) -> None:
    """Puts the states h = u + e in the place of the errors.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, model=model)
        >>> state = model.vodes[0].h.get()
        >>> _ = model.vodes[0].h.set(jnp.ones_like(state))
        >>> states_from_errors(x, model=model)
        >>> jnp.allclose(model.vodes[0].h.get(), state + 1).item()
        True
    """
    with step(model, clear_params=(VodeParam.Cache, VodeParam.Cache)):
        _run_forward(x, model, True)


def _run_forward(x: Batch, model: Model, keep_gradient: bool) -> list[tuple[Vode[Any], Array]]:
    """Calls the model with states made of errors; returns the nodes whose predictions they were added to, with them."""
    keep_statistics(model)
    nodes_and_errors: list[tuple[Vode[Any], Array]] = []

    def plus_error(error: Array, vode: Vode[Any], key: str, u: Array, rkg: object) -> Array:
        if vode.h.get() is error:  # or else another node with the same state was predicted before
            nodes_and_errors.append((vode, error))
            state: Array = u + error
            return state if keep_gradient else stop_gradient(state)
        known: Array = vode.h.get()
        return known

    for node in split_nodes(model)[0].values():
        tforms = {"plus_error": partial(plus_error, node.h.get())}
        node.ruleset = Ruleset({STATUS.ALL: ("u <- u", "h <- u:plus_error")}, tforms)
    model(x)
    return nodes_and_errors


def _energies(inferring: bool, x: Batch, *, model: Model) -> ByNode:
    """The energies of one sample, for inference by the errors, or for learning at fixed states."""
    with step(model, clear_params=(VodeParam.Cache, VodeParam.Cache)):
        known = {}
        nodes_and_errors = _run_forward(x, model, inferring)
        for node, error in nodes_and_errors:
            # The energy of h and u is that of h − u and 0, but in floats (u + e) − u is not e.
            state, u = node.h.get(), node.cache["u"]
            node.h.set(error)
            node.cache["u"] = jnp.zeros_like(u) if inferring else u - stop_gradient(u)
            known[id(node)] = node.energy()
            node.h.set(state)
        energies = energies_of(model.nodes(), known)
        for node, error in nodes_and_errors:
            node.h.set(error)
        return energies


_energies_by_errors, _energies_by_weights = over_batch(partial(_energies, True)), over_batch(partial(_energies, False))


@value_and_grad({"model": NODES}, has_aux=True)
def _energy_and_gradients(x: Batch, *, model: Model) -> tuple[Float[Array, ""], ByNode]:
    each = _energies_by_errors(x, model=model)
    return each.sum(), each.mean(axis=0)


@value_and_grad({"model": WEIGHTS})
def _learning_gradients(x: Batch, *, model: Model) -> Float[Array, ""]:
    return _energies_by_weights(x, model=model).sum(axis=-1).mean()

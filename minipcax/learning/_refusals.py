"""The words for models and algorithms that `_pass`, `_zil`, `_nudging`, `_algorithm`, `_report`, `_theory` refuse."""

import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from minipcax.predictive_coding import EnergyFn


def lost_target(observed: Iterable[str], inferred: list[str], named: list[str], what: str = "y") -> ValueError:
    """The error for a target that does not become the state of an observed node."""
    if inferred:
        why = f"it is set in {', '.join(inferred)}, which is inferred: set h.frozen = True there"
    elif named:
        why = f'it is stored in {", ".join(named)}, which is not the state: write node.set("h", y)'
    else:
        why = 'write `if y is not None: node.set("h", y)` in the call of the model'
    names = ", ".join(observed) or "none"
    return ValueError(
        f"the target {what} reaches no observed node (h.frozen = True), of which the model has {names}; {why}"
    )


def no_target(observed: Iterable[str]) -> ValueError:
    """The error for a training step without targets, whose energy is zero from the start."""
    return ValueError(
        f"there is nothing to learn, as y is None and the state of {', '.join(observed)} (h.frozen = True) its own "
        "prediction: give targets y, or a model that sets an observed state from x"
    )


def returned_target(paths: Iterable[str]) -> ValueError:
    """The error for a model that returns its target."""
    return ValueError(
        f"the model returns the state of {', '.join(paths)}, which is clamped to the target, and not its prediction, "
        'so that every prediction would be right: return node(u, output="u"), or node.get("u")'
    )


def check_no_tracer(energies: object) -> None:
    """Raises if energies are not known yet, inside a transform."""
    if isinstance(energies, Tracer):
        raise TypeError(
            "check waits for the energies, which have no values inside a transform: return the report or history from "
            "the compiled function, and check it there"
        )


def not_finite(path: str, found: float, step: int, steps: int) -> FloatingPointError:
    """The error for an energy that is not finite. At the first step, states have not moved yet."""
    first = ", or choose an energy that is defined where inference starts"
    return FloatingPointError(
        f"the energy of {path or 'the model'} is {found} at step {step} of {steps}: lower the learning rates, or scale "
        f"the inputs{first if step == 1 else ''}"
    )


def warn_unlearned(paths: Sequence[str], nodes: int) -> None:
    """Warns that inference ended before the error reached these nodes. Is called by `check` of a history or report."""
    warnings.warn(
        f"inference ended before the error of the output reached {len(paths)} of {nodes} nodes "
        f"({paths[0] or 'the model'}{', ...' if len(paths) > 1 else ''}), so the weights of their predictions have not "
        "learned: take as many steps as there are layers, a smaller tolerance if there is one, larger steps if the "
        "error is lost to rounding, or EPC",
        stacklevel=4,
    )


def unreached(path: str) -> ValueError:
    """The error for a node that the model does not call."""
    return ValueError(
        f"the call of the model does not reach the node {path or 'itself'}, which has neither a prediction nor a "
        "state: call it with a prediction, or remove it from the model"
    )


def read_too_early(path: str, state: str) -> ValueError:
    """The error for a prediction that a pass over errors makes before a state that it is made from."""
    which = "its own state" if path == state else f"the state of {state}, which is predicted after it"
    return ValueError(
        f"EPC expected predictions from states that were predicted before, found that {path} is predicted from {which}"
        ": use PC for this model, which infers states in any order"
    )


def nudged(path: str, what: str) -> ValueError:
    """The error for weights that learn without a nudge as well, in a model that is nudged."""
    return ValueError(
        f"Nudging divides gradients by beta, so it expected weights that learn from the nudge alone, found {what} in "
        f"{path or 'the model'}: use PC for this model"
    )


def entry_of_targets(path: str, name: str) -> ValueError:
    """The error for an entry that an energy reads, and that is set only with targets."""
    return ValueError(
        f"the energy of {path} reads {name!r}, which the model sets only when it is given targets, and which "
        f"inference would not see: pass it with the samples, x = (sample, {name}), and set it in every call, or "
        f"keep it as a state, {path}.{name} = VodeParam() with {path}.{name}.frozen = True"
    )


def misspelt_entry(path: str, name: str, meant: str) -> ValueError:
    """The error for an entry that nothing reads, with a name like one that the energy reads."""
    return ValueError(
        f"the node {path} is given {name!r}, which nothing reads, but its energy reads {meant!r}: is the name misspelt?"
    )


def not_a_chain(nodes: Iterable[str], found: str) -> ValueError:
    """The error for a model in which a node does not predict the next."""
    return ValueError(
        f"ZIL expected a chain, in which every node predicts the next, in the order {', '.join(nodes)}, and only the "
        f"last is observed; found that {found}: assign the nodes in the order in which they are called, or use PC for "
        "this model"
    )


def has_precision(path: str) -> ValueError:
    """The error for an inferred node of `ZIL` with a precision, which would scale its error."""
    return ValueError(f"ZIL expected nodes without a precision, found one in {path}: use PC for this model")


def unknown_nudge(path: str, energy_fn: EnergyFn | None) -> ValueError:
    """The error for an observed node whose states between prediction and target are not known."""
    return ValueError(
        f"Nudging expected se_energy or ce_energy in the observed node {path}, found {energy_fn}, for which it does "
        "not know how a state lies between prediction and target: use PC"
    )


def other_beta(beta: object) -> ValueError:
    """The error for a nudge of nothing, or past the target."""
    return ValueError(
        "Nudging expected a beta other than 0, by which the gradients are divided, and from -1 to 1, found "
        f"{beta}: 1 is all the way to the target, negative is away from it"
    )


def other_gradient(gradient: object) -> ValueError:
    """The error for an unknown gradient of the weights in error-based predictive coding."""
    return ValueError(
        'EPC expected the gradient "local", of the weights at fixed states, or "global", at fixed errors and through '
        f"all states, found {gradient!r}"
    )


def held(owner: object, where: str) -> TypeError:
    """The error for a hyperparameter that is, or holds, a parameter."""
    return TypeError(
        f"{type(owner).__name__} expected hyperparameters without parameters, found one at {where}, which would be "
        "compiled as it is now, and never change: give a number or array, .get(); make a module, such as a teacher, a "
        "part of the model, with frozen = True"
    )


def mixed(owner: object, name: str, value: object) -> TypeError:
    """The error for a container of arrays, which are traced, and of what JAX cannot trace or has no need to."""
    return TypeError(
        f"{type(owner).__name__}.{name} expected a container of floats and arrays alone, which are traced, or one "
        f"without arrays, found {value!r}: make two hyperparameters of it"
    )


def traced_choice(algorithm: object, name: str) -> TypeError:
    """The error for Python code that depends on a hyperparameter which is traced."""
    return TypeError(
        f"{type(algorithm).__name__}.train needs to know its hyperparameter {name} while it is compiled, but floats "
        "and arrays are traced, so that a schedule does not compile again: choose with jnp.where or "
        "minipcax.functional.cond, or use a hyperparameter that is a bool, an int or a string"
    )


# Theory


def check_chain(weights: Sequence[Array], least: int) -> None:
    """Raises if weights are not matrices of which each takes what the one before it gives."""
    if len(weights) < least:
        raise ValueError(f"expected the weights of at least {least} layers, found {len(weights)}")
    shapes = [weight.shape for weight in weights]
    if any(len(shape) != 2 for shape in shapes) or any(a[0] != b[1] for a, b in pairwise(shapes)):
        raise ValueError(
            "expected weights from input to output, of shapes (out_features, in_features), each with the in_features "
            f"that the one before it has as out_features, found {', '.join(map(str, shapes))}"
        )


def check_ends(weights: Sequence[Array], x: Array, y: Array) -> None:
    """Raises if samples and targets do not fit the ends of a chain."""
    expected = weights[0].shape[1], weights[-1].shape[0]
    if not (x.ndim == y.ndim == 2 and len(x) == len(y) and (x.shape[1], y.shape[1]) == expected):
        raise ValueError(
            f"expected samples of shape (batch, {expected[0]}) and targets of shape (batch, {expected[1]}), found "
            f"{x.shape} and {y.shape}"
        )


def check_inferred(states: Sequence[object]) -> None:
    """Raises if a model has no inferred states."""
    if not states:
        raise ValueError("state_hessian expected a model with inferred nodes, found that all are observed")


def check_square(hessian: Array) -> None:
    """Raises if this is not a square matrix, or several of them."""
    if hessian.ndim < 2 or hessian.shape[-1] != hessian.shape[-2] or hessian.shape[-1] == 0:
        raise ValueError(f"conditioning expected square matrices, found an array of shape {hessian.shape}")


def check_positive(hessian: Array, smallest: Array) -> None:
    """Raises if a matrix is not symmetric, or not positive definite."""
    if not jnp.allclose(hessian, jnp.swapaxes(hessian, -1, -2), rtol=1e-3, atol=1e-3 * jnp.abs(hessian).max()):
        raise ValueError("conditioning expected a Hessian, which is symmetric, found a matrix that is not")
    if not (smallest > 0).all():
        raise ValueError(
            f"conditioning expected positive definite Hessians, found one whose smallest eigenvalue is "
            f"{smallest.min():.3g}: gradient descent does not converge there, as the states are not near a minimum"
        )

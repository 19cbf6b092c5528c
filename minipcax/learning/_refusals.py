"""The words for models and algorithms that `_pass`, `_zil`, `_nudging` and `_algorithm` refuse."""

from collections.abc import Iterable

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


def returned_target(paths: Iterable[str]) -> ValueError:
    """The error for a model that returns its target."""
    return ValueError(
        f"the model returns the state of {', '.join(paths)}, which is clamped to the target, and not its prediction, "
        'so that every prediction would be right: return node(u, output="u"), or node.get("u")'
    )


def unreached(path: str) -> ValueError:
    """The error for a node that the model does not call."""
    return ValueError(
        f"the call of the model does not reach the node {path or 'itself'}, which has neither a prediction nor a "
        "state: call it with a prediction, or remove it from the model"
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


def not_a_chain(nodes: Iterable[str], path: str, observed: bool, others: list[str], lacks: bool) -> ValueError:
    """The error for a model in which a node does not predict the next."""
    wrong = f"{path} is {'observed' if observed else 'not'}"
    if others:
        wrong = f"the energy of {path} {'does not depend' if lacks else 'depends'} on the state of {', '.join(others)}"
    return ValueError(
        f"ZIL expected a chain, in which every node predicts the next, in the order {', '.join(nodes)}, and only the "
        f"last is observed; found that {wrong}: assign the nodes in the order in which they are called, or use PC for "
        "this model"
    )


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


def traced_choice(algorithm: object, name: str) -> TypeError:
    """The error for Python code that depends on a hyperparameter which is traced."""
    return TypeError(
        f"{type(algorithm).__name__}.train needs to know its hyperparameter {name} while it is compiled, but floats "
        "and arrays are traced, so that a schedule does not compile again: choose with jnp.where or "
        "minipcax.functional.cond, or use a hyperparameter that is a bool, an int or a string"
    )

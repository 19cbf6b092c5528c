"""What a model must be for an algorithm to mean something, seen before anything is trained.

Each check looks at one pass of a copy of the model while a training step is traced, and costs a compiled step nothing.
"""

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import jax
import jax.numpy as jnp

from minipcax.core import get, tree_extract, tree_ref, tree_unref
from minipcax.core.tree import path_name
from minipcax.learning._influence import Sources, influences, is_sources, union
from minipcax.learning._model import PER_SAMPLE, Batch, Model, keep_statistics, over_batch, split_nodes, vodes
from minipcax.predictive_coding import STATUS, Vode, VodeParam, ce_energy, se_energy
from minipcax.utils import step

OWN_ENTRIES = {"h", "u", "E"}  # what every node has


def check_model(model: Model) -> None:
    """Refuses what is no model with value nodes.

    Raises:
        TypeError: it is no `EnergyModule`.
    """
    if not isinstance(model, Model):
        name, lacks = type(model).__name__, "call" if hasattr(model, "nodes") else "nodes"
        raise TypeError(
            f"expected a model of value nodes, found a {name}, which has no {lacks}: write class {name}(EnergyModule), "
            "with a Vode after each layer, and a __call__(self, x, y=None) that returns the prediction for one sample"
        )


def check_states(model: Model) -> None:
    """Refuses to go on from states that are not there.

    Raises:
        ValueError: the state of a node is cleared.
    """
    for path, node in vodes(model).items():
        if node.h.get() is None:
            raise ValueError(
                f"inference expected {path}.h to have a value, but it is cleared: set it first, with initialise(x, y, "
                "model=model), which sets those of all nodes"
            )


def check_pass(x: Batch, y: Batch, *, model: Model) -> Sources:
    """Refuses a model whose forward pass leaves out a node, or a target, or what the energies read.

    Returns:
        The paths of the model's leaves that predictions are made from.

    Raises:
        TypeError: what is given is no model.
        ValueError: there is no sample; a node gets no state, or several predictions; the targets reach no observed
            node; the model returns its target; or a node is given an entry that nothing reads, or that inference does
            not see.
    """
    check_model(model)
    for array in jax.tree.leaves((x, y)):
        if jnp.shape(array)[:1] == (0,):
            raise ValueError(f"expected a batch of samples, found none: an array of shape {jnp.shape(array)}")

    def forward(reference: Any, x: Batch, y: Batch) -> Any:
        copy = tree_unref(reference)
        with step(copy, STATUS.INIT):
            return _look(x, y, model=copy)

    output, states, predictions, entries, held = influences(forward, tree_ref(model), x, y)

    def depends(found: object) -> bool:
        return any(path.startswith("[2]") for path in union(found))

    observed = split_nodes(model)[1]
    unused = {f"[2]{path_name(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(y)} - union((output, held))
    if jax.tree.leaves(y) and not depends(predictions):  # in a model that predicts from y, it is an input
        if not any(depends(states[path]) for path in observed):
            inferred = [path for path in states if path not in observed and depends(states[path])]
            named = [f"{path}.{name}" for path in entries for name, found in entries[path].items() if depends(found)]
            _refuse_lost_target(observed, inferred, named)
        leaves = jax.tree.leaves(output, is_leaf=is_sources)
        if leaves and all(map(depends, leaves)):
            _refuse_returned_target([path for path in observed if depends(states[path])])
    if unused:
        _refuse_lost_target(observed, [], [], f"y{min(unused).removeprefix('[2]')}")
    return frozenset(path.removeprefix("[0]") for path in union(predictions) if path.startswith("[0]"))


@over_batch
def _look(x: Batch, y: Batch, *, model: Model) -> Any:
    output = model(x, y)
    nodes = vodes(model)
    for path, node in nodes.items():
        _refuse_unreached(path, node)
        if node.cache.notes.predictions > 1:
            _refuse_several_predictions(path, node.cache.notes.predictions)
    clamped = {
        path: node.h.get() for path, node in nodes.items() if node.h.frozen and node.h.get() is not node.get("u")
    }
    returned = [[path for path in clamped if clamped[path] is leaf] for leaf in jax.tree.leaves(output)]
    if y is not None and returned and all(returned):
        _refuse_returned_target(sorted({path for paths in returned for path in paths}))
    held = {path: {name: node.cache[name] for name in node.cache.given()} for path, node in nodes.items()}
    states = {path: node.h.get() for path, node in nodes.items()}
    of_samples = tree_extract(model, extract_fn=get, filter_fn=PER_SAMPLE.apply)
    if any(entries.keys() - OWN_ENTRIES for entries in held.values()):
        _check_entries(x, held, model)
    entries = {path: {name: held[path][name] for name in held[path] if name not in OWN_ENTRIES} for path in held}
    return output, states, {path: held[path].get("u") for path in held}, entries, of_samples


def _check_entries(x: Batch, held: dict[str, dict[str, Any]], model: Model) -> None:
    """Compares the entries of nodes in the pass with targets with those in a pass without, as in inference."""
    asked = {path: {*node.cache.notes.asked} for path, node in vodes(model).items()}
    keep_statistics(model)
    with step(model, clear_params=(VodeParam.Cache, None)):
        model(x)
        for path, node in vodes(model).items():
            present = {*node.cache}
            with suppress(AttributeError, TypeError, ValueError):  # perhaps because of what is looked for here
                node.energy()
            of_energy = node.cache.notes.asked
            for name in held[path].keys() - OWN_ENTRIES:
                if name not in present and name in of_energy:
                    _refuse_entry_of_targets(path, name)
                meant = get_close_matches(name, of_energy - OWN_ENTRIES)
                if name not in asked[path] | of_energy and meant:
                    _refuse_misspelt(path, name, meant[0])


def check_no_target(model: Model) -> None:
    """Refuses a model that has set an observed node to its prediction when there was no target.

    Raises:
        ValueError: the state of an observed node is its prediction.
    """
    for path, node in split_nodes(model)[1].items():
        if node.h.get() is not None and node.h.get() is node.get("u"):
            raise ValueError(
                f"the model set the observed node {path} to its prediction when it was given no target, which leaves "
                'no error: write `if y is not None: node.set("h", y)`'
            )


def check_minima(model: Model) -> None:
    """Refuses inferred nodes whose energy falls for ever as their state moves.

    Raises:
        ValueError: an inferred node has `ce_energy`, which is linear in h.
    """
    for path, node in split_nodes(model)[0].items():
        if _function(node) is ce_energy and node.ruleset.output_for(node.status, "h") is None:
            raise ValueError(
                f"inference expected every inferred node to have an energy with a minimum, found ce_energy in {path}, "
                f"which is linear in h and falls for ever: observe the node, {path}.h.frozen = True and a target, or "
                "give it se_energy"
            )


def require_squared_errors(model: Model, name: str) -> None:
    """Refuses a model with an inferred node whose energy is not of h − u alone, or that has rules of its own."""
    built_in = Vode().ruleset
    for path, node in split_nodes(model)[0].items():
        if _function(node) is not se_energy or node.ruleset != built_in:
            raise ValueError(
                f"{name} expected every inferred node to have se_energy and the built-in rules, found others in "
                f"{path}: use PC for this model"
            )


def _function(node: Vode[Any]) -> object:
    return getattr(node.energy_fn, "func", node.energy_fn)


def _refuse_lost_target(observed: Iterable[str], inferred: list[str], named: list[str], what: str = "y") -> None:
    names = ", ".join(observed) or "none"
    if inferred:
        why = f"it is set in {', '.join(inferred)}, which is inferred: set h.frozen = True there"
    elif named:
        why = f'it is stored in {", ".join(named)}, which is not the state: write node.set("h", y)'
    else:
        why = 'write `if y is not None: node.set("h", y)` in the call of the model'
    raise ValueError(
        f"the target {what} reaches no observed node (h.frozen = True), of which the model has {names}; {why}"
    )


def _refuse_returned_target(paths: list[str]) -> None:
    raise ValueError(
        f"the model returns the state of {', '.join(paths)}, which is clamped to the target, and not its prediction, "
        'so that every prediction would be right: return node(u, output="u"), or node.get("u")'
    )


def _refuse_unreached(path: str, node: Vode[Any]) -> None:
    if node.h.get() is None:
        raise ValueError(
            f"the call of the model does not reach the node {path or 'itself'}, which has neither a prediction nor a "
            "state: call it with a prediction, or remove it from the model"
        )


def _refuse_several_predictions(path: str, count: int) -> None:
    raise ValueError(
        f"the call of the model gives the node {path} {count} predictions, of which only the last would have an "
        "energy: use a node for each (in a loop over time, one for each step; nn.shared(vode) shares the state)"
    )


def _refuse_entry_of_targets(path: str, name: str) -> None:
    raise ValueError(
        f"the energy of {path} reads {name!r}, which the model sets only when it is given targets, and which "
        f"inference would not see: pass it with the samples, x = (sample, {name}), and set it in every call, or "
        f"keep it as a state, {path}.{name} = VodeParam() with {path}.{name}.frozen = True"
    )


def _refuse_misspelt(path: str, name: str, meant: str) -> None:
    raise ValueError(
        f"the node {path} is given {name!r}, which nothing reads, but its energy reads {meant!r}: is the name misspelt?"
    )

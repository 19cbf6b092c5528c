"""Checks, before training, that the model's forward pass can be learned from.

The pass is made on a copy of the model while a training step is traced, and costs a compiled step nothing. What its
values depend on, such as the states on the targets, is read from its jaxpr (see `_influence`).
"""

from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NamedTuple

import jax

import minipcax.learning._refusals as refusals
from minipcax.core import get, tree_extract, tree_ref, tree_unref
from minipcax.core.tree import path_name
from minipcax.learning._checks import check_model, check_samples, naming
from minipcax.learning._influence import Sources, influences, is_sources, union
from minipcax.learning._model import PER_SAMPLE, Batch, Model, Sample, keep_statistics, over_batch, split_nodes, vodes
from minipcax.predictive_coding import STATUS, VodeParam
from minipcax.utils import step

OWN_ENTRIES = {"h", "u", "E"}  # of every node


class Seen(NamedTuple):
    """The values of a pass; in their places, after `influences`, the inputs that they depend on."""

    output: Any
    states: dict[str, Any]  # by node, as the next two
    predictions: dict[str, Any]
    entries: dict[str, dict[str, Any]]  # without `OWN_ENTRIES`
    of_samples: tuple[Any, ...]  # everything that the nodes hold
    clamped: dict[str, Any]  # the states of observed nodes that are not their predictions


def check_pass(x: Batch, y: Batch, *, model: Model, learns: bool = False) -> Sources:
    """Checks the model's forward pass on a batch, after which the model infers, or also `learns`.

    Returns:
        The paths of the model's leaves that predictions are made from.

    Raises:
        TypeError: the model is not an `EnergyModule`.
        ValueError: there is no sample; a node gets no state, or several predictions; the targets reach no observed
            node; the model returns its target; or a node is given an entry that nothing reads, or that inference does
            not see; or the model learns, and no observed node has another state than its prediction.
    """
    check_model(model)
    check_samples(x, y)

    def forward(reference: Any, x: Batch, y: Batch) -> Seen:
        copy = tree_unref(reference)
        with step(copy, STATUS.INIT):
            seen: Seen = _look(x, y, model=copy)
        return seen

    seen: Seen = influences(forward, tree_ref(model), x, y)
    observed = split_nodes(model)[1]

    def depends(found: object) -> bool:
        return any(path.startswith("[2]") for path in union(found))  # on y, the last argument

    if jax.tree.leaves(y) and not depends(seen.predictions):  # in a model that predicts from y, it is an input
        if not any(depends(seen.states[path]) for path in observed):
            inferred = [path for path, state in seen.states.items() if path not in observed and depends(state)]
            named = [f"{path}.{name}" for path, held in seen.entries.items() for name in held if depends(held[name])]
            raise refusals.lost_target(observed, inferred, named)
        outputs = jax.tree.leaves(seen.output, is_leaf=is_sources)
        if outputs and all(map(depends, outputs)):
            raise refusals.returned_target(path for path in observed if depends(seen.states[path]))
    if learns and y is None and observed and not seen.clamped:
        raise refusals.no_target(observed)
    targets = {f"[2]{path_name(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(y)}
    unused = targets - union((seen.output, seen.of_samples))
    if unused:
        raise refusals.lost_target(observed, [], [], f"y{min(unused).removeprefix('[2]')}")
    return frozenset(path.removeprefix("[0]") for path in union(seen.predictions) if path.startswith("[0]"))


@over_batch
def _look(x: Sample, y: Sample, *, model: Model) -> Seen:
    output, nodes = model(x, y), vodes(model)
    for path, node in nodes.items():
        if node.h.get() is None:
            raise refusals.unreached(path)
        with naming(path):
            node.cache.notes.check_predictions()
    states = {path: node.h.get() for path, node in nodes.items()}
    # By identity, as the output may well depend on y where y is an input, too; `check_pass` sees more for other models.
    clamped = {path: h for path, h in states.items() if nodes[path].h.frozen and h is not nodes[path].get("u")}
    returned = [[path for path, state in clamped.items() if state is leaf] for leaf in jax.tree.leaves(output)]
    if y is not None and returned and all(returned):
        raise refusals.returned_target(sorted({path for paths in returned for path in paths}))
    held = {path: {name: node.cache[name] for name in node.cache.given()} for path, node in nodes.items()}
    entries = {path: {name: held[path][name] for name in held[path] if name not in OWN_ENTRIES} for path in held}
    predictions = {path: held[path].get("u") for path in held}
    of_samples = tree_extract(model, extract_fn=get, filter_fn=PER_SAMPLE.apply)
    if any(entries.values()):
        _check_entries(x, entries, model)
    return Seen(output, states, predictions, entries, of_samples, clamped)


def _check_entries(x: Sample, entries: dict[str, dict[str, Any]], model: Model) -> None:
    """Compares the entries of nodes in the pass with targets to those in a pass without, as in inference."""
    asked = {path: {*node.cache.notes.asked} for path, node in vodes(model).items()}
    keep_statistics(model)
    with step(model, clear_params=(VodeParam.Cache, None)):
        model(x)
        for path, node in vodes(model).items():
            present = {*node.cache}
            with suppress(AttributeError, TypeError, ValueError):  # perhaps for the very reason looked for here
                node.energy()
            of_energy = node.cache.notes.asked
            for name in entries[path]:
                if name not in present and name in of_energy:
                    raise refusals.entry_of_targets(path, name)
                meant = get_close_matches(name, of_energy - OWN_ENTRIES)
                if name not in asked[path] | of_energy and meant:
                    raise refusals.misspelt_entry(path, name, meant[0])

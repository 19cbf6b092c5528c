"""Checks that a model predicts its states in an order, each from those before.

Inference over states needs none: a prediction may read any state, also by feedback from a later node, as all states are
there. Inference over errors does, for it makes the states anew in every pass, h = u + e, and one that is read too early
is not there. Which states and errors a prediction depends on is read from the jaxprs of two passes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from jaxtyping import Array

import minipcax.learning._refusals as refusals
from minipcax.core import tree_ref, tree_unref
from minipcax.learning._influence import influences, union
from minipcax.learning._model import Batch, Model, Sample, keep_statistics, over_batch, split_nodes, status_of, vodes
from minipcax.predictive_coding import VodeParam
from minipcax.utils import step

Block = Callable[[Model], AbstractContextManager[None]]


def check_order(x: Batch, model: Model, errors_apart: Block) -> None:
    """Raises if a prediction reads a state that is predicted after it.

    Args:
        x: a batch of samples.
        model: the model, which has states.
        errors_apart: begins a block in which the nodes hold errors.
    """

    def predictions(block: Block, states: dict[str, Array], reference: Any, x: Batch) -> dict[str, Any]:
        copy = tree_unref(reference)
        for path, node in split_nodes(copy)[0].items():
            node.h.set(states[path])
        return _predictions(block, x, model=copy)

    states = {path: node.h.get() for path, node in split_nodes(model)[0].items()}
    over_states = influences(partial(predictions, lambda _: nullcontext()), states, tree_ref(model), x)
    over_errors = influences(partial(predictions, errors_apart), states, tree_ref(model), x)
    for path in over_states:
        lost = union(over_states[path]) - union(over_errors[path])
        for state in states:
            if f"[0][{state!r}]" in lost:
                raise refusals.read_too_early(path, state)


def _predictions(block: Block, x: Batch, *, model: Model) -> dict[str, Any]:
    @over_batch
    def of_sample(x: Sample, *, model: Model) -> dict[str, Any]:
        keep_statistics(model)
        with step(model, status_of(model), clear_params=(VodeParam.Cache, VodeParam.Cache)), block(model):
            model(x)
            return {path: node.get("u") for path, node in vodes(model).items()}

    found: dict[str, Any] = of_sample(x, model=model)
    return found

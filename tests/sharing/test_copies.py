"""Copies, and models read from files: what was shared is shared again, and with nothing that it should not be."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minipcax as px
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.dags import occurrences
from tests.oracles import close
from tests.sharing.support import KINDS, Sharing, trained, weights_of

COPIES: dict[str, Callable[[Sharing], Sharing]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "shared, with copies of all": lambda model: pxnn.shared(model, lambda param: False),
}


pytestmark = pytest.mark.usefixtures("standard_promotion")


def ids(model: Sharing, cls: type[px.BaseParam[Any]] = px.DynamicParam) -> set[int]:
    return {id(param) for param in px.tree_extract(model, filter_fn=lambda param: isinstance(param, cls))}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_shares_as_the_original_and_nothing_with_it(make: Callable[[Sharing], Sharing]) -> None:
    for kind in KINDS:
        model = Sharing(kind)
        found = make(model)
        assert pxnn.shared_params(found) == pxnn.shared_params(model)
        assert not ids(found) & ids(model)
        assert repr(found) == repr(model)
        close(weights_of(found, kind), weights_of(model, kind), 0)
        before = weights_of(model, kind)
        for param in px.tree_extract(found, filter_fn=lambda param: isinstance(param, pxnn.LayerParam)):
            param *= 2
        close(weights_of(found, kind), {name: 2 * value for name, value in before.items()}, 0)
        close(weights_of(model, kind), before, 0)


def test_a_copy_is_trained_as_the_original() -> None:
    model = Sharing("transposed")
    found = copy.deepcopy(model)
    close(trained(found, 3), trained(model, 3), 0)
    close(weights_of(found, "transposed"), weights_of(model, "transposed"), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_has_the_weights_and_its_own_nodes(kind: str) -> None:
    model = Sharing(kind)
    twin = pxnn.shared(model, pxnn.LayerParam)
    assert ids(twin, pxnn.LayerParam) == ids(model, pxnn.LayerParam)
    nodes = pxc.VodeParam, pxc.VodeParam.Cache
    assert not any(ids(twin, cls) & ids(model, cls) for cls in nodes)
    assert pxnn.shared_params(twin) == pxnn.shared_params(model)
    # In one model, the twin's weights are all repeats.
    both = pxnn.shared_params([model, twin])
    assert {path for paths in both.values() for path in paths if path.startswith("[1]")} == {
        f"[1]{path}" for path, param in occurrences(model) if isinstance(param, pxnn.LayerParam)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_model_from_a_file(kind: str, tmp_path: Path) -> None:
    model, fresh = Sharing(kind, seed=1), Sharing(kind, seed=2)
    before = ids(fresh)
    pxu.save_params(model, tmp_path / "model")
    assert len(pxu.saved_params(tmp_path / "model")) == len(weights_of(model, kind)), "each array is saved once"
    pxu.load_params(fresh, tmp_path / "model")
    assert ids(fresh) == before
    assert pxnn.shared_params(fresh) == pxnn.shared_params(model)
    close(weights_of(fresh, kind), weights_of(model, kind), 0)
    for layer, other in zip(fresh.uses(), model.uses(), strict=True):  # also where the first use is not asked
        close(layer.nn.weight.get(), other.nn.weight.get(), 0)


def test_a_file_of_a_tied_model_does_not_fill_an_untied_one(tmp_path: Path) -> None:
    tied, untied = Sharing("layers", seed=1), Sharing("parameters", seed=2)
    untied.layers[2].nn.weight = pxnn.LayerParam(untied.layers[2].nn.weight.get())
    before = weights_of(untied, "parameters")
    pxu.save_params(tied, tmp_path / "model")
    with pytest.raises(KeyError, match=r"expected \.layers\[2\]\.nn\.weight float32\[4, 4\] in .*, found"):
        pxu.load_params(untied, tmp_path / "model")
    close(weights_of(untied, "parameters"), before, 0)


def test_a_file_of_an_untied_model_fills_a_tied_one_by_the_first_path(tmp_path: Path) -> None:
    tied, untied = Sharing("layers", seed=1), Sharing("layers", seed=2)
    untied.layers[2] = copy.deepcopy(untied.layers[2])
    untied.layers[2].nn.weight *= 3
    pxu.save_params(untied, tmp_path / "model")
    pxu.load_params(tied, tmp_path / "model")
    assert tied.layers[2].nn.weight is tied.layers[1].nn.weight
    close(tied.layers[2].nn.weight.get(), untied.layers[1].nn.weight.get(), 0)

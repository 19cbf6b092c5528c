"""Saving and loading: numpy reads what was written, and no damaged or foreign file changes a model."""

import copy
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from minipcax.core.tree import is_param
from tests.oracles import Network, run_on_devices

Weight = pxnn.LayerParam


class Model(px.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        first = pxnn.Linear(2, 3, rkg=rkg)
        self.layers = [first, pxnn.Linear(3, 2, bias=False, rkg=rkg), pxnn.shared(first)]
        self.named = {"a b": Weight(jnp.arange(3) + seed), "é/x": Weight(jnp.array(seed == 0))}
        self.half = Weight(jax.random.normal(rkg(), (3,)).astype(jnp.bfloat16))
        self.key = Weight(jax.random.split(jax.random.key(seed), 2))
        self.numpy = Weight(np.full((2, 0, 3), seed, np.float64))
        self.transposed = Weight(np.asarray(np.arange(6).reshape(2, 3) + seed, order="F"))
        self.number = Weight(float(seed))
        self.cleared = Weight(None)
        self.vode = pxc.Vode()
        self.vode.h.set(jnp.full(2, float(seed)))
        self.rkg = rkg
        self.name = px.static("name")


KEYS = [
    ".layers[0].nn.weight",
    ".layers[0].nn.bias",
    ".layers[1].nn.weight",
    ".named['a b']",
    ".named['é/x']",
    ".half",
    ".key",
    ".numpy",
    ".transposed",
    ".number",
]


def leaves(model: Any) -> list[Any]:
    return [leaf for param in px.tree_extract(model) for leaf in jax.tree.leaves(param.get())]


def by_path(model: Model) -> dict[str, Any]:
    nodes = jax.tree_util.tree_leaves_with_path(px.tree_ref(model), is_leaf=is_param)
    return {jax.tree_util.keystr(path): node for path, node in nodes}


def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Dtype, shape and bytes; a number counts as the array that JAX makes of it."""
    leaf = leaf if isinstance(leaf, np.ndarray) else jnp.asarray(leaf)
    plain = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return str(leaf.dtype), leaf.shape, np.asarray(plain).tobytes()


def by_numpy(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_the_file_is_as_numpy_reads_it(tmp_path: Path) -> None:
    model = Model()
    pxu.save_params(model, tmp_path / "model.npz")
    found = by_numpy(tmp_path / "model.npz")
    assert sorted(found) == sorted(KEYS)
    for key in (".layers[0].nn.weight", ".layers[0].nn.bias", ".layers[1].nn.weight"):
        assert found[key].dtype == np.float32
    np.testing.assert_array_equal(found[".layers[0].nn.weight"], model.layers[0].nn.weight)
    np.testing.assert_array_equal(found[".transposed"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found[".key"], jax.random.key_data(model.key.get()))
    assert found[".half"].tobytes() == np.asarray(model.half.get()).tobytes()
    assert os.listdir(tmp_path) == ["model.npz"]


def test_loading_gives_back_every_bit(tmp_path: Path) -> None:
    model, other = Model(), Model(1)
    params = px.tree_extract(other)
    pxu.save_params(model, tmp_path / "model")
    pxu.load_params(other, tmp_path / "model")
    assert all(one is two for one, two in zip(px.tree_extract(other), params, strict=True))
    for param, expected in zip(px.tree_extract(other), px.tree_extract(model), strict=True):
        if isinstance(param, Weight) and param.get() is not None:
            assert bits(param.get()) == bits(expected.get())
    assert isinstance(other.numpy.get(), np.ndarray)
    assert other.numpy.dtype == np.float64
    assert isinstance(other.half.get(), jax.Array)
    assert jax.random.uniform(other.key[0]) == jax.random.uniform(model.key[0])
    assert other.vode.h.tolist() == [1, 1]
    assert other.layers[2].nn.weight is other.layers[0].nn.weight


@pytest.mark.parametrize("name", ["model", "model.npz", "model.v2"])
def test_the_suffix_is_appended_unless_it_is_there(name: str, tmp_path: Path) -> None:
    written = tmp_path / (name if name.endswith(".npz") else f"{name}.npz")
    for path in (str(tmp_path / name), tmp_path / name):
        pxu.save_params(Model(), path)
        assert os.listdir(tmp_path) == [written.name]
        pxu.load_params(Model(), path)
        assert sorted(pxu.saved_params(path)) == sorted(KEYS)
        written.unlink()


def test_listing_the_arrays_of_a_file(tmp_path: Path) -> None:
    pxu.save_params(Model(), tmp_path / "model")
    held = pxu.saved_params(tmp_path / "model")
    assert held[".layers[0].nn.weight"] == ((3, 2), "float32")
    assert held[".half"] == ((3,), "bfloat16")
    assert held[".key"] == ((2, 2), "key:threefry2x32")
    assert held[".numpy"] == ((2, 0, 3), "float64")
    assert list(held) == [key for key in held if key in KEYS]


FILTERS: dict[str, tuple[Any, list[str]]] = {
    "class": (pxc.VodeParam, [".vode.h"]),
    "union": (pxc.VodeParam | px.core.RKGState, [".rkg.key", ".vode.h"]),
    "mask": (pxu.M(Weight).has(ndim=2), [".layers[0].nn.weight", ".layers[1].nn.weight", ".transposed"]),
    "predicate": (
        lambda param: getattr(param, "size", None) == 6,
        [key for key in KEYS if ".weight" in key or "tr" in key],
    ),
    "all": (pxu.M(None), sorted([*KEYS, ".rkg.key", ".vode.h"])),
}


@pytest.mark.parametrize(("filter", "keys"), FILTERS.values(), ids=FILTERS)
def test_filters(filter: Any, keys: list[str], tmp_path: Path) -> None:
    pxu.save_params(Model(), tmp_path / "model", filter)
    assert sorted(by_numpy(tmp_path / "model.npz")) == sorted(keys)
    model = Model(1)
    pxu.load_params(model, tmp_path / "model", filter)
    loaded, original = by_path(model), by_path(Model())
    for key in {*original} & {*keys}:
        assert bits(loaded[key].get()) == bits(original[key].get())
    with pytest.raises(TypeError, match="expected a class, a union of classes"):
        pxu.save_params(model, tmp_path / "model", 3)  # type: ignore[arg-type]  # that is the point


def test_cleared_parameters_are_not_saved_and_take_any_shape(tmp_path: Path) -> None:
    model, fresh = Model(), Model(1)
    model.cleared.set(jnp.ones((4, 5), jnp.bfloat16))
    model.key.set(jax.random.key(5, impl="rbg"))
    for param in (fresh.layers[0].nn.weight, fresh.key, fresh.half):
        param.set(None)
    pxu.save_params(model, tmp_path / "model")
    pxu.load_params(fresh, tmp_path / "model")
    assert (fresh.cleared.shape, fresh.cleared.dtype) == ((4, 5), jnp.bfloat16)
    assert fresh.layers[0].nn.weight.shape == (3, 2)
    assert bits(fresh.key.get()) == bits(model.key.get())
    pxu.save_params(Model(), tmp_path / "without")
    assert ".cleared" not in pxu.saved_params(tmp_path / "without")
    fresh = Model(1)
    pxu.load_params(fresh, tmp_path / "without")
    assert fresh.cleared.get() is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_dtypes_that_numpy_lacks(dtype: str, tmp_path: Path) -> None:
    values = jnp.arange(6, dtype=jnp.int8).astype(dtype).reshape(2, 3)
    pxu.save_params([Weight(values)], tmp_path / "f")
    assert pxu.saved_params(tmp_path / "f") == {"[0]": ((2, 3), dtype)}
    for param in (Weight(jnp.zeros((2, 3), dtype)), Weight(None)):
        pxu.load_params([param], tmp_path / "f")
        assert bits(param.get()) == bits(values)


def test_a_file_of_a_machine_with_another_order_of_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **{"[0]": np.array([1.0, -2.5], ">f4")})  # type: ignore[arg-type]  # numpy's stub
    for param in (Weight(jnp.zeros(2)), Weight(np.zeros(2, np.float32)), Weight(None)):
        pxu.load_params([param], tmp_path / "f")
        assert param.tolist() == [1.0, -2.5]


def test_a_parameter_is_found_under_any_of_its_paths(tmp_path: Path) -> None:
    weight = np.full((3, 2), 7, np.float32)
    np.savez(tmp_path / "f.npz", **{"[1].nn.weight": weight, "[0].nn.bias": weight[:, 0], "more": weight})  # type: ignore[arg-type]  # numpy's stub
    layer = pxnn.Linear(2, 3)
    pxu.load_params([layer, pxnn.shared(layer)], tmp_path / "f")
    assert layer.nn.weight.tolist() == weight.tolist()


def test_trees_with_placeholders_are_accepted(tmp_path: Path) -> None:
    pxu.save_params(px.tree_ref(Model()), tmp_path / "model")
    pxu.load_params(px.tree_ref(Model(1)), tmp_path / "model")
    assert sorted(pxu.saved_params(tmp_path / "model")) == sorted(KEYS)


# Optimisers


def test_an_optimiser_goes_on_where_it_was(tmp_path: Path) -> None:
    with jax.numpy_dtype_promotion("standard"):
        grads = [Weight(jnp.ones(3)), Weight(jnp.array(2.0))]

        def build() -> tuple[list[Weight], pxu.Optim, pxu.OptimTree]:
            params = [Weight(jnp.arange(3.0)), Weight(jnp.array(5.0))]
            tree = pxu.OptimTree(optax.sgd(0.1, momentum=0.9), lambda node: isinstance(node, Weight), params)
            return params, pxu.Optim(optax.adam(0.1), params), tree

        def step(params: list[Weight], optim: pxu.Optim, tree: pxu.OptimTree) -> None:
            optim.step(params, grads)
            tree.step(params, grads)

        here, there = build(), build()
        step(*here)
        pxu.save_params(here, tmp_path / "all", px.Param)
        pxu.load_params(there, tmp_path / "all", px.Param)
        for trained in (here, there):
            step(*trained)
        for one, other in zip(leaves(here), leaves(there), strict=True):
            assert bits(one) == bits(other)
        assert pxu.saved_params(tmp_path / "all")["[1].state.optax[0].count"] == ((), "int32")

        there[1].clear()
        before = leaves(there)
        words = r"\[1\]\.state is cleared, but .* holds a tree there: initialise it first"
        with pytest.raises(ValueError, match=words):
            pxu.load_params(there, tmp_path / "all", px.Param)
        assert all(one is other for one, other in zip(leaves(there), before, strict=True))


class Resumed(Network):
    """Everything that continues from step to step: tied weights, running statistics, drawn keys."""

    def __init__(self) -> None:
        first = pxnn.Linear(2, 2)
        super().__init__([first, pxnn.shared(first)], lambda x: x)
        self.norm = pxnn.BatchNorm(2, "batch")
        self.dropout = pxnn.Dropout(0.5)

    def apply_layer(self, number: int, x: jax.Array) -> Any:
        return self.layers[1](self.dropout(x, key=px.RKG())) if number else self.norm(self.layers[0](x))


def test_a_run_is_resumed_bit_by_bit(tmp_path: Path) -> None:
    x, y = jnp.arange(8.0).reshape(4, 2), jnp.ones((4, 2))

    def build() -> tuple[Resumed, pxu.Optim]:
        model = Resumed()
        return model, pxu.Optim(optax.sgd(0.1, momentum=0.9), pxl.WEIGHTS(model))

    def train(model: Resumed, weights: pxu.Optim) -> None:
        pxl.PC(2)(x, y, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights)

    model, weights = build()
    train(model, weights)
    pxu.save_params({"model": model, "weights": weights, "rkg": px.RKG}, tmp_path / "run", px.Param)
    train(model, weights)
    there, its_weights = build()
    pxu.load_params({"model": there, "weights": its_weights, "rkg": px.RKG}, tmp_path / "run", px.Param)
    train(there, its_weights)
    for one, other in zip(leaves([model, weights]), leaves([there, its_weights]), strict=True):
        assert bits(one) == bits(other)


# Running statistics


def normalised(seed: float = 0.0) -> list[Any]:
    norm = pxnn.BatchNorm(2, "batch")
    norm.state.set(pxnn.BatchNorm(2, "batch").state.get()._replace(mean=jnp.full(2, seed), empty=jnp.array(False)))
    return [pxnn.Linear(2, 2), norm, {"again": pxnn.shared(norm)}]


def test_running_statistics_are_saved_and_loaded(tmp_path: Path) -> None:
    model, other = normalised(3.0), normalised()
    pxu.save_params(model, tmp_path / "f")
    assert pxu.saved_params(tmp_path / "f")["[1].state.mean"] == ((2,), "float32")
    assert not any("again" in key for key in pxu.saved_params(tmp_path / "f"))
    pxu.load_params(other, tmp_path / "f")
    assert other[2]["again"].state.get().mean.tolist() == [3, 3]
    assert not other[1].state.get().empty


def test_a_file_without_them_leaves_those_of_the_model(tmp_path: Path) -> None:
    model, other = normalised(3.0), normalised(5.0)
    weights = {f"[0].nn.{name}": getattr(model[0].nn, name).get() for name in ("weight", "bias")}
    weights |= {f"[1].nn.{name}": getattr(model[1].nn, name).get() for name in ("weight", "bias")}
    written(tmp_path / "f.npz", weights)
    pxu.load_params(other, tmp_path / "f")
    assert bits(other[0].nn.weight.get()) == bits(model[0].nn.weight.get())
    assert other[1].state.get().mean.tolist() == [5, 5]
    with pytest.raises(KeyError, match=r"expected \[1\]\.state\.empty bool\[\] in .*f\.npz, found \[0\]\.nn\.weight"):
        pxu.load_params(other, tmp_path / "f", pxnn.StateParam)


def test_a_file_with_some_of_them_only_is_refused(tmp_path: Path) -> None:
    pxu.save_params(normalised(), tmp_path / "f")
    more = [*normalised(), pxnn.BatchNorm(2, "batch")]
    held = by_numpy(tmp_path / "f.npz")
    written(tmp_path / "f.npz", held | {f"[3].nn.{name}": np.ones(2, np.float32) for name in ("weight", "bias")})
    with pytest.raises(KeyError, match=r"expected \[3\]\.state\.empty"):
        pxu.load_params(more, tmp_path / "f")
    del held["[1].state.mean"]
    written(tmp_path / "f.npz", held)
    with pytest.raises(KeyError, match=r"expected \[1\]\.state\.mean"):
        pxu.load_params(normalised(), tmp_path / "f")


# Refusals


def written(path: Path, arrays: dict[str, Any], pickle: bool = False) -> Path:
    """As numpy writes it: the published pcx does the same."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=pickle)
    return path


class Explosive:
    exploded = False

    def __setstate__(self, state: Any) -> None:
        Explosive.exploded = True

    def __getstate__(self) -> Any:
        return {"state": 1}


def layer_arrays() -> dict[str, Any]:
    return {".nn.weight": np.ones((3, 2), np.float32), ".nn.bias": np.ones(3, np.float32)}


def test_files_of_others_with_repeats_as_pickled_objects_load(tmp_path: Path) -> None:
    """As pcx writes shared parameters: the repeats are pickled objects, which are not read."""
    repeat = np.asarray(Explosive(), object)
    arrays = {f"[0]{key}": array for key, array in layer_arrays().items()}
    path = written(tmp_path / "f.npz", {**arrays, "[1].nn.weight": repeat, "[1].nn.bias": repeat}, pickle=True)
    layer = pxnn.Linear(2, 3)
    pxu.load_params([layer, pxnn.shared(layer)], path)
    assert layer.nn.weight.tolist() == np.ones((3, 2)).tolist()
    assert pxu.saved_params(path)["[1].nn.bias"] == ((), "object")
    assert not Explosive.exploded


def test_bfloat16_of_others_is_only_bytes(tmp_path: Path) -> None:
    values = jnp.array([1.5, -2.0], jnp.bfloat16)
    path = written(tmp_path / "f.npz", {"[0]": np.asarray(values)})
    param = Weight(jnp.zeros(2, jnp.bfloat16))
    pxu.load_params([param], path)
    assert bits(param.get()) == bits(values)
    for wrong in (jnp.zeros(2, jnp.float16), jnp.zeros(2, jnp.float8_e4m3fn), jnp.zeros(2)):
        with pytest.raises(ValueError, match=rf"expected \[0\] to be {wrong.dtype.name}\[2\], found void16\[2\]"):
            pxu.load_params([Weight(wrong)], path)
    with pytest.raises(ValueError, match=r"cannot read \[0\]"):
        pxu.load_params([Weight(None)], path)


def changed(**arrays: Any) -> dict[str, Any]:
    return {**layer_arrays(), **{f".nn.{name}": array for name, array in arrays.items()}}


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no bias": (
        {".nn.weight": layer_arrays()[".nn.weight"], "other": np.ones(1)},
        KeyError,
        r"expected \.nn\.bias float32\[3\] in .*f\.npz, found \.nn\.weight, other",
    ),
    "empty": ({}, KeyError, r"expected \.nn\.weight float32\[3, 2\] in .*f\.npz, found "),
    "shape": (
        changed(bias=np.ones(4, np.float32)),
        ValueError,
        r"expected \.nn\.bias to be float32\[3\], found float32\[4\] in .*f\.npz",
    ),
    "rank": (changed(bias=np.ones((3, 1), np.float32)), ValueError, r"float32\[3\], found float32\[3, 1\]"),
    "dtype": (changed(bias=np.ones(3)), ValueError, r"\.nn\.bias to be float32\[3\], found float64\[3\]"),
    "integers": (changed(bias=np.ones(3, np.int32)), ValueError, r"float32\[3\], found int32\[3\]"),
    "text": (changed(bias=np.asarray(["a"] * 3)), ValueError, r"float32\[3\], found str32\[3\]"),
    "pickle": (changed(bias=np.asarray([Explosive()] * 3, object)), ValueError, r"float32\[3\], found object\[3\]"),
    "fields": (changed(bias=np.ones(3, [("a", "f4")])), ValueError, r"float32\[3\], found void32\[3\]"),
}


@pytest.mark.parametrize(("arrays", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(
    arrays: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "f.npz", arrays, pickle=True)
    layer = pxnn.Linear(2, 3)
    before = leaves(layer)
    with pytest.raises(error, match=message):
        pxu.load_params(layer, path)
    assert all(one is other for one, other in zip(leaves(layer), before, strict=True))
    assert not Explosive.exploded


def test_a_pickle_is_not_loaded_into_a_cleared_parameter(tmp_path: Path) -> None:
    path = written(tmp_path / "f.npz", {"[0]": np.asarray([Explosive()], object)}, pickle=True)
    param = Weight(None)
    with pytest.raises(ValueError, match=r"cannot read \[0\] .*pickled, which is never loaded"):
        pxu.load_params([param], path)
    assert param.get() is None
    assert not Explosive.exploded


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive, archive.open("[0].npy", "w") as file:
        np.lib.format.write_array(file, np.ones(2, np.float32), (2, 0))
    with pytest.raises(ValueError, match=r"cannot read \[0\] .*expected version 1\.0 of the npy format"):
        pxu.load_params([Weight(jnp.ones(2))], tmp_path / "f")


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    param = Weight(jax.random.key(0, impl="rbg"))
    pxu.save_params([param], tmp_path / "f")
    for other in (jax.random.key(0), jnp.zeros(4, jnp.uint32)):
        with pytest.raises(ValueError, match=r"expected \[0\] to be .*, found key:rbg\[4\]"):
            pxu.load_params([Weight(other)], tmp_path / "f")


FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "text": b"weights",
    "an npy file": b"\x93NUMPY\x01\x00",
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(content)
    for read in (lambda path: pxu.load_params(Model(), path), pxu.saved_params):
        with pytest.raises(ValueError, match=r"cannot read anything in .*f\.npz, expected a file of save_params: "):
            read(tmp_path / "f")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        pxu.load_params(Model(), tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        pxu.save_params(Model(), tmp_path / "no folder" / "f")


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    pxu.save_params(Model(), tmp_path / "f")
    before = (tmp_path / "f.npz").read_bytes()
    model = Model(1)
    model.number.set("no array")
    with pytest.raises(TypeError):
        pxu.save_params(model, tmp_path / "f")
    assert os.listdir(tmp_path) == ["f.npz"]
    assert (tmp_path / "f.npz").read_bytes() == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "f.npz").symlink_to(tmp_path / "folder" / "real.npz")
    pxu.save_params(Model(), tmp_path / "f")
    assert (tmp_path / "f.npz").is_symlink()
    assert (tmp_path / "folder" / "real.npz").is_file()


def test_arrays_stay_on_their_devices(tmp_path: Path) -> None:
    program = """
import sys, jax, jax.numpy as jnp, numpy as np
import minipcax as px, minipcax.utils as pxu
param = px.Param(jax.device_put(jnp.arange(4.0), jax.devices()[1]))
pxu.save_params([param], sys.argv[1], px.Param)
pxu.load_params([param], sys.argv[1], px.Param)
mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
other = px.Param(jax.device_put(jnp.zeros(4), where))
pxu.load_params([other], sys.argv[1], px.Param)
assert param.get().devices() == {jax.devices()[1]} and other.sharding == where and other.tolist() == [0, 1, 2, 3]
"""
    run_on_devices(2, program, str(tmp_path / "f"))


# Killed, damaged and forged


KILLING = """
import os, random, signal, sys, time
from itertools import count
from pathlib import Path
import numpy as np
import minipcax as px, minipcax.utils as pxu

def model(generation):
    return [px.Param(np.full(size, generation, np.float32)) for size in (1, 1000, 200_000)]

folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
path, generation, moved = folder / "f.npz", 0, 0
pxu.save_params(model(0), path, px.Param)
for _ in range(kills):
    process = os.fork()
    if process == 0:
        for number in count(generation + 1):
            pxu.save_params(model(number), path, px.Param)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    found = model(-1)
    pxu.load_params(found, path, px.Param)
    values = {float(value) for param in found for value in np.unique(param.get())}
    assert len(values) == 1 and min(values) >= generation, values
    moved += min(values) > generation
    generation = int(min(values))
print(moved, len(list(folder.iterdir())) - 1)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_a_process_killed_while_saving_leaves_the_old_or_the_new_file(kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILLING, str(tmp_path), str(kills)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    moved, interrupted = map(int, result.stdout.split())
    assert moved > 0
    assert interrupted > 0  # a save that was killed leaves its unfinished file


def corruptions(seed: int, whole: bytes) -> bytes:
    rng = np.random.default_rng(seed)
    damaged = bytearray(whole)
    place = int(rng.integers(len(whole)))
    kind = seed % 5
    if kind == 0:
        damaged = damaged[:place]
    elif kind == 1:
        damaged[place : place + int(rng.integers(1, 64))] = rng.bytes(int(rng.integers(0, 64)))
    elif kind == 2:
        damaged[place : place + 256] = bytes(len(damaged[place : place + 256]))
    else:
        # Most of what matters to a reader is at the end: the directory of the archive.
        start = 0 if kind == 3 else whole.index(b"PK\x01\x02")
        for number in rng.integers(start, len(whole), size=int(rng.integers(1, 9))):
            damaged[number] ^= int(rng.integers(1, 256))
    return bytes(damaged)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_leave_the_model_bit_identical(count: int, tmp_path: Path) -> None:
    saved, model = Model(0), Model(1)
    pxu.save_params(saved, tmp_path / "f")
    whole = (tmp_path / "f.npz").read_bytes()
    expected = [bits(leaf) for leaf in leaves(saved)]
    original = {id(param): param.get() for param in px.tree_extract(model)}
    refused = 0
    for seed in range(count):
        (tmp_path / "f.npz").write_bytes(corruptions(seed, whole))
        before = leaves(model)
        try:
            pxu.load_params(model, tmp_path / "f")
        except (ValueError, KeyError) as error:
            refused += 1
            assert "f.npz" in str(error)
            assert all(one is other for one, other in zip(leaves(model), before, strict=True))
        else:  # the damage is outside the arrays, such as in a date
            weights = [param for param in px.tree_extract(model) if isinstance(param, Weight)]
            wanted = [param for param in px.tree_extract(saved) if isinstance(param, Weight)]
            for param, other in zip(weights, wanted, strict=True):
                assert param.get() is other.get() is None or bits(param.get()) == bits(other.get())
            for param in px.tree_extract(model):
                param.set(original[id(param)])
    assert refused > 0.7 * count
    assert [bits(leaf) for leaf in leaves(saved)] == expected


MEGABYTE = bytes(1_000_000)


def bomb(path: Path, header: bytes, size: int, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with (
        zipfile.ZipFile(path, "w", method, compresslevel=1) as archive,
        archive.open("[0].npy", "w", force_zip64=True) as entry,
    ):
        entry.write(header)
        for _ in range(size // len(MEGABYTE)):
            entry.write(MEGABYTE)
    return path


def npy_header(shape: tuple[int, ...], descr: str = "<f4", version: int = 1) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


SIZES = [20_000_000, pytest.param(1_200_000_000, marks=pytest.mark.slow)]
Function = Callable[[int], bytes]
BOMBS: dict[str, Function] = {
    "a large array": lambda size: npy_header((size // 4,)),
    "a small array, and more": lambda size: npy_header((4,)),
    "a shape that overflows": lambda size: npy_header((2**62, 4)),
    "negative sizes": lambda size: npy_header((-4, -size)),
    "a long header": lambda size: b"\x93NUMPY\x02\x00" + size.to_bytes(4, "little"),
    "a deep header": lambda size: b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("header", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("value", [np.ones(4, np.float32), None], ids=["filled", "cleared"])
def test_bombs_are_refused_in_bounded_memory(value: Any, header: Function, size: int, tmp_path: Path) -> None:
    path = bomb(tmp_path / "f.npz", header(size), size)
    assert path.stat().st_size < size / 100
    refused_in_bounded_memory(path, value)


METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_bombs_that_claim_to_be_small(method: int, size: int, tmp_path: Path) -> None:
    """The directory of the archive gives the size that the parameter expects."""
    header = npy_header((4,))
    path = bomb(tmp_path / "f.npz", header, size, method)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 24, len(header) + 16)
    path.write_bytes(content)
    for value in (np.ones(4, np.float32), None):
        refused_in_bounded_memory(path, value)


def refused_in_bounded_memory(path: Path, value: Any) -> None:
    param = Weight(value)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"\[0\]"):
            pxu.load_params([param], path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert param.get() is value


def test_an_entry_may_be_compressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "f.npz", **layer_arrays())
    layer = pxnn.Linear(2, 3)
    pxu.load_params(layer, tmp_path / "f")
    assert layer.nn.bias is not None
    assert layer.nn.bias.tolist() == [1, 1, 1]
    layer.nn.bias.set(None)
    with pytest.raises(ValueError, match=r"cannot read \.nn\.bias .* compressed, and so may be of any size"):
        pxu.load_params(layer, tmp_path / "f")


def test_an_encrypted_entry(tmp_path: Path) -> None:
    pxu.save_params(Model(), tmp_path / "f")
    content = bytearray((tmp_path / "f.npz").read_bytes())
    for match in re.finditer(b"PK\x01\x02", bytes(content)):
        content[match.start() + 8] |= 1
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read \.layers\[0\]\.nn\.weight in .*encrypted"):
        pxu.load_params(Model(), tmp_path / "f")


def test_copies_of_a_model_load_the_same(tmp_path: Path) -> None:
    model = Model()
    pxu.save_params(model, tmp_path / "f")
    twin = copy.deepcopy(model)
    pxu.load_params(twin, tmp_path / "f")
    assert [bits(leaf) for leaf in leaves(twin)][:3] == [bits(leaf) for leaf in leaves(model)][:3]


def test_a_filter_that_selects_nothing(tmp_path: Path) -> None:
    optim = pxu.Optim(optax.adam(0.1), [px.Param(jnp.ones(2))])
    words = r"found nothing to {} in an Optim: expected parameters that .*LayerParam.* selects; .* Param for an opt"
    with pytest.raises(ValueError, match="save_params " + words.format("save")):
        pxu.save_params(optim, tmp_path / "optim")
    assert list(tmp_path.iterdir()) == []
    pxu.save_params(optim, tmp_path / "optim", px.Param)
    with pytest.raises(ValueError, match="load_params " + words.format("load")):
        pxu.load_params(optim, tmp_path / "optim")
    with pytest.raises(TypeError, match="M selects parameters, found the class Linear, which is a module"):
        pxu.save_params(pxnn.Linear(1, 1), tmp_path / "f", pxnn.Linear)


@pytest.mark.parametrize("path", ["", "folder/"])
def test_a_path_that_is_not_a_file(path: str) -> None:
    for use in (pxu.save_params, pxu.load_params):
        with pytest.raises(ValueError, match=f"expected the path of a file, found '{path}'"):
            use(Model(), path)


def test_model_and_path_in_the_wrong_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found nothing to save in a str"):
        pxu.save_params(str(tmp_path / "f"), pxnn.Linear(1, 1))  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="found nothing to save in the class Model"):
        pxu.save_params(Model, tmp_path / "f")


def test_inside_a_transform(tmp_path: Path) -> None:
    pxu.save_params([Weight(jnp.ones(1))], tmp_path / "f")
    before = (tmp_path / "f.npz").read_bytes()
    for use in (pxu.save_params, pxu.load_params):
        with pytest.raises(ValueError, match=r"saved and loaded outside of transforms, but \[0\] is traced"):
            pxf.jit(lambda *, model, use=use: use(model, tmp_path / "f"))(model=[Weight(jnp.zeros(1))])
    assert (tmp_path / "f.npz").read_bytes() == before


def test_an_optimiser_without_state(tmp_path: Path) -> None:
    optim = pxu.Optim(optax.sgd(0.1), [Weight(jnp.ones(1))])
    pxu.save_params(optim, tmp_path / "f", px.Param)
    pxu.load_params(optim, tmp_path / "f", px.Param)


def test_a_file_that_has_nothing_for_cleared_parameters(tmp_path: Path) -> None:
    pxu.save_params([Weight(jnp.ones(1))], tmp_path / "f")
    with pytest.raises(KeyError, match=r"expected \['a'\], \['b'\] in .*f\.npz, found \[0\]"):
        pxu.load_params({"a": Weight(None), "b": Weight(None)}, tmp_path / "f")

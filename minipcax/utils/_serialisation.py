"""Saving and loading parameters: an `.npz` file with one array for each parameter, under its key path.

A load first reads every array, and checks it; when all have been found right, it writes. A save writes a new file
beside the old one, and puts it in the old one's place when it is whole.
"""

import os
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_leaves_with_path

from minipcax.core import DynamicParam
from minipcax.core.filter import Filter
from minipcax.core.refusals import kind_of
from minipcax.core.tree import paths_of_params
from minipcax.nn import LayerParam, StateParam
from minipcax.utils._archive import Archive, Form, Leaf, describe, dtype_of, form_of, is_extension, is_key
from minipcax.utils._mask import M
from minipcax.utils._refusals import names as names_of

Tree = object  # a model, an optimiser, or any pytree of these


def save_params(model: Tree, path: str | os.PathLike[str], filter: Filter = LayerParam | StateParam) -> None:
    """Writes the selected parameters to a file, atomically: a crash leaves the old file.

    A whole run, to be resumed bit by bit: `save_params({"model": model, "weights": weights, "rkg": RKG}, path, Param)`,
    where `weights` is the optimiser; and `load_params` with the same, once the optimiser is initialised.

    Args:
        model: the model, or an optimiser, or any tree of these.
        path: where to; `.npz` is appended unless it is there.
        filter: which parameters; by default the weights and running statistics of layers. A shared one is saved once,
            cleared ones are not.

    Raises:
        ValueError: the filter selects nothing.

    Example:
        >>> import tempfile
        >>> layer, path = Linear(2, 3), tempfile.mkdtemp() + "/layer"
        >>> save_params(layer, path)
        >>> layer.nn.weight *= 0
        >>> load_params(layer, path)
        >>> bool((layer.nn.weight == 0).any())
        False
    """
    selected = _selected(model, filter, "save_params found nothing to save")
    target = _with_suffix(path).resolve()
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for param, paths in selected:
                    for inner, leaf in tree_leaves_with_path(param.get()):
                        entry = zipfile.ZipInfo(f"{paths[0]}{keystr(inner)}.npy")
                        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf, dtype_of(leaf))
                        if is_key(leaf) or is_extension(array.dtype):
                            entry.comment = form_of(leaf)[1].encode()
                        if is_extension(array.dtype):
                            array = array.view(f"V{array.dtype.itemsize}")
                        with archive.open(entry, "w", force_zip64=True) as stream:
                            np.lib.format.write_array(stream, array, (1, 0), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_params(model: Tree, path: str | os.PathLike[str], filter: Filter = LayerParam | StateParam) -> None:
    """Reads the selected parameters from a file, or raises and leaves the model as it is.

    Args:
        model: what was given to `save_params`, or another of the same structure. Cleared parameters take any array.
        path: where from; `.npz` is appended unless it is there. What the model lacks is ignored.
        filter: which parameters; but where a file of weights has no running statistics at all, as those that pcx
            writes, the model keeps its own.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: the file lacks a parameter.
        ValueError: an array has another shape or dtype, or the file is damaged.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/layer"
        >>> save_params(Linear(2, 3), path)
        >>> load_params(Linear(2, 4), path)
        Traceback (most recent call last):
        ValueError: expected .nn.weight to be float32[4, 2], found float32[3, 2] in ...
    """
    values = []
    with _with_suffix(path).open("rb") as file:
        archive = Archive(file)
        selected = _selected(model, filter, "load_params found nothing to load")
        for param, paths in _without_statistics(selected, archive):

            def read(inner: Any, leaf: Leaf, paths: list[str] = paths) -> Leaf:
                names = [f"{path}{keystr(inner)}" for path in paths]
                name = next((name for name in names if name in archive.entries), None)
                if name is not None:
                    return archive.read(name, leaf)
                if leaf is not None:
                    found = names_of(archive.entries) or "nothing"
                    raise KeyError(f"expected {names[0]} {describe(form_of(leaf))} in {file.name}, found {found}")
                if any(key.startswith((f"{name}.", f"{name}[")) for key in archive.entries for name in names):
                    raise ValueError(f"{names[0]} is cleared, but {file.name} holds a tree there: initialise it first")
                return None

            is_cleared = param.get() is None  # inside a tree, None is no leaf
            values.append((param, read((), None) if is_cleared else jax.tree.map_with_path(read, param.get())))
    if archive.entries and all(param.get() is None and value is None for param, value in values):
        held = names_of(archive.entries)
        raise KeyError(f"expected {names_of(paths[0] for _, paths in selected)} in {archive.path}, found {held}")
    for param, value in values:
        param.set(value)


def saved_params(path: str | os.PathLike[str]) -> dict[str, Form]:
    """What a file holds: by key path, the shape and the name of the dtype.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/layer"
        >>> save_params(Linear(2, 3), path)
        >>> saved_params(path)
        {'.nn.weight': ((3, 2), 'float32'), '.nn.bias': ((3,), 'float32')}
    """
    with _with_suffix(path).open("rb") as file:
        archive = Archive(file)
        return {key: archive.look(key)[0] for key in archive.entries}


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path)
    if not os.path.basename(name):
        raise ValueError(f"expected the path of a file, found {name!r}")
    return Path(name if name.endswith(".npz") else f"{name}.npz")


Selected = list[tuple[DynamicParam[Any], list[str]]]  # parameters, each once, with all paths that lead to it


def _selected(model: Tree, filter: Filter, otherwise: str) -> Selected:
    """The selected parameters, of which there must be one."""
    select = M(filter).apply
    selected = [(param, paths) for param, paths in paths_of_params(model) if select(param)]
    if not selected:
        raise ValueError(
            f"{otherwise} in {kind_of(model)}: expected parameters that {filter!r} selects; give another filter, such "
            "as Param for an optimiser"
        )
    for param, (path, *_) in selected:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(param.get())):
            raise ValueError(f"parameters are saved and loaded outside of transforms, but {path} is traced")
    return selected


def _without_statistics(selected: Selected, archive: Archive) -> Selected:
    """All but the running statistics, if the file has weights and no statistics: it was written without them."""

    def is_there(paths: list[str]) -> bool:
        return any(key == path or key.startswith((f"{path}.", f"{path}[")) for key in archive.entries for path in paths)

    weights = [(param, paths) for param, paths in selected if not isinstance(param, StateParam)]
    statistics = [paths for param, paths in selected if isinstance(param, StateParam)]
    return weights if weights and not any(map(is_there, statistics)) else selected

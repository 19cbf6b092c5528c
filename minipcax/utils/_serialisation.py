"""Saving and loading parameters: an `.npz` file with one array for each parameter, under its key path.

Loading first reads and checks every array, and changes the model only when all are right. Saving writes a new file
beside the old one, and replaces that only when the new one is complete. In several processes, the values are gathered,
process 0 writes them, and all read.
"""

import os
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax
from jax.core import Tracer
from jax.tree_util import keystr, tree_leaves_with_path

from minipcax.core import DynamicParam
from minipcax.core.filter import Filter
from minipcax.core.refusals import kind_of
from minipcax.core.tree import paths_of_params
from minipcax.nn import LayerParam, StateParam
from minipcax.utils._archive import Archive, Array, Form, Leaf, describe, form_of, to_numpy, write
from minipcax.utils._mask import M
from minipcax.utils._processes import check_same, together
from minipcax.utils._refusals import names

Tree = object  # a model, an optimiser, or any pytree of these


def save_params(model: Tree, path: str | os.PathLike[str], filter: Filter = LayerParam | StateParam) -> None:
    """Writes the selected parameters to an `.npz` file, atomically: a crash leaves the old file.

    Each array is stored under its key path, such as `.layers[0].nn.weight`. To save a run that can be resumed exactly,
    call `save_params({"model": model, "weights": weights, "rkg": RKG}, path, Param)`, where `weights` is the optimiser,
    and `load_params` with the same arguments once the optimiser is initialised.

    With several processes (`jax.distributed`), each must call it: arrays that are spread over processes are gathered in
    each, and process 0 writes them. If a model is too large for that, use orbax: save the arrays of
    `tree_extract(model, extract_fn=get)`, and put what it restores back with `tree_inject(model, values=...)`.

    Args:
        model: a model, an optimiser, or any tree of these.
        path: the file; `.npz` is appended if missing.
        filter: which parameters to save: a class, a union of classes, a predicate or an `M`; by default the weights and
            running statistics of layers. A shared parameter is saved once, a cleared one is not saved.

    Raises:
        ValueError: the filter selects nothing, a parameter is traced, or the path or a value differs between processes.
        RuntimeError: saving failed in another process.

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
    leaves = {
        f"{path}{keystr(inner)}": leaf
        for param, (path, *_) in selected
        for inner, leaf in tree_leaves_with_path(param.get())
    }
    target = _with_suffix(path)
    check_same("save_params", {"path": str(target), "parameters": " ".join(leaves)})
    arrays = {key: to_numpy(leaf) for key, leaf in leaves.items()}
    check_same("save_params", arrays)
    with together("save_params"):
        if jax.process_index() == 0:
            _write(target.resolve(), {key: (form_of(leaf)[1], arrays[key]) for key, leaf in leaves.items()})


def _write(target: Path, arrays: dict[str, tuple[str, Array]]) -> None:
    """Writes arrays, each with the name of its dtype, to a new file, which then takes the place of the old one."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for key, (name, array) in arrays.items():
                    write(archive, key, name, array)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_params(model: Tree, path: str | os.PathLike[str], filter: Filter = LayerParam | StateParam) -> None:
    """Reads the selected parameters from a file of `save_params`; if it raises, the model is unchanged.

    Nothing is ever unpickled. Arrays that were placed on devices keep their sharding. With several processes, each must
    call it, and each reads the file.

    Args:
        model: what was passed to `save_params`, or another tree of the same structure. A cleared parameter takes an
            array of any shape.
        path: the file; `.npz` is appended if missing. Arrays without a parameter in the model are ignored.
        filter: which parameters to load, as for `save_params`. If the file has no running statistics at all, as those
            written by pcx, the model keeps its own.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: the file lacks a parameter.
        ValueError: an array has another shape or dtype than its parameter, the filter selects nothing, a parameter is
            traced, the file is damaged, or it differs between processes.
        RuntimeError: loading failed in another process.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/layer"
        >>> save_params(Linear(2, 3), path)
        >>> load_params(Linear(2, 4), path)
        Traceback (most recent call last):
        ValueError: expected .nn.weight to be float32[4, 2], found float32[3, 2] in ...
    """
    with together("load_params"):
        with _with_suffix(path).open("rb") as file:
            archive = Archive(file)
            selected = _without_statistics(_selected(model, filter, "load_params found nothing to load"), archive)
            values = [(param, _read(archive, param.get(), paths)) for param, paths in selected]
        if archive.entries and all(param.get() is None and value is None for param, value in values):
            held = names(archive.entries)
            raise KeyError(f"expected {names(paths[0] for _, paths in selected)} in {archive.path}, found {held}")
    check_same("load_params", {"file": archive.digest()})
    for param, value in values:
        param.set(value)


def saved_params(path: str | os.PathLike[str]) -> dict[str, Form]:
    """Lists the arrays in a file of `save_params`, without reading them.

    Args:
        path: the file; `.npz` is appended if missing.

    Returns:
        A dict from key path to the pair (shape, name of the dtype).

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


Selected = list[tuple[DynamicParam[Any], list[str]]]  # parameters, each once, with all its paths


def _selected(model: Tree, filter: Filter, otherwise: str) -> Selected:
    """The selected parameters; raises if there are none, or if one is traced."""
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
    """All but the running statistics, if the file has none of them: it was written without."""
    weights = [(param, paths) for param, paths in selected if not isinstance(param, StateParam)]
    statistics = [path for param, paths in selected if isinstance(param, StateParam) for path in paths]
    return weights if weights and not _is_there(archive, statistics) else selected


def _is_there(archive: Archive, paths: list[str]) -> bool:
    """Whether the file has an array, or a tree of them, at one of the paths."""
    return any(key == path or key.startswith((f"{path}.", f"{path}[")) for key in archive.entries for path in paths)


def _read(archive: Archive, value: Any, paths: list[str]) -> Any:  # an array, a tree of them, or None when cleared
    """What the file has for a parameter with this value, under one of its paths."""

    def read(inner: Any, leaf: Leaf) -> Leaf:
        keys = [f"{path}{keystr(inner)}" for path in paths]
        key = next((key for key in keys if key in archive.entries), None)
        if key is not None:
            return archive.read(key, leaf)
        if leaf is not None:
            found = names(archive.entries) or "nothing"
            raise KeyError(f"expected {keys[0]} {describe(form_of(leaf))} in {archive.path}, found {found}")
        if _is_there(archive, keys):
            raise ValueError(f"{keys[0]} is cleared, but {archive.path} holds a tree there: initialise it first")
        return None

    return read((), None) if value is None else jax.tree.map_with_path(read, value)  # JAX does not see None as a leaf

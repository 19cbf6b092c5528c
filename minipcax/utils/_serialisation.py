"""Saving and loading parameters: an `.npz` file with one array for each parameter, under its key path.

A file may be damaged, or not be what it is taken for. So a load first reads every array, and that only where the header
says what the model expects; when all have been found right, it writes. Nothing is ever unpickled. A save writes a new
file beside the old one, and puts it in the old one's place when it is whole.

What numpy has no dtype for is saved as raw bytes (`bfloat16`) or as numbers (typed random keys), with the name of the
dtype in the comment of the zip entry.
"""

import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from minipcax.core import DynamicParam
from minipcax.core._filter import Filter, as_predicate
from minipcax.core._tree import paths_of_params
from minipcax.nn import LayerParam

Tree = object  # a model, an optimiser, or any pytree of these
Leaf = Any  # what parameters hold: arrays of JAX or numpy, or numbers
# The shape of an array in a file, and the name of its dtype.
Form = tuple[tuple[int, ...], str]
KEY = "key:"


def save_params(model: Tree, path: str | os.PathLike[str], filter: Filter = LayerParam) -> None:
    """Writes the selected parameters to a file, atomically: a crash leaves the old file.

    Args:
        model: the model, or an optimiser, or any tree of these.
        path: where to; `.npz` is appended unless it is there.
        filter: which parameters. A shared one is saved once, cleared ones are not. `save_params(optim, path, Param)`
            saves an optimiser's state, one array for each of its leaves; `LayerParam | LayerState` saves the running
            statistics of `BatchNorm` as well.

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
    selected = _selected(model, filter)
    if not selected:
        raise ValueError(
            f"save_params found nothing to save: expected parameters that {filter!r} selects; give another filter, "
            "such as Param for an optimiser"
        )
    target = _with_suffix(path).resolve()
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for param, paths in selected:
                    for inner, leaf in tree_leaves_with_path(param.get()):
                        entry = zipfile.ZipInfo(f"{paths[0]}{keystr(inner)}.npy")
                        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, _dtype(leaf))
                        if _is_key(leaf) or _is_extension(array.dtype):
                            entry.comment = _form(leaf)[1].encode()
                        if _is_extension(array.dtype):
                            array = array.view(f"V{array.dtype.itemsize}")
                        with archive.open(entry, "w", force_zip64=True) as stream:
                            np.lib.format.write_array(stream, array, (1, 0), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_params(model: Tree, path: str | os.PathLike[str], filter: Filter = LayerParam) -> None:
    """Reads the selected parameters from a file, or raises and leaves the model as it is.

    Args:
        model: what was given to `save_params`, or another of the same structure. Cleared parameters take any array.
        path: where from; `.npz` is appended unless it is there. What the model lacks is ignored.
        filter: which parameters.

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
        archive = _Archive(file)
        for param, paths in _selected(model, filter):

            def read(inner: Any, leaf: Leaf, paths: list[str] = paths) -> Leaf:
                names = [f"{path}{keystr(inner)}" for path in paths]
                name = next((name for name in names if name in archive.entries), None)
                if name is not None:
                    return archive.read(name, leaf)
                if leaf is not None:
                    held = ", ".join(archive.entries)
                    raise KeyError(f"expected {names[0]} {_describe(_form(leaf))} in {file.name}, found {held}")
                if any(key.startswith((f"{name}.", f"{name}[")) for key in archive.entries for name in names):
                    raise ValueError(f"{names[0]} is cleared, but {file.name} holds a tree there: initialise it first")
                return None

            is_cleared = param.get() is None  # inside a tree, None is no leaf
            values.append((param, read((), None) if is_cleared else jax.tree.map_with_path(read, param.get())))
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
        archive = _Archive(file)
        return {key: archive.look(key)[0] for key in archive.entries}


class _Archive:
    """An open file of arrays. Whatever goes wrong in reading it becomes a `ValueError` that names the place."""

    def __init__(self, file: BinaryIO) -> None:
        self.path, self.size = file.name, os.fstat(file.fileno()).st_size
        with self._reading("anything"):
            self._zip = zipfile.ZipFile(file)
            self.entries = {entry.filename.removesuffix(".npy"): entry for entry in self._zip.infolist()}

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a damaged file can fail anywhere in the reader
            raise ValueError(f"can not read {what} in {self.path}, expected a file of save_params: {error}") from error

    def look(self, key: str) -> tuple[Form, int]:
        """The form of an array, and how many bytes its header and elements are, from the header alone."""
        entry = self.entries[key]
        with self._reading(key):
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without bounds
                raise ValueError(f"it is compressed by method {entry.compress_type}, which numpy does not use")
            with self._zip.open(entry) as stream:
                if np.lib.format.read_magic(stream) != (1, 0):  # headers of later versions may be of any size
                    raise ValueError("expected version 1.0 of the npy format")
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                size = stream.tell() + math.prod(shape) * dtype.itemsize
            return (shape, entry.comment.decode() or dtype.name), size

    def read(self, key: str, expected: Leaf) -> Leaf:
        """The array under a key, which must look like the expected one; instead of `None`, any will do."""
        entry = self.entries[key]
        (shape, name), size = self.look(key)
        if expected is not None:
            form, dtype = _form(expected), _dtype(expected)
            if _is_extension(dtype) and name == f"void{8 * dtype.itemsize}":
                name = form[1]  # other writers leave the bytes of such dtypes without their name
            if (shape, name) != form:
                found = _describe((shape, name))
                raise ValueError(f"expected {key} to be {_describe(form)}, found {found} in {self.path}")
        with self._reading(key):
            is_compressed = entry.compress_type != zipfile.ZIP_STORED
            if name == "object":
                raise ValueError("it is pickled, which is never loaded")
            if entry.file_size != size or not (is_compressed or size <= self.size):
                raise ValueError(f"expected {size} bytes, found {entry.file_size}")
            if expected is None and is_compressed:
                raise ValueError("it is compressed, and so may be of any size: set the parameter to its shape first")
            with self._zip.open(entry) as stream:
                content = stream.read(size)  # no more, whatever there is
            array = np.load(io.BytesIO(content), allow_pickle=False)
            if name.startswith(KEY):
                array = jax.random.wrap_key_data(array, impl=name.removeprefix(KEY))
            elif array.dtype.kind == "V" and array.dtype.name != name:
                array = array.view(jnp.dtype(name))
            if isinstance(expected, np.ndarray):
                return array
            if isinstance(array, np.ndarray) and not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            where = expected.sharding if getattr(expected, "committed", False) else None
            return jnp.asarray(array) if where is None else jax.device_put(array, where)


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path)
    return Path(name if name.endswith(".npz") else f"{name}.npz")


def _selected(model: Tree, filter: Filter) -> list[tuple[DynamicParam[Any], list[str]]]:
    """The selected parameters, each once, with all paths that lead to it."""
    select = as_predicate(filter)
    return [(param, paths) for param, paths in paths_of_params(model) if select(param)]


def _is_key(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_extension(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype, such as `bfloat16`, is one that numpy itself does not have."""
    return dtype.isbuiltin == 2


def _dtype(leaf: Leaf) -> Any:  # of numpy, or of its extensions
    if _is_key(leaf):
        return jnp.dtype(jnp.uint32)
    return leaf.dtype if isinstance(leaf, np.ndarray) else jnp.result_type(leaf)


def _form(leaf: Leaf) -> Form:
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf).shape, f"{KEY}{jax.random.key_impl(leaf)}"
    return np.shape(leaf), _dtype(leaf).name


def _describe(form: Form) -> str:
    return f"{form[1]}{list(form[0])}"

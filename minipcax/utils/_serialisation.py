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
from typing import Any, BinaryIO
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves_with_path

from minipcax.core import DynamicParam
from minipcax.core._filter import Filter, as_predicate
from minipcax.core._tree import ParamRef, is_param, path_name
from minipcax.nn import LayerParam

# A model, an optimiser, or any tree of these.
Tree = Any
# What parameters hold: arrays of JAX or numpy, or numbers.
Leaf = Any
# The shape of an array in a file, and the name of its dtype.
Form = tuple[tuple[int, ...], str]
StrPath = str | os.PathLike[str]
KEY = "key:"


def save_params(model: Tree, path: StrPath, filter: Filter = LayerParam) -> None:
    """Writes the selected parameters to a file, atomically: a crash leaves the old file.

    Args:
        model: the model, or an optimiser, or any tree of these.
        path: where to; `.npz` is appended unless it is there.
        filter: which parameters. A shared one is saved once, cleared ones are not. `save_params(optim, path, Param)`
            saves an optimiser's state, one array for each of its leaves.

    Example:
        >>> import tempfile
        >>> layer, path = Linear(2, 3), tempfile.mkdtemp() + "/layer"
        >>> save_params(layer, path)
        >>> saved_params(path)
        {'.nn.weight': ((3, 2), 'float32'), '.nn.bias': ((3,), 'float32')}
        >>> load_params(layer, path)
    """
    target = os.path.realpath(_with_suffix(path))
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for param, paths in _selected(model, filter):
                    for inner, leaf in tree_leaves_with_path(param.get()):
                        entry = zipfile.ZipInfo(f"{paths[0]}{keystr(inner)}.npy")
                        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, _dtype(leaf))
                        if array.dtype.kind == "V" or _is_key(leaf):
                            entry.comment = _form(leaf)[1].encode()
                        with archive.open(entry, "w", force_zip64=True) as stream:
                            raw = array.view(f"V{array.dtype.itemsize}") if array.dtype.kind == "V" else array
                            np.lib.format.write_array(stream, raw, (1, 0), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    if os.name == "posix":  # the new name is on the disk only when its folder is
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load_params(model: Tree, path: StrPath, filter: Filter = LayerParam) -> None:
    """Reads the selected parameters from a file, or raises and leaves the model as it is.

    Args:
        model: what was given to `save_params`, or another of the same structure. Cleared parameters take any array.
        path: where from; `.npz` is appended unless it is there. What the model lacks is ignored.
        filter: which parameters.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: the file lacks a parameter.
        ValueError: an array has another shape or dtype, or the file is damaged.
    """
    target = _with_suffix(path)
    values = []
    with open(target, "rb") as file:
        archive = _Archive(target, file)
        for param, paths in _selected(model, filter):
            if param.get() is None:
                for name in paths:
                    if name in archive.entries:
                        values.append((param, archive.read(name, None)))
                        break
                    if any(key.startswith((f"{name}.", f"{name}[")) for key in archive.entries):
                        raise ValueError(f"{name} is cleared, but {target} holds a tree there: initialise it first")
                continue
            leaves, structure = tree_flatten_with_path(param.get())
            arrays = []
            for inner, leaf in leaves:
                names = [f"{name}{keystr(inner)}" for name in paths]
                name = next((name for name in names if name in archive.entries), None)
                if name is None:
                    raise KeyError(
                        f"expected {names[0]} {_describe(_form(leaf))} in {target}, found {', '.join(archive.entries)}"
                    )
                arrays.append(archive.read(name, leaf))
            values.append((param, structure.unflatten(arrays)))
    for param, value in values:
        param.set(value)


def saved_params(path: StrPath) -> dict[str, Form]:
    """What a file holds: by key path, the shape and the name of the dtype.

    Raises:
        ValueError: the file is damaged.
    """
    target = _with_suffix(path)
    with open(target, "rb") as file:
        archive = _Archive(target, file)
        return {key: archive.look(key)[0] for key in archive.entries}


class _Archive:
    """An open file of arrays. Whatever goes wrong in reading it becomes a `ValueError` that names the place."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.size = path, os.fstat(file.fileno()).st_size
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # a damaged file can fail anywhere in the reader
            raise ValueError(f"expected {path} to be a file of save_params: {error}") from error
        self.entries = {entry.filename.removesuffix(".npy"): entry for entry in self._zip.infolist()}

    def look(self, key: str) -> tuple[Form, int]:
        """The form of an array, and how many bytes its header and elements are, from the header alone."""
        entry = self.entries[key]
        try:
            with self._zip.open(entry) as stream:
                if np.lib.format.read_magic(stream) != (1, 0):  # headers of later versions may be of any size
                    raise ValueError("expected version 1.0 of the npy format")
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                size = stream.tell() + math.prod(shape) * dtype.itemsize
            return (shape, entry.comment.decode() or dtype.name), size
        except Exception as error:
            raise ValueError(f"can not read {key} in {self.path}: {error}") from error

    def read(self, key: str, expected: Leaf) -> Leaf:
        """The array under a key, which must look like the expected one; instead of `None`, any will do."""
        entry = self.entries[key]
        (shape, name), size = self.look(key)
        if expected is not None:
            form = _form(expected)
            if name == f"void{8 * _dtype(expected).itemsize}" and _dtype(expected).kind == "V":
                name = form[1]  # other writers leave the bytes of such dtypes without their name
            if (shape, name) != form:
                raise ValueError(
                    f"expected {key} to be {_describe(form)}, found {_describe((shape, name))} in {self.path}"
                )
        try:
            if name == "object":
                raise ValueError("it is pickled, which is never loaded")
            if entry.file_size != size or (entry.compress_type == zipfile.ZIP_STORED and size > self.size):
                raise ValueError(f"expected {size} bytes, found {entry.file_size}")
            if expected is None and entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed, and so may be of any size: set the parameter to its shape first")
            array = np.load(io.BytesIO(self._zip.read(entry)), allow_pickle=False)
            if name.startswith(KEY):
                return _place(jax.random.wrap_key_data(array, impl=name.removeprefix(KEY)), expected)
            return _place(array.view(jnp.dtype(name)) if array.dtype.kind == "V" else array, expected)
        except Exception as error:
            raise ValueError(f"can not read {key} in {self.path}: {error}") from error


def _with_suffix(path: StrPath) -> str:
    name = os.fspath(path)
    return name if name.endswith(".npz") else f"{name}.npz"


def _selected(model: Tree, filter: Filter) -> list[tuple[DynamicParam[Any], list[str]]]:
    """The selected parameters, each once, with all paths that lead to it."""
    select = as_predicate(filter)
    found: dict[int, tuple[DynamicParam[Any], list[str]]] = {}
    for path, node in tree_leaves_with_path(model, is_leaf=is_param):
        if isinstance(node, DynamicParam) and not isinstance(node, ParamRef) and select(node):
            found.setdefault(id(node), (node, []))[1].append(path_name(path))
    return list(found.values())


def _is_key(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _dtype(leaf: Leaf) -> Any:  # of numpy, or of its extensions
    if _is_key(leaf):
        return jnp.dtype(jnp.uint32)
    return leaf.dtype if isinstance(leaf, np.ndarray) else jnp.result_type(leaf)


def _form(leaf: Leaf) -> Form:
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf).shape, f"{KEY}{jax.random.key_impl(leaf)}"
    return np.shape(leaf), _dtype(leaf).name


def _describe(form: Form) -> str:
    shape, dtype = form
    return f"{dtype}{list(shape)}"


def _place(array: Leaf, expected: Leaf) -> Leaf:
    """The array where the expected one is: in numpy, on its devices, or, if it is on none in particular, in JAX."""
    if isinstance(expected, np.ndarray):
        return array
    if getattr(expected, "committed", False):
        return jax.device_put(array, expected.sharding)
    return jnp.asarray(array)

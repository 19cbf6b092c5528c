"""A file of arrays. Nothing in it is trusted: it may be damaged, or mislabelled.

An array is read only if its header says what is expected, and no more bytes than that. Nothing is ever unpickled.

Arrays for which numpy has no dtype are stored as raw bytes (`bfloat16`) or as numbers (typed random keys), with the
name of the dtype in the comment of the zip entry.
"""

import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from numpy.typing import NDArray

Array = NDArray[Any]
Leaf = Any  # parameters hold arrays of JAX or numpy, or numbers
# The shape of an array in a file, and the name of its dtype.
Form = tuple[tuple[int, ...], str]
KEY = "key:"


def to_numpy(leaf: Leaf) -> Array:
    """The elements of a leaf, as they are stored. If it is spread over processes, every one of them must call this."""
    array = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if _is_spread(array):
        array = process_allgather(array, tiled=True)
    return np.asarray(array, _dtype_of(leaf))


def write(archive: zipfile.ZipFile, key: str, name: str, array: Array) -> None:
    """Adds an array, with the name of its dtype, to an open file."""
    entry = zipfile.ZipInfo(f"{key}.npy")
    if name.startswith(KEY) or _is_extension(array.dtype):
        entry.comment = name.encode()
    if _is_extension(array.dtype):
        array = array.view(f"V{array.dtype.itemsize}")
    with archive.open(entry, "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, array, (1, 0), allow_pickle=False)


class Archive:
    """An open file of arrays. Whatever goes wrong while reading it becomes a `ValueError` that names the place."""

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
            raise ValueError(f"cannot read {what} in {self.path}, expected a file of save_params: {error}") from error

    def digest(self) -> str:
        """Returns what differs between files of different contents."""
        return str([(key, entry.CRC) for key, entry in self.entries.items()])

    def look(self, key: str) -> tuple[Form, int]:
        """Returns the form of an array, and the size of its header and elements in bytes, from the header alone."""
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
        """Returns the array under a key, if it looks like the expected one; `None` expects any."""
        entry = self.entries[key]
        (shape, name), size = self.look(key)
        if expected is not None:
            form, dtype = form_of(expected), _dtype_of(expected)
            if _is_extension(dtype) and name == f"void{8 * dtype.itemsize}":
                name = form[1]  # other writers store the bytes of such dtypes without their name
            if (shape, name) != form:
                found = describe((shape, name))
                raise ValueError(f"expected {key} to be {describe(form)}, found {found} in {self.path}")
        with self._reading(key):
            is_compressed = entry.compress_type != zipfile.ZIP_STORED
            if name == "object":
                raise ValueError("it is pickled, which is never loaded")
            if entry.file_size != size or not (is_compressed or size <= self.size):
                raise ValueError(f"expected {size} bytes, found {entry.file_size}")
            if expected is None and is_compressed:
                raise ValueError("it is compressed, and so may be of any size: set the parameter to its shape first")
            with self._zip.open(entry) as stream:
                content = stream.read(size)  # no more, whatever follows
            array = np.load(io.BytesIO(content), allow_pickle=False)
            if name.startswith(KEY):
                array = jax.random.wrap_key_data(array, impl=name.removeprefix(KEY))
            elif array.dtype.kind == "V" and array.dtype.name != name:
                array = array.view(jnp.dtype(name))
            if isinstance(expected, np.ndarray):
                return array
            if isinstance(array, np.ndarray):
                array = array.astype(array.dtype.newbyteorder("="))  # JAX takes the order of this machine alone
            where = expected.sharding if expected is not None and getattr(expected, "committed", False) else None
            if where is None or where.is_fully_addressable:
                return jax.device_put(array, where)
            return jax.make_array_from_callback(array.shape, where, array.__getitem__)  # does not wait for others


def _is_key(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_spread(leaf: Leaf) -> bool:
    """Whether a leaf has elements that only other processes hold."""
    return isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def _is_extension(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype, such as `bfloat16`, is not one of numpy's own."""
    return dtype.isbuiltin == 2


def _dtype_of(leaf: Leaf) -> Any:  # a dtype of numpy, or of its extensions
    if _is_key(leaf):
        return jnp.dtype(jnp.uint32)
    return leaf.dtype if isinstance(leaf, np.ndarray) else jnp.result_type(leaf)


def form_of(leaf: Leaf) -> Form:
    """The form in which a leaf is stored."""
    if _is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf).shape, f"{KEY}{jax.random.key_impl(leaf)}"
    return np.shape(leaf), _dtype_of(leaf).name


def describe(form: Form) -> str:
    """A form in a message."""
    return f"{form[1]}{list(form[0])}"

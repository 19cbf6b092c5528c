"""A file of arrays, of which nothing is believed: it may be damaged, or not be what it is taken for.

An array is read only where its header says what is expected, and no more bytes than that. Nothing is ever unpickled.

What numpy has no dtype for is in it as raw bytes (`bfloat16`) or as numbers (typed random keys), with the name of the
dtype in the comment of the zip entry.
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

Leaf = Any  # what parameters hold: arrays of JAX or numpy, or numbers
# The shape of an array in a file, and the name of its dtype.
Form = tuple[tuple[int, ...], str]
KEY = "key:"


class Archive:
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
            form, dtype = form_of(expected), dtype_of(expected)
            if is_extension(dtype) and name == f"void{8 * dtype.itemsize}":
                name = form[1]  # other writers leave the bytes of such dtypes without their name
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
            where = expected.sharding if expected is not None and getattr(expected, "committed", False) else None
            return jnp.asarray(array) if where is None else jax.device_put(array, where)


def is_key(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_extension(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype, such as `bfloat16`, is one that numpy itself does not have."""
    return dtype.isbuiltin == 2


def dtype_of(leaf: Leaf) -> Any:  # of numpy, or of its extensions
    if is_key(leaf):
        return jnp.dtype(jnp.uint32)
    return leaf.dtype if isinstance(leaf, np.ndarray) else jnp.result_type(leaf)


def form_of(leaf: Leaf) -> Form:
    if is_key(leaf):
        return jax.eval_shape(jax.random.key_data, leaf).shape, f"{KEY}{jax.random.key_impl(leaf)}"
    return np.shape(leaf), dtype_of(leaf).name


def describe(form: Form) -> str:
    return f"{form[1]}{list(form[0])}"

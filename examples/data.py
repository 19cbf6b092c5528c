"""Image data sets for the examples: scikit-learn's embedded digits, or a folder in the format of MNIST.

MNIST and Fashion-MNIST are four gzipped files (for instance Debian's package `dataset-fashion-mnist`):
train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, and the same two with t10k instead of train.
"""

import gzip
import math
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt8
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class DataError(Exception):
    """A data set that cannot be used; the message says what was expected, and what was found."""


class Split(NamedTuple):
    """Images, scaled to [-1, 1], with their labels."""

    images: Float32[np.ndarray, "samples height width"]
    labels: Int[np.ndarray, " samples"]

    @property
    def vectors(self) -> Float32[np.ndarray, "samples pixels"]:
        """The images, each as a vector."""
        return self.images.reshape(len(self.images), -1)

    @property
    def targets(self) -> Float32[np.ndarray, "samples 10"]:
        """The labels as one-hot vectors."""
        targets: Float32[np.ndarray, "samples 10"] = np.eye(10, dtype=np.float32)[self.labels]
        return targets


class Dataset(NamedTuple):
    """Two splits of the same kind."""

    name: str
    train: Split
    test: Split


def load(folder: Path | None) -> Dataset:
    """The data set in a folder, or, without one, the digits: 1,797 images of 8 × 8, a fifth of them for testing."""
    if folder is not None:
        splits = [_read_split(folder, name) for name in ("train", "t10k")]
        shapes = [split.images.shape[1:] for split in splits]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"expected images of one shape in {folder}, found {shapes[0]} to learn, {shapes[1]} to test"
            )
        return Dataset(folder.name, *splits)
    digits = load_digits()
    images = (digits.images / 8 - 1).astype(np.float32)
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    return Dataset("digits", Split(train, train_labels), Split(test, test_labels))


def load_or_exit(folder: Path | None) -> Dataset:
    """As `load`, for a script: ends it with status 2, and says why, when the data cannot be used."""
    try:
        return load(folder)
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _read_split(folder: Path, name: str) -> Split:
    images_path, labels_path = folder / f"{name}-images-idx3-ubyte.gz", folder / f"{name}-labels-idx1-ubyte.gz"
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"expected as many labels as images, found {len(images)} in {images_path}, {len(labels)} labels"
        )
    if labels.max() > 9:
        raise DataError(f"expected labels from 0 to 9 in {labels_path}, found {labels.max()}")
    return Split((images / 127.5 - 1).astype(np.float32), labels.astype(np.int64))


def _read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file: a zero short, the type (8 for bytes), the number of dimensions, their sizes, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"expected a gzipped IDX file at {path}, found: {error}") from error
    header = struct.pack(">HBB", 0, 8, dimensions)
    start = 4 + 4 * dimensions
    if content[:4] != header or len(content) < start:
        raise DataError(
            f"expected {path} to begin with {header.hex()} (bytes, {dimensions}-d), found {content[:4].hex()}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if 0 in shape:
        raise DataError(f"expected something in {path}, found the shape {shape}")
    if len(content) - start != math.prod(shape):
        raise DataError(f"expected {math.prod(shape)} bytes of shape {shape} in {path}, found {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

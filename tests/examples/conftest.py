from pathlib import Path

import numpy as np
import pytest

from tests.examples.support import idx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny data set whose label is where the image is bright."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 200), ("t10k", 50)):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 50, (count, 5, 4))
        images.reshape(count, 20)[np.arange(count), 2 * labels] = 255
        (tmp_path / f"{split}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return tmp_path

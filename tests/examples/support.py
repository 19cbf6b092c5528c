"""Running an example as a person runs it, and writing data for it."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *options: object) -> subprocess.CompletedProcess[str]:
    ignored = "ignore:Error reading persistent compilation cache entry"  # which another process is writing
    command = [sys.executable, "-W", "error", "-W", ignored, str(EXAMPLES / f"{name}.py"), *map(str, options)]
    quicker = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # to compile, as in the other tests
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=quicker)


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(struct.pack(">HBB", 0, 8, array.ndim) + sizes + array.astype(np.uint8).tobytes())

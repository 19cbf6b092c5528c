"""Running an example as a person runs it, and writing data for it."""

import contextlib
import gzip
import io
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *options: object) -> subprocess.CompletedProcess[str]:
    ignored = "ignore:Error reading persistent compilation cache entry"  # which another process is writing
    command = [sys.executable, "-W", "error", "-W", ignored, str(EXAMPLES / f"{name}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def run_here(name: str, *options: object) -> subprocess.CompletedProcess[str]:
    """As `run`, in this process, which has imported all that an example needs; with JAX's own rules of promotion."""
    script, out, err, status = EXAMPLES / f"{name}.py", io.StringIO(), io.StringIO(), 0
    promotion = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as contexts:
        patch.setattr(sys, "argv", [str(script), *map(str, options)])
        patch.syspath_prepend(script.parent)
        for context in (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), *promotion):
            contexts.enter_context(context)
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(sys.argv, status, out.getvalue(), err.getvalue())


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(struct.pack(">HBB", 0, 8, array.ndim) + sizes + array.astype(np.uint8).tobytes())

"""Running an example as a person runs it, and writing data for it."""

import gzip
import io
import runpy
import struct
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *options: object) -> subprocess.CompletedProcess[str]:
    ignored = "ignore:Error reading persistent compilation cache entry"  # which another process is writing
    command = [sys.executable, "-W", "error", "-W", ignored, str(EXAMPLES / f"{name}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def run_here(name: str, *options: object) -> subprocess.CompletedProcess[str]:
    """As `run`, in this process, for what ends before it computes anything."""
    script, out, err = EXAMPLES / f"{name}.py", io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
    return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), out.getvalue(), err.getvalue())


def idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(struct.pack(">HBB", 0, 8, array.ndim) + sizes + array.astype(np.uint8).tobytes())

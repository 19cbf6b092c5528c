"""The comparison with the published pcx: it agrees, or says that pcx is not there."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "against_pcx.py"


def test_it_agrees_or_is_skipped() -> None:
    command = [sys.executable, "-W", "ignore", str(SCRIPT)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    expected = "skipped: pcx is not installed" if find_spec("pcx") is None else "a file saved by pcx, loaded here"
    assert expected in result.stdout

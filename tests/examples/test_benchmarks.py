"""The benchmarks run; what they measure is not asserted, but that both sides compute the same is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.mark.parametrize(("name", "options"), [("dispatch", ["--layers", "3"]), ("training_step", [])])
def test_runs(name: str, options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(FOLDER / f"{name}.py"), "--rounds", "1", "--out", str(tmp_path)]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "ratio" in result.stdout
    assert (tmp_path / f"{name}.png").exists()
    for difference in re.findall(r"difference of the first energies (\S+)", result.stdout):
        assert float(difference) < 1e-5

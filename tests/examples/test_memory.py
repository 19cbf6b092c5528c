"""The associative memory recalls what it has not been shown."""

import re
from pathlib import Path

import pytest

from tests.examples.support import run_here


@pytest.mark.thorough
def test_digits(tmp_path: Path) -> None:
    result = run_here("4_memory", "--epochs", "60", "--memories", "10", "--batch-size", "10", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "digits: 10 images to store" in result.stdout
    first, last = re.findall(r"energy of recall over 300 steps: ([\d.]+) to ([\d.]+)", result.stdout)[0]
    assert float(last) < float(first) / 2
    error, guess = re.findall(r"hidden pixels: ([\d.]+); of the average image: ([\d.]+)", result.stdout)[0]
    assert float(error) < float(guess) / 2
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")

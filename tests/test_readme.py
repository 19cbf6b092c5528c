"""The program in the README runs as printed, and the commands there are those that are run here."""

import re
import warnings
from pathlib import Path

import jax

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_program_runs_and_learns() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    printed: list[str] = []
    with (
        jax.numpy_rank_promotion("allow"),  # it is run by people without our strict settings
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        exec(compile(program, "README.md", "exec"), {"print": printed.append})
    error, variance = map(float, re.findall(r"\d+\.\d+", printed[0]))
    assert error < 0.05 * variance


def test_the_test_command_installs_what_the_tests_need() -> None:
    assert "pip install -q '.[test]' && .venv/bin/python -m pytest" in README

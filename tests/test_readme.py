"""The program in the README runs as printed, and the commands there are those that are run here."""

import re
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_program_runs_and_learns() -> None:
    program, own_energy = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    printed: list[str] = []
    names: dict[str, Any] = {"print": printed.append}
    with (
        jax.numpy_rank_promotion("allow"),  # it is run by people without our strict settings
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        exec(compile(program + own_energy, "README.md", "exec"), names)
    error, variance = map(float, re.findall(r"\d+\.\d+", printed[0]))
    assert error < 0.05 * variance
    node = names["vode"].set("h", jnp.array([[1.0, -2.0]])).set("u", jnp.array([[0.5, 1.0]]))
    assert node.energy().tolist() == [3.5]


def test_the_test_command_installs_what_the_tests_need() -> None:
    assert "pip install -q '.[test]' && .venv/bin/python -m pytest" in README

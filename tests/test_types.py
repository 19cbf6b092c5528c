"""Small programs, one a function, that a type checker must accept, or refuse with the expected error on its line.

A line that must be refused says so: `# E: words of the message [code]`, once for each error.
"""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minipcax as px

pytestmark = pytest.mark.thorough  # mypy takes its time

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "types"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py"))

Errors = dict[int, list[tuple[str, str]]]  # by line, the message and code of each


@pytest.fixture(scope="module")
def typed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of the package's docstring."""
    imports = "import jax\nimport jax.numpy as jnp\nimport optax\nfrom jax import Array\nfrom minipcax import *\n"
    imports += "from minipcax.functional import jit, value_and_grad\n"
    examples = doctest.DocTestParser().get_examples(px.__doc__ or "")
    path = tmp_path_factory.mktemp("types") / "typed_model.py"
    path.write_text(imports + "".join(example.source for example in examples))
    return path


@pytest.fixture(scope="module")
def errors(typed_model: Path) -> dict[str, Errors]:
    """What mypy finds, by file; all of them together, for it takes its time to start."""
    options = ["--strict", "--no-error-summary", "--hide-error-context", "--no-pretty"]
    command = [
        sys.executable,
        "-m",
        "mypy",
        *options,
        *(str(FOLDER / program) for program in PROGRAMS),
        str(typed_model),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    found: dict[str, Errors] = {program: {} for program in (*PROGRAMS, typed_model.name)}
    lines = re.findall(r"^(.+?):(\d+): error: (.*)  \[([\w-]+)\]$", result.stdout, re.MULTILINE)
    for path, line, message, code in lines:
        found[Path(path).name].setdefault(int(line), []).append((message, code))
    return found


def unmatched(expected: list[tuple[str, str]], found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The expected errors that were not found, and those found that were not expected."""
    pairs = [(e, f) for e in expected for f in found if e[0] in f[0] and e[1] == f[1]]
    missing = [e for e in expected if e not in [pair[0] for pair in pairs]]
    return missing + [f for f in found if f not in [pair[1] for pair in pairs]]


@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_are_those_expected(program: str, errors: dict[str, Errors]) -> None:
    wrong = {}
    for number, line in enumerate((FOLDER / program).read_text().splitlines(), 1):
        expected = re.findall(r"# E: (.+?) \[([\w-]+)\](?=  # E: |$)", line)
        found = errors[program].get(number, [])
        if differences := unmatched(expected, found):
            wrong[number] = line.strip(), differences
    assert wrong == {}


def test_the_documented_mistake_is_found(errors: dict[str, Errors], typed_model: Path) -> None:
    last = len(typed_model.read_text().splitlines())
    found = [(line, code) for line, errors_there in errors[typed_model.name].items() for _, code in errors_there]
    assert found == [(last, "call-arg")]


def test_there_are_programs_of_both_kinds() -> None:
    sources = "\n".join((FOLDER / program).read_text() for program in PROGRAMS)
    assert len(re.findall(r"^(?:def|class) ", sources, re.MULTILINE)) >= 40
    assert sources.count("assert_type(") >= 100
    assert sources.count("# E: ") >= 100

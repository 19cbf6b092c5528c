"""Small programs that a type checker must accept, or refuse with the expected error on its line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "types"


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[int, set[str]]]:
    """The codes of the errors that mypy finds, by file and line."""
    programs = sorted(FOLDER.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty"]
    result = subprocess.run([*command, *map(str, programs)], cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, dict[int, set[str]]] = {program.name: {} for program in programs}
    for path, line, code in re.findall(r"^(.+?):(\d+): error: .*\[([\w-]+)\]$", result.stdout, re.MULTILINE):
        if (ROOT / path).parent == FOLDER:
            found[Path(path).name].setdefault(int(line), set()).add(code)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return found


@pytest.mark.parametrize("program", sorted(path.name for path in FOLDER.glob("*.py")))
def test_errors_are_those_expected(program: str, errors: dict[str, dict[int, set[str]]]) -> None:
    lines = (FOLDER / program).read_text().splitlines()
    expected = {
        number: set(re.split(r",\s*", match[1]))
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# E: (.*)$", line))
    }
    assert errors[program] == expected

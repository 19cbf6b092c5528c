"""The pictures of the pages can be made again: by scripts that draw diagrams, tables, and the program in the README."""

import re
from pathlib import Path

import pytest

from tests.examples.support import EXAMPLES, run_here


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("pictures/diagrams", 3),
        ("benchmarks/plots", 4),
        pytest.param("pictures/readme", 1, marks=pytest.mark.slow),  # the program itself is run by `test_readme`
    ],
)
def test_pictures_are_made_by_commands(
    script: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICTURES", str(tmp_path))
    result = run_here(script)
    assert result.returncode == 0, result.stderr
    made = [Path(path) for path in re.findall(r"wrote (\S+)", result.stdout)]
    assert len(made) == count
    for picture in made:
        assert picture.parent == tmp_path
        assert picture.stat().st_size < 60_000
        assert (EXAMPLES / "pictures" / picture.name).exists()

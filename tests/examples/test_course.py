"""Every lesson of the course runs, has the form that it promises, and names only what there is."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.examples.support import EXAMPLES, run_here

LESSONS = sorted((EXAMPLES / "course").glob("[0-9]*.py"))
MODULES = {
    "px": "minipcax",
    "pxf": "minipcax.functional",
    "pxnn": "minipcax.nn",
    "pxc": "minipcax.predictive_coding",
    "pxu": "minipcax.utils",
    "pxl": "minipcax.learning",
}


LONG = {"10_monte_carlo", "11_zil", "12_depth"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "lesson",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem in LONG else path for path in LESSONS],
    ids=lambda path: path.stem,
)
def test_it_runs(lesson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICK", "1")
    monkeypatch.setenv("PICTURES", str(tmp_path))
    result = run_here(f"course/{lesson.stem}")
    assert result.returncode == 0, result.stderr
    for picture in re.findall(r"wrote (\S+)", result.stdout):
        assert Path(picture).stat().st_size < 60_000


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_its_form(lesson: Path) -> None:
    lines = lesson.read_text().splitlines()
    assert len(lines) <= 150
    assert lines[0] == "# %% [markdown]"
    assert lines[1].startswith(f"# # {int(lesson.stem[:2])}. ")
    pictures = re.findall(r"!\[.+\]\((\S+)\)", "\n".join(lines[:6]))
    assert len(pictures) == 1
    assert (lesson.parent / pictures[0]).exists()
    assert "# ## Exercises" in lines


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_its_text_names_only_what_there_is(lesson: Path) -> None:
    text = "\n".join(line for line in lesson.read_text().splitlines() if line.startswith("#"))
    for file in re.findall(r"`(minipcax/\S+?|examples/\S+?)`", text):
        assert (EXAMPLES.parent / file).exists(), file
    for module, name in re.findall(r"\b(pxf|pxnn|pxc|pxu|pxl|px)\.(\w+)", text):
        assert hasattr(import_module(MODULES[module]), name), f"{module}.{name}"

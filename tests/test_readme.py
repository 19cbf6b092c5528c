"""The README and the pages it leads to: programs run as printed, links lead somewhere, and pictures are small."""

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import jax
import jax.numpy as jnp
import pytest

import minipcax as px

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("**/*.md"))]
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MODULES = {
    "px": "",
    "pxf": ".functional",
    "pxnn": ".nn",
    "pxc": ".predictive_coding",
    "pxu": ".utils",
    "pxl": ".learning",
}


def run(programs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Runs programs one after the other; returns their names, and what they print."""
    printed: list[str] = []
    names: dict[str, Any] = {"print": lambda value: printed.append(str(value))}
    with (
        jax.numpy_rank_promotion("allow"),  # they are run by people without our strict settings
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        exec(compile("\n".join(programs), "README.md", "exec"), names)
    return names, printed


def test_the_programs_run_and_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where they save
    names, printed = run(PROGRAMS)
    accuracy, model_as_text = printed
    error, variance = map(float, re.findall(r"\d+\.\d+", accuracy))
    assert error < 0.05 * variance
    _, excerpt, _ = PROGRAMS[1].split("# ...\n")
    assert excerpt.replace("# ", "", 1).replace("\n# ", "\n") in model_as_text

    node = names["vode"].set("h", jnp.array([[1.0, -2.0]])).set("u", jnp.array([[0.5, 1.0]]))
    assert node.energy().tolist() == [3.5]

    model, nodes, weights, (x, y) = names["model"], names["nodes"], names["weights"], (names["x"], names["y"])
    saved, key = model.layers[0].nn.weight.get(), px.RKG.key.get()
    with jax.numpy_dtype_promotion("standard"):
        report = names["Eager"](steps=3)(x, y, model=model, nodes=nodes, weights=weights)
    assert report.energies.shape == (3,)
    assert (model.layers[0].nn.weight.get() != saved).any()
    px.RKG()
    import_module("minipcax.utils").load_params(
        {"model": model, "weights": weights, "rkg": px.RKG}, "run.npz", px.Param
    )
    assert (model.layers[0].nn.weight.get() == saved).all()
    assert (px.RKG.key.get() == key).all()


def test_the_test_command_installs_what_the_tests_need() -> None:
    assert "pip install -q '.[test]' && .venv/bin/python -m pytest" in README


def test_the_front_page_is_short() -> None:
    assert len(README.splitlines()) <= 120


def anchors(page: Path) -> set[str]:
    """Where a link to a page may lead, as GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        parts = urlparse(link)
        if parts.scheme:
            assert parts.scheme == "https", link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        assert not parts.fragment or parts.fragment in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_only_what_there_is(page: Path) -> None:
    text = page.read_text()
    here = text if page.name != "coming_from.md" else "".join(re.findall(r"^\|[^|]*\|([^|]*)\|", text, re.MULTILINE))
    for alias, name in re.findall(r"\b(pxf|pxnn|pxc|pxu|pxl|px)\.(\w+)", here):
        assert hasattr(import_module(f"minipcax{MODULES[alias]}"), name), f"{alias}.{name}"
    for script in re.findall(r"python (examples/\S+?\.py)", text):
        assert (ROOT / script).exists(), script


def test_every_word_of_the_glossary_names_its_file() -> None:
    _, *entries = (ROOT / "examples" / "glossary.md").read_text().split("\n## ")
    assert len(entries) >= 20
    for entry in entries:
        assert re.search(r"\]\(\.\./minipcax/\S+\.py\)", entry), entry


def test_pictures_are_small() -> None:
    pictures = [path for path in (ROOT / "examples" / "pictures").iterdir() if path.suffix in (".svg", ".png", ".gif")]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 60_000, picture.name

"""The benchmarks run; what they measure is not asserted, but that both sides compute the same is."""

import re
from pathlib import Path

import pytest

from tests.examples.support import run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dispatch", ["--layers", "3"]),
        ("training_step", ["--cases", "1"]),
        ("vgg5", ["--batch", "2", "--scale", "64", "--steps", "1", "--busy"]),
    ],
)
def test_runs(name: str, options: list[str], tmp_path: Path) -> None:
    result = run(f"benchmarks/{name}", "--rounds", "1", "--out", tmp_path, *options)
    assert result.returncode == 0, result.stderr
    assert "ratio" in result.stdout
    assert (tmp_path / f"{name}.png").exists()
    for difference in re.findall(r"difference of the first energies ([\d.e+-]+)", result.stdout):
        assert float(difference) < 1e-5


@pytest.mark.slow
def test_accuracies_are_kept_and_not_computed_again(folder: Path, tmp_path: Path) -> None:
    options: list[str | Path] = [
        "--data",
        folder,
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--out",
        tmp_path,
        "--rows",
        "iPC",
        "centred nudging",
    ]
    first = run("benchmarks/fashion_mnist", *options)
    assert first.returncode == 0, first.stderr
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert set(kept) == {f"{name}, 1 epochs, seed 0.json" for name in ("iPC", "centred nudging")}
    second = run("benchmarks/fashion_mnist", *options)
    assert second.stdout == first.stdout
    assert kept == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("error_based", ["--depth", "3", "--width", "3", "--steps", "300", "--seeds", "1"]),
        ("inference", ["--epochs", "1", "--seeds", "1", "--rates", "0.003"]),
        ("depth", ["--depths", "3"]),
    ],
)
def test_pictures_are_drawn(name: str, options: list[str], tmp_path: Path) -> None:
    result = run(f"benchmarks/{name}", *options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / f"{name}.png").exists()

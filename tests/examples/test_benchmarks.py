"""The benchmarks run; what they measure is not asserted, but that both sides compute the same is."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.examples.support import EXAMPLES, run, run_here


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("run", "name", "options"),
    [
        (run_here, "dispatch", ["--layers", "3"]),
        (run, "training_step", ["--cases", "1"]),  # which clears the caches of JAX
        (run_here, "vgg5", ["--batch", "2", "--scale", "64", "--steps", "1", "--busy"]),
    ],
)
def test_runs(run: Callable[..., Any], name: str, options: list[str], tmp_path: Path) -> None:
    result = run(f"benchmarks/{name}", "--rounds", "1", "--out", tmp_path, *options)
    assert result.returncode == 0, result.stderr
    assert "ratio" in result.stdout
    assert (tmp_path / f"{name}.png").exists()
    for difference in re.findall(r"difference of the first energies ([\d.e+-]+)", result.stdout):
        assert float(difference) < 1e-5


@pytest.mark.slow
def test_a_device_agrees_with_itself(tmp_path: Path) -> None:
    result = run("benchmarks/gpu", "--quick", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "gpu.png").exists()
    found = json.loads((tmp_path / "gpu.json").read_text())
    parts = found["parts"]
    assert found["failures"] == {}
    assert [*parts] == [*found["seconds"]] == ["agreement", "step", "vgg5", "busy", "memory", "stacks"]
    assert all(rows for rows in parts.values())
    for name, numbers in parts["agreement"].items():
        assert numbers.pop("moved") > 0, name
        assert [*numbers] == ["float32", "tensorfloat32", "bfloat16"]
        if "cpu" in found["device"].lower():
            assert set(numbers.values()) == {0}, name
    for numbers in parts["step"].values():
        assert numbers["difference"] < 1e-5
        assert numbers["ratio"] == pytest.approx(numbers["minipcax, µs"] / numbers["by hand, µs"])


def test_a_part_that_fails_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(sizes: object) -> Iterator[tuple[str, dict[str, float]]]:
        yield "before", {"number": 1.0}
        raise ValueError("on purpose")

    def works(sizes: object) -> Iterator[tuple[str, dict[str, float]]]:
        yield "after", {"number": 2.0}

    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    gpu = import_module("gpu")
    monkeypatch.setattr(gpu, "PARTS", {"breaks": breaks, "works": works})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code not in (0, None)  # a message, which Python prints before it exits with status 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failures"] == {"breaks": "ValueError: on purpose"}
    assert found["parts"] == {"breaks": {"before": {"number": 1.0}}, "works": {"after": {"number": 2.0}}}


@pytest.mark.slow
def test_accuracies_are_kept_and_not_computed_again(folder: Path, tmp_path: Path) -> None:
    rows = "iPC", "centred nudging"
    options = "--data", folder, "--epochs", "1", "--seeds", "1", "--out", tmp_path, "--rows", *rows
    first = run("benchmarks/fashion_mnist", *options)
    assert first.returncode == 0, first.stderr
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert set(kept) == {f"{name}, 1 epochs, seed 0.json" for name in rows}
    second = run("benchmarks/fashion_mnist", *options)
    assert second.stdout == first.stdout
    assert kept == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("error_based", ["--depth", "3", "--width", "3", "--steps", "300", "--seeds", "1"]),
        ("inference", ["--epochs", "1", "--seeds", "1", "--rates", "0.003"]),
        ("depth", ["--depths", "3", "--layers", "2", "3", "--longest-list", "2", "--widths", "4", "--rounds", "1"]),
    ],
)
def test_pictures_are_drawn(name: str, options: list[str], tmp_path: Path) -> None:
    result = run(f"benchmarks/{name}", *options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / f"{name}.png").exists()


@pytest.mark.slow
def test_equilibrium(tmp_path: Path) -> None:
    result = run_here("benchmarks/equilibrium", "--quick", "--batch", "4", "--steps", "300", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {line[:16].strip(): line[16:].split() for line in result.stdout.splitlines()}
    assert rows["Heun, 1e-3"][1] == "1.00"
    for name in ("L-BFGS", "EPC, L-BFGS", "SGD", "EPC, SGD"):  # both goals
        assert len(rows[name]) == 10, name
    assert (tmp_path / "equilibrium.png").exists()

"""The pages of models run as a person runs them, at a small size, and what they compare comes out as it must."""

import re
from pathlib import Path

import pytest

from tests.examples.support import run_here


def means(text: str) -> dict[str, float]:
    """The mean of each score over the seeds, by its name."""
    return {name: float(mean) for name, mean in re.findall(r"^([^:\n]+): (-?[\d.]+)", text, re.MULTILINE)}


@pytest.mark.thorough
def test_bidirectional(tmp_path: Path) -> None:
    small = "--epochs", "8", "--steps", "4", "--hidden", "32", "--test-steps", "40", "--seeds", "2"
    result = run_here("models/bidirectional", *small, "--lr-weights", "0.01", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r": [\d.]+ ± [\d.]+ \([\d.]+, [\d.]+\)$", result.stdout, re.MULTILINE)) == 6
    found = means(result.stdout)
    assert found["bidirectional, test accuracy in %"] > found["discriminative, test accuracy in %"] - 2 > 90
    assert found["bidirectional, test accuracy in %"] > found["generative, test accuracy in %"]
    distance = "distance of its images to the average ones"
    assert found[f"bidirectional, {distance}"] < 0.05 < found[f"discriminative, {distance}"] - 0.2
    assert (tmp_path / "bidirectional.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_hybrid(tmp_path: Path) -> None:
    small = "--epochs", "10", "--steps", "8", "--hidden", "32", "--test-steps", "120", "--lr-weights", "0.01"
    result = run_here("models/hybrid", *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    found = means(result.stdout)
    steps = {
        start: found[f"{start}, steps to 0.99 of the accuracy that the prior ends with"]
        for start in ("guess", "prior", "random")
    }
    assert steps["guess"] < steps["prior"] < steps["random"]
    energy = "steps to 1.05 of the energy that the prior ends with"
    assert found[f"guess, {energy}"] < found[f"random, {energy}"]
    assert found["guess, accuracy at the start in %"] > 80 > 20 > found["prior, accuracy at the start in %"]
    assert abs(found["guess, accuracy at the end in %"] - found["prior, accuracy at the end in %"]) < 2
    assert (tmp_path / "hybrid.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_graph(tmp_path: Path) -> None:
    small = "--epochs", "30", "--hidden", "16", "--test-steps", "30", "--lr-weights", "0.01"
    result = run_here("models/graph", *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    found = means(result.stdout)
    parameters = 16 + 32 + 32 + 10 + 2 * (16 * 74 + 32 * 32 + 2 * 32 * 10)
    hopfield = f"error of the lower half, Hopfield network of {parameters // 64} images"
    assert found["error of the lower half, graph"] < found[hopfield] < found["error of the lower half, average image"]
    assert found["test accuracy in %"] > 80
    assert found["distance of images from labels to the average ones"] < 0.02
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")

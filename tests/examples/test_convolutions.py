"""The convolutional example runs as a person runs it, at a small size."""

import re
from functools import partial
from pathlib import Path

import pytest

from tests.examples.support import run_here

run = partial(run_here, "2_convolutions")


@pytest.mark.slow
def test_digits(tmp_path: Path) -> None:
    small = ("--scale", "16", "--steps", "4", "--batch-size", "32", "--lr-weights", "0.005")
    result = run("--epochs", "3", *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "channels: 8, 16, 32, 32" in result.stdout
    accuracies = [float(number) for number in re.findall(r"test accuracy ([\d.]+)%", result.stdout)]
    assert len(accuracies) == 4  # before training, and after each epoch
    assert accuracies[-1] > 70
    first, last = map(float, re.findall(r"steps: ([\d.]+) to ([\d.]+)", result.stdout)[0])
    assert 0 <= last < first
    assert (tmp_path / "convolutions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_folder_in_the_format_of_mnist(folder: Path, tmp_path: Path) -> None:
    """Images of 5 × 4 are pooled twice; another number of channels than the scale divides."""
    small = ("--scale", "100", "--steps", "1", "--batch-size", "50")
    result = run("--data", folder, "--epochs", "1", *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "channels: 1, 2, 5, 5" in result.stdout
    assert len(re.findall(r"epoch 1: test accuracy [\d.]+%, [\d.]+ s", result.stdout)) == 1


@pytest.mark.thorough
def test_alexnet(folder: Path, tmp_path: Path) -> None:
    small = ("--network", "alexnet", "--scale", "100", "--steps", "1", "--batch-size", "50", "--epochs", "1")
    result = run("--data", folder, *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "channels: 1, 2, 3, 3, 2" in result.stdout
    first, last = map(float, re.findall(r"steps: ([\d.]+) to ([\d.]+)", result.stdout)[0])
    assert 0 <= last < first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", "0"), "--scale: expected a positive number, found 0"),
        (("--data", "nowhere"), "expected a gzipped IDX file at nowhere"),
    ],
)
def test_wrong_options_end_with_status_2(options: tuple[str, str], message: str) -> None:
    result = run(*options)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]


def test_help_explains_every_option() -> None:
    text = run("--help").stdout
    for option in (
        "--network",
        "--data",
        "--epochs",
        "--steps",
        "--batch-size",
        "--scale",
        "--seed",
        "--lr-weights",
        "--out",
    ):
        assert option in text

"""The quickstart runs as a person runs it, at a small size, and speaks plainly about data that it can not use."""

import gzip
import re
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data import DataError, load

from tests.examples.support import idx
from tests.examples.support import run as run_example

NAMES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


run = partial(run_example, "1_quickstart")


def test_digits(tmp_path: Path) -> None:
    result = run("--epochs", "2", "--hidden", "32", "--lr-weights", "0.005", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    accuracies = [float(number) for number in re.findall(r"test accuracy ([\d.]+)%", result.stdout)]
    assert len(accuracies) == 3  # before training, and after each epoch
    assert accuracies[-1] > 70
    first, last = map(float, re.findall(r"steps: ([\d.]+) to ([\d.]+)", result.stdout)[0])
    assert 0 <= last < first
    assert "hold the same weight: True" in result.stdout
    assert "on cpu" in result.stdout.lower() or "on cuda" in result.stdout.lower()
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_in_the_format_of_mnist(folder: Path, tmp_path: Path) -> None:
    result = run("--data", folder, "--epochs", "8", "--batch-size", "8", "--lr-weights", "0.005", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(re.findall(r"test accuracy ([\d.]+)%", result.stdout)[-1]) > 90


def test_help_explains_every_option() -> None:
    text = run("--help").stdout
    for option in ("--data", "--epochs", "--steps", "--batch-size", "--seed", "--lr-weights", "--lr-nodes", "--out"):
        assert option in text


WRONG = [
    None,
    b"not gzip",
    gzip.compress(b""),
    gzip.compress(b"not an IDX file"),
    idx(np.zeros((2, 3, 4, 5))),
    idx(np.zeros((20, 5, 4)))[:-9],
    gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 10, 28, 28)),
]


CASES = [*((NAMES[0], content) for content in WRONG), *((name, b"not gzip") for name in NAMES[1:])]


@pytest.mark.parametrize(("name", "content"), CASES, ids=range(len(CASES)))
def test_wrong_data(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"(?s)expected.*{name}.*found"):
        load(folder)


def test_numbers_of_images_and_labels_disagree(folder: Path) -> None:
    (folder / NAMES[1]).write_bytes(idx(np.zeros(7)))
    with pytest.raises(DataError, match=r"found 200 in .*, 7 labels"):
        load(folder)


def test_wrong_data_ends_in_one_line_and_status_2(tmp_path: Path) -> None:
    result = run("--data", tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert NAMES[0] in result.stderr and "expected" in result.stderr and "found" in result.stderr


def test_a_batch_larger_than_the_data_ends_in_one_line_and_status_2(folder: Path) -> None:
    result = run("--data", folder, "--batch-size", "1000")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "at most 200, found 1000" in result.stderr


def test_numbers_must_be_positive() -> None:
    result = run("--steps", "0")
    assert result.returncode == 2
    assert "--steps: expected a positive number, found 0" in result.stderr

"""The quickstart runs as a person runs it, at a small size, and speaks plainly about data that it cannot use."""

import gzip
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import training
from data import DataError, load

from tests.examples.support import idx, run, run_here

NAMES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def test_digits(tmp_path: Path) -> None:
    result = run("1_quickstart", "--epochs", "2", "--hidden", "32", "--lr-weights", "0.005", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    accuracies = [float(number) for number in re.findall(r"test accuracy ([\d.]+)%", result.stdout)]
    assert len(accuracies) == 3  # before training, and after each epoch
    assert accuracies[-1] > 70
    first, last = map(float, re.findall(r"steps: ([\d.]+) to ([\d.]+)", result.stdout)[0])
    assert 0 <= last < first
    assert "hold the same weight: True" in result.stdout
    assert re.search(r"on (tfrt_)?(cpu|cuda)", result.stdout.lower())
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_folder_in_the_format_of_mnist(folder: Path, tmp_path: Path) -> None:
    options = "--epochs", "8", "--batch-size", "8", "--lr-weights", "0.005", "--out", tmp_path
    result = run_here("1_quickstart", "--data", folder, *options)
    assert result.returncode == 0, result.stderr
    assert float(re.findall(r"test accuracy ([\d.]+)%", result.stdout)[-1]) > 90


def test_help_explains_every_option() -> None:
    text = run_here("1_quickstart", "--help").stdout
    explained = re.findall(r"^  (?:-h, )?(--[\w-]+)(?: [A-Z_]+)?\s+(?!-)\S+ \S+", text, re.MULTILINE)
    assert explained == ["--help", *re.findall(r"\[(--[\w-]+)", text)]
    for option in ("--data", "--epochs", "--steps", "--batch-size", "--seed", "--lr-weights", "--lr-nodes", "--out"):
        assert option in explained


WRONG = [
    None,
    b"not gzip",
    gzip.compress(b""),
    gzip.compress(b"not an IDX file"),
    idx(np.zeros((2, 3, 4, 5))),
    idx(np.zeros((200, 0, 4))),
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


def test_labels_are_from_0_to_9(folder: Path) -> None:
    (folder / NAMES[3]).write_bytes(idx(np.full(50, 10)))
    with pytest.raises(DataError, match=rf"expected labels from 0 to 9 in .*{NAMES[3]}, found 10"):
        load(folder)


def test_images_to_test_have_another_shape(folder: Path) -> None:
    (folder / NAMES[2]).write_bytes(idx(np.zeros((50, 4, 5))))
    words = r"expected images of one shape in .*, found \(5, 4\) to learn, \(4, 5\) to test"
    with pytest.raises(DataError, match=words):
        load(folder)


def test_wrong_data_ends_in_one_line_and_status_2(tmp_path: Path) -> None:
    result = run_here("1_quickstart", "--data", tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert NAMES[0] in result.stderr and "expected" in result.stderr and "found" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", "0", "--steps: expected a positive number, found 0"),
        ("--lr-nodes", "nan", "--lr-nodes: expected a positive number, found nan"),
        ("--seed", "-1", "--seed: expected a number of 32 bits, not negative, found -1"),
        ("--batch-size", "1000", "expected --batch-size of at most 200, found 1000"),
        ("--out", __file__, f"File exists: {__file__!r}"),
    ],
)
def test_options_that_cannot_be_used_end_with_status_2_before_training(
    option: str,
    value: str,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["example", "--data", str(folder), "--out", str(folder / "out"), option, value])
    options = training.parser("", epochs=1, steps=1, batch_size=1, lr_weights=1.0, lr_nodes=1.0)
    with pytest.raises(SystemExit) as ended:
        training.run(lambda data, options: pytest.fail("it trains"), options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)

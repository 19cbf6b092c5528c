"""The sharing example runs as a person runs it, at a small size; its parameters are counted by hand."""

import re
from pathlib import Path

import pytest

from tests.examples.support import run_here

SMALL = "--hidden", "12", "--batch-size", "32", "--lr-weights", "0.005", "--steps", "4"
# On the digits, 8 × 8: the parameters that any network has, those that the tied one has once, and how often the untied
# one has these.
COUNTS = {
    "autoencoder": (12 + 3 + 12 + 64, 64 * 12 + 12 * 3, 2),
    "recurrent": (10 * 12 + 10, 12 * (8 + 12) + 12, 8),
    "siamese": (12 + 1, (9 * 8 + 8) + (9 * 8 * 16 + 16) + (16 * 2 * 2 * 12 + 12), 2),
}


def scores(text: str, name: str) -> list[float]:
    """Of one network, before training and after each epoch."""
    part = re.split(r"^(\w[\w ]*):$", text, flags=re.MULTILINE)
    return [float(number) for number in re.findall(r"(?:accuracy|per pixel) ([\d.]+)", part[part.index(name) + 1])]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "part", ["autoencoder", *(pytest.param(part, marks=pytest.mark.slow) for part in ("recurrent", "siamese"))]
)
@pytest.mark.filterwarnings("ignore:inference ended before the error")  # too few for the early cells, but fast
def test_tied_and_untied(part: str, tmp_path: Path) -> None:
    result = run_here("3_sharing", part, "--epochs", "3", *SMALL, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    own, once, times = COUNTS[part]
    assert re.search(rf"^tied +{own + once:,} parameters", result.stdout, re.MULTILINE)
    assert re.search(rf"^untied +{own + times * once:,} parameters", result.stdout, re.MULTILINE)
    before, *_, after = scores(result.stdout, "tied")
    assert after < 0.8 * before if part == "autoencoder" else after > before
    assert (tmp_path / f"sharing_{part}.png").read_bytes().startswith(b"\x89PNG")
    paths = {
        "autoencoder": ".encoder[0].nn.weight is also .decoder[1].nn.weight",
        "recurrent": ".cells[0].linear.nn.weight is also .cells[1].linear.nn.weight, .cells[2].linear.nn.weight, ...",
        "siamese": ".left.convolutions[0].nn.weight is also .right.convolutions[0].nn.weight",
    }
    assert result.stdout.count(f"  {paths[part]}\n") == 1


@pytest.mark.slow
def test_one_weight_or_one_bias(folder: Path, tmp_path: Path) -> None:
    """On images of 5 × 4."""
    result = run_here("3_sharing", "partial", "--data", folder, "--epochs", "3", *SMALL, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    weight, bias = 12 * 12, 12
    untied = (20 * 12 + 12) + 2 * (weight + bias) + (12 * 10 + 10)
    for name, count in (("one weight", untied - weight), ("one bias", untied - 2 * bias), ("untied", untied)):
        assert re.search(rf"^{name} +{count:,} parameters", result.stdout, re.MULTILINE)
    assert "  .layers[1].nn.weight is also .layers[2].nn.weight\n" in result.stdout
    assert "  .layers[0].nn.bias is also .layers[1].nn.bias, .layers[2].nn.bias\n" in result.stdout
    assert (tmp_path / "sharing_partial.png").exists()

"""The models of sequences run as a person runs them, at a small size; and what their pages say of them holds."""

import re
import sys
from pathlib import Path

import numpy as np
import optax

import minipcax as px
import minipcax.learning as pxl
import minipcax.utils as pxu
from tests.examples.support import EXAMPLES, run_here

sys.path.append(str(EXAMPLES / "models"))
import temporal


def means(text: str) -> dict[str, float]:
    """The mean of each score over two seeds, by its name."""
    line = r"^([^:\n]+): ([\d.]+) ± [\d.]+ \([\d.]+, [\d.]+\)$"
    return {name: float(mean) for name, mean in re.findall(line, text, re.MULTILINE)}


def test_temporal(tmp_path: Path) -> None:
    small = "--epochs", "2", "--steps", "8", "--hidden", "32", "--sprites", "200", "--batch-size", "20", "--seeds", "2"
    result = run_here("models/temporal", *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    found = means(result.stdout)
    assert len(found) == 4 * 3
    for name in ("TemporalPC", "TemporalBackprop"):
        assert found[f"{name}, 1 ahead"] < 0.9 * found["average frame, 1 ahead"]
        for ahead in (1, 2, 5):
            assert found[f"{name}, {ahead} ahead"] < 0.7 * found[f"copy of the last frame, {ahead} ahead"]
    assert (tmp_path / "temporal.png").read_bytes().startswith(b"\x89PNG")


def test_temporal_on_a_folder_in_the_format_of_mnist(folder: Path, tmp_path: Path) -> None:
    """Images of 5 × 4, fewer than a batch."""
    small = "--epochs", "1", "--steps", "2", "--hidden", "8", "--sprites", "20"
    result = run_here("models/temporal", "--data", folder, *small, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "20 sprites to learn, 20 to test" in result.stdout


def test_sprites_fly_straight_and_bounce_off_the_edges() -> None:
    height, width, frames = 6, 5, 15
    clips = temporal.fly(np.ones((50, height, width), np.float32), frames, 2, np.random.default_rng(0))
    canvas = clips.reshape(frames, 50, 2 * height, 2 * width)
    assert np.all(canvas.sum(axis=(2, 3)) == height * width)  # none leaves the canvas
    for axis, room in ((2, height), (3, width)):
        places = canvas.max(axis=5 - axis).argmax(axis=2)
        moved = np.abs(np.diff(places, axis=0))
        assert places.min() == 0 and places.max() == room and moved.max() == 2
        inside = (places[1:-1] > 1) & (places[1:-1] < room - 1)
        assert inside.any() and np.all(np.diff(places, 2, axis=0)[inside] == 0)  # there the velocity does not change


def test_a_frame_is_learned_from_the_state_before_alone() -> None:
    """The inferred state and the updates, by hand."""
    rng, steps, rate = np.random.default_rng(0), 3, 0.1
    model = temporal.Model(4, 3, px.RandomKeyGenerator(0))
    (a, bias_a), (c, bias_c) = (
        (np.asarray(layer.nn.weight), np.asarray(layer.nn.bias)) for layer in (model.transition, model.view)
    )
    before, frame = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)
    nodes, weights = pxu.Optim(optax.sgd(rate)), pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    report = temporal.TemporalPC(steps)(before, frame, model=model, nodes=nodes, weights=weights)

    expected = h = np.tanh(before) @ a.T + bias_a
    for _ in range(steps):
        h = h - rate * ((h - expected) - (1 - np.tanh(h) ** 2) * ((frame - np.tanh(h) @ c.T - bias_c) @ c))
    np.testing.assert_allclose(report.predictions, h, rtol=1e-4, atol=1e-6)
    learned = a + (h - expected).T @ np.tanh(before) / 2, c + (frame - np.tanh(h) @ c.T - bias_c).T @ np.tanh(h) / 2
    np.testing.assert_allclose(model.transition.nn.weight, learned[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.view.nn.weight, learned[1], rtol=1e-4, atol=1e-6)

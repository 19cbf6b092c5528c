"""The models of sequences run as a person runs them, at a small size; and what their pages say of them holds."""

import argparse
import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from data import load

import minipcax as px
import minipcax.learning as pxl
import minipcax.utils as pxu
from tests.examples.support import EXAMPLES, run_here

sys.path.append(str(EXAMPLES / "models"))
import temporal
import transformer


def means(text: str) -> dict[str, float]:
    """The mean of each score over two seeds, by its name."""
    line = r"^([^:\n]+): ([\d.]+) ± [\d.]+ \([\d.]+, [\d.]+\)$"
    return {name: float(mean) for name, mean in re.findall(line, text, re.MULTILINE)}


@pytest.mark.thorough
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


@pytest.mark.slow
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


SMALL = (
    "--width",
    "8",
    "--heads",
    "2",
    "--depth",
    "2",
    "--images",
    "300",
    "--batch-size",
    "15",
    "--lr-weights",
    "0.01",
)


@pytest.mark.slow
def test_transformer(tmp_path: Path) -> None:
    result = run_here("models/transformer", "--epochs", "4", *SMALL, "--seeds", "2", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    found = means(result.stdout)
    assert list(found) == ["Backprop", "EPC", "EPC / Backprop"]
    assert found["EPC / Backprop"] < 1.05
    images = load(None).test.images[:200]
    assert found["Backprop"] < 0.5 * np.var(images, axis=0).sum()  # the loss of predicting the average image
    assert (tmp_path / "transformer.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_transformer_on_a_folder_in_the_format_of_mnist(folder: Path, tmp_path: Path) -> None:
    """Images of 5 × 4."""
    options = "--algorithm", "PC", "--epochs", "1", *SMALL
    result = run_here("models/transformer", "--data", folder, *options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "PC / Backprop: " in result.stdout


def small_transformer(precision: float) -> tuple[transformer.Rows, transformer.Transformer]:
    images = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    options = argparse.Namespace(width=8, heads=2, depth=2, precision=precision)
    return images, transformer.Transformer(images, options, px.RandomKeyGenerator(0))


@pytest.mark.thorough
def test_no_token_sees_a_later_row() -> None:
    images, model = small_transformer(1.0)

    def changed(row: int) -> list[bool]:
        other = images.copy()
        other[:, row] += 1
        difference = pxl.predict(images, model) - pxl.predict(other, model)
        return [bool(jnp.any(difference[:, token] != 0)) for token in range(5)]

    for row in range(5):
        assert changed(row) == [token >= row for token in range(5)]


@pytest.mark.slow
def test_a_small_precision_makes_errors_gradients() -> None:
    """After T steps of rate a, errors are 1 − (1 − a)^T of the gradients of backpropagation; so is what they teach."""
    steps, rate = 4, 0.3
    updates = []
    for algorithm in (pxl.Backprop(), pxl.EPC(steps)):
        images, model = small_transformer(1e-4)
        before = [np.asarray(param) for param in px.tree_extract(pxl.WEIGHTS(model))]
        nodes, weights = pxu.Optim(optax.sgd(rate)), pxu.Optim(optax.sgd(1e4), pxl.WEIGHTS(model))
        algorithm(transformer.before(images), images, model=model, nodes=nodes, weights=weights)
        after = px.tree_extract(pxl.WEIGHTS(model))
        updates.append([np.asarray(param) - value for param, value in zip(after, before, strict=True)])
    observed = {id(param) for param in px.tree_extract([model.norm, model.read])}
    for param, backprop, epc in zip(after, *updates, strict=True):
        factor = 1 if id(param) in observed else 1 - (1 - rate) ** steps
        np.testing.assert_allclose(epc, factor * backprop, rtol=0.02, atol=0.02 * np.abs(backprop).max() + 1e-4)

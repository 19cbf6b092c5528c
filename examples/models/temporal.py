"""Temporal predictive coding: a recurrent network watches moving digits, one frame after the other, and foresees them.

At time t the network has a hidden state h_t, predicted from the one before, and predicts the frame x_t from it:

    E_t = ½‖h_t − A tanh(ĥ_{t−1}) − a‖² + ½‖x_t − C tanh(h_t) − c‖²

The inferred state ĥ_{t−1} is all that is carried along, as in a Kalman filter: for each frame, h_t starts at its
prediction and moves down E_t for T steps, then A, a, C and c, which are shared in time, learn once by ∂E_t/∂A, ... at
ĥ_t. So no error travels back in time, and nothing is stored. Predictions of frames to come repeat h ← A tanh(h) + a.

The yardstick is the same network with the same inference, whose weights learn by backpropagation of the same error of
the next frame, ½‖x_t − C tanh(A tanh(ĥ_{t−1}) + a) − c‖². Frames show scikit-learn's digits, or, with --data, images of
(Fashion-)MNIST made smaller, that fly over a canvas and bounce off its edges.

Millidge, Tang, Osanlouy, Harper and Bogacz, Predictive coding networks for temporal prediction, PLOS Computational
Biology 20 (2024).
"""

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from common import Scores, draw_rows, over_seeds
from jax import Array
from jaxtyping import Float
from tqdm import tqdm

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset  # beside the examples, one folder up
from training import parser, run

Sprites = Float[np.ndarray, "clips height width"]
Clips = Float[np.ndarray, "frames clips pixels"]
FRAMES, WATCHED, AHEAD = 20, 10, 5  # of a clip; those seen before the first prediction that counts; those to foresee


class Model(pxc.EnergyModule):
    """Predicts a frame from the state before; its hidden node holds the state of the present."""

    def __init__(self, pixels: int, hidden: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.transition, self.view = pxnn.Linear(hidden, hidden, rkg=rkg), pxnn.Linear(hidden, pixels, rkg=rkg)
        self.hidden, self.frame = pxc.Vode(), pxc.Vode()
        self.frame.h.frozen = True  # what is seen is not inferred

    def __call__(self, before: Array, frame: Array | None = None) -> Array:
        h = self.hidden(self.transition(jnp.tanh(before)))
        prediction: Array = self.frame(self.view(jnp.tanh(h)), output="u")
        if frame is not None:
            self.frame.set("h", frame)
        return prediction


class TemporalPC(pxl.Algorithm):
    """Learns from one frame; what the report has as predictions are the inferred states, to be carried to the next."""

    steps: int = 16

    def train(self, x: Array, y: Array, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        assert isinstance(model, Model)
        _, loss = pxl.start(x, y, model=model)
        history = pxl.relax(x, self.steps, model=model, optim=nodes)
        state = model.hidden.h.get()
        self.learn(x, y, model=model, nodes=nodes, weights=weights)
        return pxl.Report(history, loss, state)

    def learn(self, x: Array, y: Array, *, model: Model, nodes: pxu.Optim, weights: pxu.Optim) -> None:
        pxl.learn(x, model=model, optim=weights)


class TemporalBackprop(TemporalPC):
    """The yardstick: the same inference, but the weights learn by backpropagation."""

    def learn(self, x: Array, y: Array, *, model: Model, nodes: pxu.Optim, weights: pxu.Optim) -> None:
        pxl.Backprop().train(x, y, model=model, nodes=nodes, weights=weights)


def fly(sprites: Sprites, frames: int, speed: int, rng: np.random.Generator) -> Clips:
    """Each sprite on a canvas of twice its size, from anywhere along a diagonal, bouncing off the edges."""
    clips, height, width = sprites.shape
    room = np.array([height, width])
    velocity = rng.integers(1, speed + 1, (clips, 2)) * rng.choice([-1, 1], (clips, 2))
    path = rng.integers(0, 2 * room, (clips, 2)) + velocity * np.arange(frames)[:, None, None]
    place = room - np.abs(path % (2 * room) - room)  # straight paths, folded at the edges
    canvas = np.zeros((frames, clips, 2 * height, 2 * width), np.float32)
    for frame, clip in np.ndindex(frames, clips):
        row, column = place[frame, clip]
        canvas[frame, clip, row : row + height, column : column + width] = sprites[clip]
    return canvas.reshape(frames, clips, -1)


def foresee(clips: Clips, options: argparse.Namespace, model: Model) -> Float[np.ndarray, "starts ahead clips pixels"]:
    """Predictions of the next frames, from `WATCHED` frames on; the weights stay as they are."""
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    state = jnp.zeros((clips.shape[1], model.transition.in_features))
    predictions = []
    for seen, frame in enumerate(clips[:-AHEAD], start=1):
        pxl.initialise(state, frame, model=model)
        pxl.infer(state, options.steps, model=model, optim=nodes)
        state = future = model.hidden.h.get()
        for _ in range(AHEAD if seen >= WATCHED else 0):
            predictions.append(pxl.initialise(future, model=model))
            future = model.hidden.h.get()
    return np.reshape(predictions, (-1, AHEAD, *clips.shape[1:]))


def train(sprites: Sprites, algorithm: TemporalPC, seed: int, options: argparse.Namespace) -> Model:
    """A network that has learned from new clips in every epoch."""
    _, height, width = sprites.shape
    model = Model(4 * height * width, options.hidden, px.RandomKeyGenerator(seed))
    whole, order = len(sprites) - len(sprites) % options.batch_size, np.random.default_rng(seed)
    decaying = optax.cosine_decay_schedule(options.lr_weights, options.epochs * whole // options.batch_size * FRAMES)
    weights = pxu.Optim(optax.adamw(decaying), pxl.WEIGHTS(model))
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    for _ in tqdm(range(options.epochs), type(algorithm).__name__, leave=False, disable=None):
        for batch in order.permutation(len(sprites))[:whole].reshape(-1, options.batch_size):
            state = jnp.zeros((options.batch_size, options.hidden))
            for frame in fly(sprites[batch], FRAMES, options.speed, order):
                report = algorithm(state, frame, model=model, nodes=nodes, weights=weights)
                state = report.check().predictions
    return model


def compare(data: Dataset, options: argparse.Namespace) -> None:
    """The errors of predictions, of both algorithms, and of what needs no network."""
    every = max(1, min(data.train.images.shape[1:]) // 8)  # larger images are made smaller, to about 8 × 8
    small = (split.images[: options.sprites, ::every, ::every] / 2 + 0.5 for split in (data.train, data.test))
    sprites, test_sprites = small
    options.batch_size = min(options.batch_size, len(sprites))
    clips = fly(test_sprites, FRAMES, options.speed, np.random.default_rng(0))
    starts = range(WATCHED, FRAMES - AHEAD + 1)
    truth = np.stack([clips[start : start + AHEAD] for start in starts])
    rows = {"seen": clips[WATCHED - AHEAD : WATCHED, 0], "next": truth[0, :, 0]}
    print(f"{data.name}: {len(sprites)} sprites to learn, {len(test_sprites)} to test")

    def errors(name: str, predictions: Float[np.ndarray, "..."]) -> Scores:
        by_frame = np.square(predictions - truth).mean(axis=(0, 2, 3))
        return {f"{name}, {ahead} ahead": float(by_frame[ahead - 1]) for ahead in (1, 2, AHEAD)}

    def score(seed: int) -> Scores:
        last = np.stack([clips[start - 1 : start] for start in starts])
        scores = errors("copy of the last frame", last) | errors("average frame", clips.mean(axis=(0, 1)))
        for algorithm in (TemporalPC(options.steps), TemporalBackprop(options.steps)):
            model, name = train(sprites, algorithm, seed, options), type(algorithm).__name__
            predictions = foresee(clips, options, model)
            scores |= errors(name, predictions)
            rows.setdefault(name, predictions[0, :, 0])
        return scores

    print("mean squared errors per pixel:")
    over_seeds(score, options)
    _, height, width = sprites.shape
    shown = {name: 2 * frames - 1 for name, frames in rows.items()}
    draw_rows(shown, (2 * height, 2 * width), options.out / "temporal.png")


if __name__ == "__main__":
    options = parser(__doc__, epochs=12, steps=16, batch_size=64, lr_weights=1e-3, lr_nodes=0.1)
    options.add_argument("--seeds", type=int, default=1, help="how often to train, from --seed on")
    options.add_argument("--hidden", type=int, default=512, help="size of the state")
    options.add_argument("--speed", type=int, default=1, help="up to how many pixels a frame sprites fly, either way")
    options.add_argument("--sprites", type=int, default=1500, help="how many images to use of each split, at most")
    run(compare, options)

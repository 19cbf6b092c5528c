"""Bidirectional predictive coding: one network reads digits and draws them.

Every hidden state has two predictions, one from the state below it, one from the state above; the image (state 0) has
only the second, and the label (state L) only the first:

    E = Σ_l α_gen/2 ‖h_l − W_l f(h_{l+1})‖² + α_disc/2 ‖h_{l+1} − V_l f(h_l)‖²

To learn, image and label are clamped; to classify, the image; to generate, the label. Inference finds the states that
are not clamped. With α_gen = 0 the very same network only discriminates, with α_disc = 0 it only generates.

Here a state with two predictions is a state shared by two nodes, each with one prediction and one energy, of which α
is the precision. So nothing new is needed, and the history has each energy by itself.

Oliviers, Tang and Bogacz, Bidirectional predictive coding, arXiv 2505.23415 (2025).
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from common import Scores, batches, draw_rows, over_seeds
from jax import Array
from jaxtyping import Float

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset  # beside the examples, one folder up
from training import parser, run

DOWNWARDS = "downwards"  # the status in which states start at the predictions from above, not at those from below
Images = Float[np.ndarray, "images pixels"]
Labels = Float[np.ndarray, "images 10"]  # one-hot, or as inference finds them


class Bidirectional(pxc.EnergyModule):
    """`down[l]` and `up[l - 1]` are the two nodes of state l."""

    def __init__(self, sizes: list[int], gen: float, disc: float, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.gen, self.disc = pxnn.LayerState(jnp.array(gen)), pxnn.LayerState(jnp.array(disc))
        self.layers_up = [pxnn.Linear(low, high, rkg=rkg) for low, high in pairwise(sizes)]
        self.layers_down = [pxnn.Linear(high, low, rkg=rkg) for low, high in pairwise(sizes)]
        self.up = [pxc.Vode() for _ in self.layers_up]
        self.down = [pxc.Vode(ruleset={pxc.STATUS.INIT: ("u <- u",), DOWNWARDS: ("h, u <- u",)}) for _ in self.up]
        for up, down in zip(self.up[:-1], self.down[1:], strict=True):
            down.h = up.h

    def __call__(self, image: Array | None, label: Array | None = None) -> Array:
        if image is not None:
            self.down[0].set("h", image)
        if label is not None:
            self.up[-1].set("h", label)
        sweeps = [self.downwards, self.upwards] if image is None else [self.upwards, self.downwards]
        for sweep in sweeps:
            sweep()
        prediction: Array = self.up[-1].get("u")
        return prediction

    def upwards(self) -> None:
        x = self.down[0].get("h")
        for layer, node in zip(self.layers_up, self.up, strict=True):
            x = jnp.tanh(node(layer(x), precision=self.disc))

    def downwards(self) -> None:
        x = self.up[-1].get("h")
        for layer, node in zip(self.layers_down[::-1], self.down[::-1], strict=True):
            x = jnp.tanh(node(layer(x), precision=self.gen))

    def clamp(self, image: bool, label: bool) -> None:
        self.down[0].h.frozen, self.up[-1].h.frozen = image, label


def train(data: Dataset, gen: float, disc: float, seed: int, options: argparse.Namespace) -> Bidirectional:
    """A network that has learned, with both image and label clamped."""
    images, labels = data.train.vectors, data.train.targets
    sizes = [images.shape[1], options.hidden, options.hidden, 10]
    model = Bidirectional(sizes, gen, disc, px.RandomKeyGenerator(seed))
    model.clamp(image=True, label=True)
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    weights = pxu.Optim(optax.adamw(options.lr_weights), pxl.WEIGHTS(model))
    algorithm = pxl.PC(options.steps)
    for batch in batches(len(images), seed, options):
        algorithm(images[batch], labels[batch], model=model, nodes=nodes, weights=weights).check()
    return model


def classify(images: Images, model: Bidirectional, nodes: pxu.Optim, steps: int) -> Labels:
    """The labels that inference finds with the images clamped."""
    model.clamp(image=True, label=False)
    pxl.initialise(images, model=model)
    pxl.infer(images, steps, model=model, optim=nodes)
    return np.asarray(model.up[-1].h)


def generate(labels: Labels, model: Bidirectional, nodes: pxu.Optim, steps: int) -> Images:
    """The images that inference finds with the labels clamped, from the predictions from above."""
    model.clamp(image=False, label=True)
    with pxu.step(model, DOWNWARDS, clear_params=(pxl.PER_SAMPLE, None)):
        call(jnp.asarray(labels), model=model)
    pxl.infer(None, steps, model=model, optim=nodes)
    return np.asarray(model.down[0].h)


@pxl.over_batch
def call(label: Array, *, model: Bidirectional) -> None:
    model(None, label)


def compare(data: Dataset, options: argparse.Namespace) -> None:
    """The bidirectional network beside those that only discriminate and only generate."""
    kinds = {"bidirectional": (options.gen, 1.0), "discriminative": (0.0, 1.0), "generative": (1.0, 0.0)}
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    means = np.stack([data.train.vectors[data.train.labels == label].mean(0) for label in range(10)])
    rows = {"average": means}
    print(f"{data.name}: {len(data.train.images)} images to learn, {len(data.test.images)} to test")

    def score(seed: int) -> Scores:
        scores = {}
        for kind, (gen, disc) in kinds.items():
            model = train(data, gen, disc, seed, options)
            labels = classify(data.test.vectors, model, nodes, options.test_steps)
            scores[f"{kind}, test accuracy in %"] = 100 * float(np.mean(labels.argmax(axis=1) == data.test.labels))
            images = generate(np.eye(10, dtype=np.float32), model, nodes, options.test_steps)
            scores[f"{kind}, distance of its images to the average ones"] = float(np.mean((images - means) ** 2))
            rows.setdefault(kind, images)
        return scores

    over_seeds(score, options)
    draw_rows(rows, data.train.images.shape[1:], options.out / "bidirectional.png")


if __name__ == "__main__":
    options = parser(__doc__, epochs=60, steps=8, batch_size=64, lr_weights=1e-3, lr_nodes=0.1)
    options.add_argument("--hidden", type=int, default=128, help="size of the hidden layers")
    options.add_argument("--gen", type=float, default=1e-3, help="α_gen; α_disc is 1")
    options.add_argument("--test-steps", type=int, default=100, help="inference steps to classify and to generate")
    options.add_argument("--seeds", type=int, default=1, help="how many networks of each kind to train")
    run(compare, options)

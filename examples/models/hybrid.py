"""Hybrid predictive coding: an inference network starts the states, and learns from where inference then takes them.

A generative network predicts the image from hidden states, and these from the label, which has a prior b,

    E = ½ ‖h_0 − b‖² + Σ_l ½ ‖h_l − W_l f(h_(l−1))‖²,  h_0 the label, h_L the image

To classify an image, inference must find h_0, and it is slow when it starts from the prior, or from noise. An inference
network from the image to the label guesses all states instead, which is fast, and learns to guess where inference ends:

    h_l = g_l(h_(l+1)) at the start;  ½ ‖stop_gradient(h_l) − g_l(h_(l+1))‖² for its weights

Both networks learn at once, with image and label clamped. The page compares the three starts on one trained network.

Tscshantz, Millidge, Seth and Buckley, Hybrid predictive coding: Inferring, fast and slow, PLOS Computational Biology
19 (2023), arXiv 2204.02169.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from common import Scores, batches, over_seeds
from jax import Array
from jaxtyping import Float
from matplotlib.figure import Figure

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset  # beside the examples, one folder up
from training import parser, run

PRIOR = "prior"  # the status in which states start at the predictions of the generative network
RULES: dict[str | None, tuple[str, ...]] = {pxc.STATUS.INIT: ("u <- u",), PRIOR: ("h, u <- u",)}
STARTS = "guess", "prior", "random"
Curves = Float[np.ndarray, "2 steps"]  # the test accuracy and the energy before every step of inference


class Hybrid(pxc.EnergyModule):
    """The generative network, whose nodes are numbered from the label to the image, and a guess for each of them."""

    def __init__(self, sizes: list[int], rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.prior = pxnn.LayerParam(jnp.full(sizes[0], 1 / sizes[0]))
        self.layers = [pxnn.Linear(high, low, rkg=rkg) for high, low in pairwise(sizes)]
        self.hidden, self.image = [pxc.Vode(ruleset=RULES) for _ in self.layers], pxc.Vode()
        self.image.h.frozen = True
        layers = [pxnn.Linear(low, high, rkg=rkg) for high, low in pairwise(sizes)]
        self.guesses = [pxc.Amortised(node, layer) for node, layer in zip(self.hidden, layers, strict=True)]

    def __call__(self, image: Array, label: Array | None = None) -> Array:
        self.image.set("h", image)
        if label is not None:
            self.hidden[0].set("h", label)
        x = image
        for guess in self.guesses[::-1]:
            x = jnp.tanh(guess(x))
        x = self.hidden[0](self.prior.get())
        for layer, node in zip(self.layers, [*self.hidden[1:], self.image], strict=True):
            x = jnp.tanh(node(layer(x)))
        prediction: Array = self.guesses[0].guess.get("u")
        return prediction


def train(data: Dataset, seed: int, options: argparse.Namespace) -> Hybrid:
    """Both networks, after learning together."""
    images, labels = data.train.vectors, data.train.targets
    model = Hybrid([10, options.hidden, options.hidden, images.shape[1]], px.RandomKeyGenerator(seed))
    model.hidden[0].h.frozen = True
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    weights = pxu.Optim(optax.adamw(options.lr_weights), pxl.WEIGHTS(model))
    algorithm = pxl.PC(options.steps)
    for batch in batches(len(images), seed, options):
        algorithm(images[batch], labels[batch], model=model, nodes=nodes, weights=weights).check()
    return model


def classify(data: Dataset, start: str, model: Hybrid, seed: int, options: argparse.Namespace) -> Curves:
    """Inference on the test images, from a start."""
    images, nodes = data.test.vectors, pxu.Optim(optax.sgd(options.lr_nodes))
    model.hidden[0].h.frozen = False
    pxl.initialise(images, model=model)
    if start == "prior":
        with pxu.step(model, PRIOR, clear_params=(pxc.VodeParam.Cache, pxc.VodeParam.Cache)):
            pxl.over_batch(lambda image, *, model: model(image))(images, model=model)
    elif start == "random":
        noise = np.random.default_rng(seed)
        for node in model.hidden:
            node.h.set(jnp.asarray(noise.normal(size=node.h.shape), node.h.dtype))
    found: list[tuple[float, float]] = []
    for _ in range(options.test_steps):
        right = jnp.argmax(model.hidden[0].h.get(), axis=1) == data.test.labels
        energy = pxl.infer(images, 1, model=model, optim=nodes)[0]
        found.append((100 * float(right.mean()), float(energy)))
    return np.array(found).T


def compare(data: Dataset, options: argparse.Namespace) -> None:
    """How many steps of inference each start takes."""
    print(f"{data.name}: {len(data.train.images)} images to learn, {len(data.test.images)} to test")
    curves: dict[str, list[Curves]] = {start: [] for start in STARTS}

    def score(seed: int) -> Scores:
        model, scores = train(data, seed, options), {}
        for start in STARTS:
            curves[start].append(classify(data, start, model, seed, options))
        enough, low = curves["prior"][-1][:, -1] * (0.99, 1.05)
        for start in STARTS:
            accuracies, energies = curves[start][-1]
            scores[f"{start}, accuracy at the start in %"] = accuracies[0]
            scores[f"{start}, accuracy at the end in %"] = accuracies[-1]
            scores[f"{start}, steps to 0.99 of the accuracy that the prior ends with"] = first(accuracies >= enough)
            scores[f"{start}, steps to 1.05 of the energy that the prior ends with"] = first(energies <= low)
        return scores

    over_seeds(score, options, "{:.1f}")
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for number, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("test accuracy, %", "energy"), strict=True)):
        for start in STARTS:
            axes.plot(np.mean(curves[start], axis=0)[number], label=start)
        axes.set(xlabel="steps of inference", ylabel=name, xscale="symlog", yscale=("linear", "log")[number])
        axes.legend(title="start")
    figure.savefig(options.out / "hybrid.png", dpi=100)
    print(f"wrote {options.out / 'hybrid.png'}")


def first(reached: np.ndarray) -> float:
    return float(np.argmax(reached)) if reached.any() else np.inf


if __name__ == "__main__":
    options = parser(__doc__, epochs=30, steps=16, batch_size=64, lr_weights=1e-3, lr_nodes=0.05)
    options.add_argument("--hidden", type=int, default=128, help="size of the hidden layers")
    options.add_argument("--test-steps", type=int, default=300, help="inference steps to classify")
    options.add_argument("--seeds", type=int, default=1, help="how many networks to train")
    run(compare, options)

"""A predictive coding graph: any node predicts any other, and what it is used for depends on what is clamped.

Every node t of a graph, which may have cycles, is predicted by all nodes s with an edge to it,

    E = Σ_t ½ ‖h_t − u_t‖²,  u_t = b_t + Σ_(s→t) m_s W_st f(h_s)

Here the nodes are the upper half of an image, its lower half, its label and a hidden one, and each predicts every
other. All but the hidden one are clamped to learn. Then one and the same graph classifies (the image is clamped),
generates (the label) and completes images (the upper half): inference finds whatever is not clamped.

In the paper, m is 1. Then a graph of such nodes learns to copy, from a half to the hidden node and back, what nobody
tells it later. So here it learns with m_s = 0 for some of the clamped nodes, at random, and is used with m_s = 0 for
those that are not known.

Images that it has not learned are completed, beside the average image, by a modern Hopfield network that stores as
many numbers as the graph has parameters, x = Xᵀ softmax(β X_upper x_upper), with the β that is best on these images.

Salvatori, Pinchetti, Millidge, Song, Bao, Bogacz and Lukasiewicz, Learning on Arbitrary Graph Topologies via
Predictive Coding, NeurIPS 2022, arXiv 2201.13180; Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021.
"""

import argparse
import sys
from itertools import permutations
from pathlib import Path

import jax
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
from data import Dataset, Split  # beside the examples, one folder up
from training import parser, run

SUBSETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.float32)
Values = Float[np.ndarray, "samples size"]
Known = dict[str, Values]  # the states of the clamped nodes, by name


class Graph(pxc.EnergyModule):
    """Nodes by name, each with an edge to every other."""

    def __init__(self, sizes: dict[str, int], rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.vodes = {name: pxc.Vode(ruleset={pxc.STATUS.INIT: ("u <- u",)}) for name in sizes}
        self.biases = {name: pxnn.LayerParam(jnp.zeros(size)) for name, size in sizes.items()}
        self.edges = {
            f"{source} to {target}": pxnn.Linear(sizes[source], sizes[target], bias=False, rkg=rkg)
            for source, target in permutations(sizes, 2)
        }

    def __call__(self, x: tuple[dict[str, Array], dict[str, Array]], _: None = None) -> None:
        known, seen = x
        for name, state in known.items():
            self.vodes[name].set("h", state)
        if self.status == pxc.STATUS.INIT:  # in a cycle there is no first node: each starts from those that have
            states = known
            for name in [name for name in self.vodes if name not in known]:
                self.vodes[name].set("h", self.prediction(name, states, seen))
                states = {**states, name: self.vodes[name].get("h")}
        states = {name: vode.get("h") for name, vode in self.vodes.items()}
        for name, vode in self.vodes.items():
            vode(self.prediction(name, states, seen))

    def prediction(self, target: str, states: dict[str, Array], seen: dict[str, Array]) -> Array:
        u: Array = self.biases[target].get()
        for source in states:
            if source != target:
                u += self.edges[f"{source} to {target}"](seen.get(source, 1.0) * jnp.tanh(states[source]))
        return u


def nodes_of(split: Split) -> Known:
    upper, lower = np.array_split(split.vectors, 2, axis=1)
    return {"upper": upper, "lower": lower, "label": split.targets}


def train(known: Known, seed: int, options: argparse.Namespace) -> Graph:
    """A graph that has learned, each time from some of what is known."""
    choice = np.random.default_rng(seed)
    sizes = {"hidden": options.hidden} | {name: states.shape[1] for name, states in known.items()}
    model = Graph(sizes, px.RandomKeyGenerator(seed))
    clamp(known, model)
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    weights = pxu.Optim(optax.adamw(options.lr_weights, weight_decay=0.01), pxl.WEIGHTS(model))
    algorithm = pxl.PC(options.steps)
    for batch in batches(len(known["label"]), seed, options):
        subsets = SUBSETS[choice.integers(len(SUBSETS), size=len(batch))]
        seen = {name: subsets[:, [number]] for number, name in enumerate(known)}
        x = {name: states[batch] for name, states in known.items()}, seen
        algorithm(x, None, model=model, nodes=nodes, weights=weights).check()
    return model


def clamp(known: Known, model: Graph) -> None:
    for name, vode in model.vodes.items():
        vode.h.frozen = name in known


def infer(known: Known, model: Graph, options: argparse.Namespace) -> Known:
    """The states of all nodes, with the known ones clamped."""
    clamp(known, model)
    size = len(next(iter(known.values())))
    x = known, {name: np.zeros((size, 1), np.float32) for name in ("upper", "lower", "label") if name not in known}
    pxl.initialise(x, model=model)
    pxl.infer(x, options.test_steps, model=model, optim=pxu.Optim(optax.sgd(options.lr_nodes)))
    return {name: np.asarray(vode.h) for name, vode in model.vodes.items()}


def hopfield(memories: Values, upper: Values, beta: float) -> Values:
    """What a modern Hopfield network makes of the upper half: its memories, by how much they resemble it."""
    size = upper.shape[1]
    return np.asarray(jax.nn.softmax(beta * upper @ memories[:, :size].T, axis=1) @ memories[:, size:])


def compare(data: Dataset, options: argparse.Namespace) -> None:
    """The uses of one graph, and completion by others."""
    known, test = nodes_of(data.train), nodes_of(data.test)
    means = np.stack([data.train.vectors[data.train.labels == label].mean(0) for label in range(10)])
    rows: dict[str, Values] = {"image": data.test.vectors, "upper half": np.c_[test["upper"], 0 * test["lower"] - 1]}
    print(f"{data.name}: {len(data.train.images)} images to learn, {len(data.test.images)} to test")

    def error(lower: Values) -> float:
        return float(np.mean((lower - test["lower"]) ** 2))

    def score(seed: int) -> Scores:
        model = train(known, seed, options)
        labels = infer({name: test[name] for name in ("upper", "lower")}, model, options)["label"]
        made = infer({"label": np.eye(10, dtype=np.float32)}, model, options)
        images = np.c_[made["upper"], made["lower"]]
        completed = infer({"upper": test["upper"]}, model, options)["lower"]
        size = sum(param.size for param in px.tree_extract(model, filter_fn=lambda p: isinstance(p, pxnn.LayerParam)))
        stored = np.random.default_rng(seed).permutation(len(data.train.images))[: size // data.train.vectors.shape[1]]
        recalled = [hopfield(data.train.vectors[stored], test["upper"], 0.1 * 1.5**power) for power in range(10)]
        best = min(recalled, key=error)
        for name, halves in (("by the graph", completed), ("by Hopfield", best)):
            rows.setdefault(name, np.c_[test["upper"], halves])
        rows.setdefault("from the label", images)
        return {
            "test accuracy in %": 100 * float(np.mean(labels.argmax(axis=1) == data.test.labels)),
            "distance of images from labels to the average ones": float(np.mean((images - means) ** 2)),
            "error of the lower half, graph": error(completed),
            f"error of the lower half, Hopfield network of {len(stored)} images": error(best),
            "error of the lower half, average image": error(known["lower"].mean(0)),
        }

    over_seeds(score, options)
    draw_rows(rows, data.train.images.shape[1:], options.out / "graph.png")


if __name__ == "__main__":
    options = parser(__doc__, epochs=120, steps=3, batch_size=64, lr_weights=3e-3, lr_nodes=0.01)
    options.add_argument("--hidden", type=int, default=64, help="size of the hidden node")
    options.add_argument("--test-steps", type=int, default=300, help="inference steps to use the graph")
    options.add_argument("--seeds", type=int, default=1, help="how many graphs to train")
    run(compare, options)

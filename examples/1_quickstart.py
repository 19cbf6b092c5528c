"""A predictive coding network with shared weights learns to read digits.

The network is 64-128-128-128-10 on scikit-learn's digits (784-... on MNIST or Fashion-MNIST, with --data). Its hidden
layers 2 and 3 are one weight matrix, through `shared`. Run it with --help to see what can be changed.
"""

import argparse

import jax
import optax
from data import Dataset
from jax import Array
from training import Progress, parser, run

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


class Model(pxc.EnergyModule):
    """Linear layers with a value node after each; layers 2 and 3 share their weights."""

    def __init__(self, inputs: int, hidden: int, outputs: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        second = pxnn.Linear(hidden, hidden, rkg=rkg)
        self.layers = [
            pxnn.Linear(inputs, hidden, rkg=rkg),
            second,
            pxnn.shared(second),
            pxnn.Linear(hidden, outputs, rkg=rkg),
        ]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True  # the output is observed, not inferred

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jax.nn.gelu(layer(x)))
        output = self.vodes[-1]
        output(self.layers[-1](x))
        if y is not None:
            output.set("h", y)
        prediction: Array = output.get("u")
        return prediction


def train(data: Dataset, options: argparse.Namespace) -> None:
    """The training loop: this is the page to copy."""
    images, targets = data.train.vectors, data.train.targets
    test_images, test_targets = data.test.vectors, data.test.targets
    model = Model(images.shape[1], options.hidden, 10, px.RandomKeyGenerator(options.seed))
    weights = pxu.Optim(optax.adamw(options.lr_weights), pxl.WEIGHTS(model))
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    algorithm = pxl.PC(options.steps)
    print(f"{data.name}: {len(images)} images to learn, {len(test_images)} to test; on {jax.devices()[0]}")

    progress = Progress(len(images), options)
    progress.tested(pxl.accuracy(test_images, data.test.labels, model))
    for _ in range(options.epochs):
        for batch in progress.batches():
            report = algorithm(images[batch], targets[batch], model=model, nodes=nodes, weights=weights)
            progress.trained(report)
        progress.tested(pxl.accuracy(test_images, data.test.labels, model))

    # The energy while the nodes of one batch settle.
    x, y = test_images[: options.batch_size], test_targets[: options.batch_size]
    pxl.initialise(x, y, model=model)
    energies = pxl.infer(x, 4 * options.steps, model=model, optim=nodes)
    tied = model.layers[1].nn.weight is model.layers[2].nn.weight
    print(f"layers 2 and 3 hold the same weight: {tied}")
    progress.finish(energies, options.out / "quickstart.png")


if __name__ == "__main__":
    options = parser(__doc__, epochs=30, steps=8, batch_size=64, lr_weights=1e-3, lr_nodes=0.02)
    options.add_argument("--hidden", type=int, default=128, help="size of the hidden layers")
    run(train, options)

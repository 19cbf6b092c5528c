"""A predictive coding network with shared weights learns to read digits.

The network is 64-128-128-128-10 on scikit-learn's digits (784-... on MNIST or Fashion-MNIST, with --data). Its hidden
layers 2 and 3 are one weight matrix, through `shared`. Run it with --help to see what can be changed.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
from data import DataError, Dataset, Split, load
from jax import Array
from jaxtyping import Float32
from matplotlib.figure import Figure
from tqdm import tqdm

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


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="folder with the four gzipped IDX files of (Fashion-)MNIST")
    parser.add_argument("--epochs", type=int, default=30, help="how often to go through the training set")
    parser.add_argument("--steps", type=int, default=8, help="T, the inference steps for each batch")
    parser.add_argument("--batch-size", type=int, default=64, help="images for each update of the weights")
    parser.add_argument("--hidden", type=int, default=128, help="size of the hidden layers")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of images")
    parser.add_argument("--lr-weights", type=float, default=1e-3, help="learning rate of the weights (AdamW)")
    parser.add_argument("--lr-nodes", type=float, default=0.02, help="learning rate of the value nodes (SGD)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    for name in ("epochs", "steps", "batch_size", "hidden", "lr_weights", "lr_nodes"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected a positive number, found {getattr(options, name)}")
    return options


def main() -> None:
    """Trains the network, and says how well it does."""
    options = arguments()
    try:
        data = load(options.data)
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if options.batch_size > len(data.train.images):
        print(f"expected --batch-size of at most {len(data.train.images)}, found {options.batch_size}", file=sys.stderr)
        sys.exit(2)
    train(data, options)


def flat(split: Split) -> tuple[Float32[np.ndarray, "samples pixels"], Float32[np.ndarray, "samples 10"]]:
    """Images as vectors, and labels as one-hot targets."""
    return split.images.reshape(len(split.images), -1), np.eye(10, dtype=np.float32)[split.labels]


def train(data: Dataset, options: argparse.Namespace) -> None:
    """The training loop: this is the page to copy."""
    images, targets = flat(data.train)
    test_images, test_targets = flat(data.test)
    model = Model(images.shape[1], options.hidden, 10, px.RandomKeyGenerator(options.seed))
    weights = pxu.Optim(optax.adamw(options.lr_weights), pxl.WEIGHTS(model))
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    algorithm = pxl.PC(options.steps)
    print(f"{data.name}: {len(images)} images to learn, {len(test_images)} to test; on {jax.devices()[0]}")

    order = np.random.default_rng(options.seed)
    accuracies = [pxl.accuracy(test_images, data.test.labels, model)]
    print(f"before training: test accuracy {accuracies[-1]:.2%}")
    seconds = []
    for epoch in range(1, options.epochs + 1):
        start = time.perf_counter()
        whole = len(images) - len(images) % options.batch_size
        batches = order.permutation(len(images))[:whole].reshape(-1, options.batch_size)
        with tqdm(batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None) as progress:
            for batch in progress:
                energies = algorithm(images[batch], targets[batch], model=model, nodes=nodes, weights=weights)
                if progress.n % 20 == 0:  # looking at a number waits for the device
                    progress.set_postfix(energy=f"{energies[-1]:.4f}", accuracy=f"{accuracies[-1]:.2%}")
        accuracies.append(pxl.accuracy(test_images, data.test.labels, model))
        seconds.append(time.perf_counter() - start)
        print(f"epoch {epoch}: test accuracy {accuracies[-1]:.2%}, {seconds[-1]:.2f} s")
    print(f"{1e3 * min(seconds) / len(batches):.2f} ms per batch of {options.batch_size}, in the fastest epoch")

    # The energy while the nodes of one batch settle.
    x, y = test_images[: options.batch_size], test_targets[: options.batch_size]
    pxl.initialise(x, y, model=model)
    energies = pxl.infer(x, 4 * options.steps, model=model, optim=nodes)
    tied = model.layers[1].nn.weight is model.layers[2].nn.weight
    print(f"energy of a test batch over {len(energies)} steps: {energies[0]:.4f} to {energies[-1]:.4f}")
    print(f"layers 2 and 3 hold the same weight: {tied}")
    picture = plot(energies, accuracies, options.out)
    print(f"wrote {picture}")


def plot(energies: Array, accuracies: list[float], folder: Path) -> Path:
    """Draws the energy over inference steps, and the accuracy over epochs."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(np.asarray(energies), marker=".")
    left.set(title="inference on one batch", xlabel="step", ylabel="energy per sample")
    right.plot([100 * accuracy for accuracy in accuracies], marker=".")
    right.set(title="learning", xlabel="epoch", ylabel="test accuracy, %")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "quickstart.png"
    figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    main()

"""Four predictive coding networks that share weights, each beside the same network with weights of its own.

    autoencoder   the decoder uses the encoder's weights, transposed
    recurrent     one cell reads an image row by row
    siamese       two images go through one set of convolutions: are they of the same class?
    partial       two layers share a weight but not their biases, or all biases but no weight

Each part learns scikit-learn's digits, or, with --data, MNIST or Fashion-MNIST; it says how many parameters there are
and how well the networks do, and draws what they learned. On images larger than the digits, the autoencoder needs
--lr-nodes 0.02 for its inference to settle. Run it with --help to see what can be changed.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import Dataset, Split
from jax import Array
from jaxtyping import Float, Float32
from matplotlib.figure import Figure
from training import Progress, parser, run

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

# What a network learns from in one epoch: samples, and their targets.
Samples = tuple[Float32[np.ndarray, "samples ..."], Float32[np.ndarray, "samples targets"]]
Matrices = dict[str, Float[np.ndarray, "count rows columns"]]
ACCURACY = "test accuracy {:.2%}"
AnyModel = TypeVar("AnyModel", bound=pxl.Model)


class Autoencoder(pxc.EnergyModule):
    """pixels - hidden - code - hidden - pixels; if tied, the second half has the weights of the first, transposed."""

    def __init__(self, pixels: int, hidden: int, tied: bool, seed: int) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        self.encoder = [pxnn.Linear(a, b, rkg=rkg) for a, b in pairwise((pixels, hidden, max(1, hidden // 4)))]
        self.decoder = [
            pxnn.Transposed(layer, rkg=rkg) if tied else pxnn.Linear(layer.out_features, layer.in_features, rkg=rkg)
            for layer in reversed(self.encoder)
        ]
        self.vodes = [pxc.Vode() for _ in range(4)]
        self.vodes[-1].h.frozen = True  # the output, the image itself, is observed

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        layers: list[pxnn.Linear | pxnn.Transposed] = [*self.encoder, *self.decoder]
        for layer, vode in zip(layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jnp.tanh(layer(x)))
        return observe(self.vodes[-1], layers[-1](x), y)


def autoencoder(data: Dataset, options: argparse.Namespace) -> Matrices:
    images, test_images = data.train.vectors, data.test.vectors
    tied, untied = (Autoencoder(images.shape[1], options.hidden, is_tied, options.seed) for is_tied in (True, False))

    def error(model: Autoencoder) -> float:
        return float(jnp.mean((pxl.predict(test_images, model) - test_images) ** 2))

    score = "reconstruction error per pixel {:.4f}"
    compare({"tied": tied, "untied": untied}, lambda epoch: (images, images), error, score, options)
    shown, filters = test_images[:10], [np.asarray(model.encoder[0].nn.weight)[:10] for model in (tied, untied)]
    rows = {
        "test images": shown,
        "tied": np.asarray(pxl.predict(shown, tied)),
        "untied": np.asarray(pxl.predict(shown, untied)),
        "filters, tied": filters[0],
        "filters, untied": filters[1],
    }
    return {name: row.reshape(len(row), *data.train.images.shape[1:]) for name, row in rows.items()}


class Cell(px.Module):
    """h' = tanh(W [x, h] + b)."""

    def __init__(self, inputs: int, hidden: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.linear = pxnn.Linear(inputs + hidden, hidden, rkg=rkg)

    def __call__(self, x: Array, h: Array) -> Array:
        return jnp.tanh(self.linear(jnp.concatenate([x, h])))


class Recurrent(pxc.EnergyModule):
    """Reads a sequence, with a cell and a value node for each step; if tied, the cells are one."""

    def __init__(self, steps: int, inputs: int, hidden: int, tied: bool, seed: int) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        cell = Cell(inputs, hidden, rkg)
        self.cells = [cell, *(pxnn.shared(cell) if tied else Cell(inputs, hidden, rkg) for _ in range(steps - 1))]
        self.vodes = [pxc.Vode() for _ in self.cells]
        self.readout = pxnn.Linear(hidden, 10, rkg=rkg)
        self.output = pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        h = jnp.zeros(self.readout.in_features)
        for row, cell, vode in zip(x, self.cells, self.vodes, strict=True):
            h = vode(cell(row, h))
        return observe(self.output, self.readout(h), y)


def recurrent(data: Dataset, options: argparse.Namespace) -> Matrices:
    images, targets = data.train.images, data.train.targets
    _, steps, inputs = images.shape
    tied, untied = (Recurrent(steps, inputs, options.hidden, is_tied, options.seed) for is_tied in (True, False))

    def accuracy(model: Recurrent) -> float:
        return pxl.accuracy(data.test.images, data.test.labels, model)

    compare({"tied": tied, "untied": untied}, lambda epoch: (images, targets), accuracy, ACCURACY, options)
    return {
        f"{name}, W of the first steps": np.stack([np.asarray(cell.linear.nn.weight)[:16, :inputs] for cell in cells])
        for name, cells in (("tied", tied.cells[:8]), ("untied", untied.cells[:8]))
    }


class Branch(pxc.EnergyModule):
    """From an image to a vector: two convolutions with pooling and a linear layer, with a value node after each."""

    def __init__(self, height: int, width: int, channels: int, features: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.convolutions = [
            pxnn.Conv2d(1, channels, 3, padding=1, rkg=rkg),
            pxnn.Conv2d(channels, 2 * channels, 3, padding=1, rkg=rkg),
        ]
        self.pool = pxnn.MaxPool2d(2, 2)
        self.linear = pxnn.Linear(2 * channels * (height // 4) * (width // 4), features, rkg=rkg)
        self.vodes = [pxc.Vode() for _ in range(3)]

    def __call__(self, x: Array) -> Array:
        for convolution, vode in zip(self.convolutions, self.vodes[:-1], strict=True):
            x = vode(self.pool(jax.nn.gelu(convolution(x))))
        return self.vodes[-1](self.linear(x.ravel()))


class Siamese(pxc.EnergyModule):
    """Compares two images: 1 if they are of the same class, else -1. If tied, both go through the same weights."""

    def __init__(self, height: int, width: int, features: int, tied: bool, seed: int) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        self.left = Branch(height, width, 8, features, rkg)
        # What is shared are the weights: the second image has value nodes of its own.
        self.right = pxnn.shared(self.left, pxnn.LayerParam) if tied else Branch(height, width, 8, features, rkg)
        self.head = pxnn.Linear(features, 1, rkg=rkg)
        self.output = pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return observe(self.output, self.head(jnp.abs(self.left(x[0]) - self.right(x[1]))), y)


def pairs(split: Split, rng: np.random.Generator) -> Samples:
    """Each image with another one, of the same class for about half of them; and what is to be said of them."""
    same = rng.random(len(split.labels)) < 0.5
    classes = np.where(same, split.labels, (split.labels + rng.integers(1, 10, len(same))) % 10)
    others = np.zeros(len(same), int)
    for label in np.unique(split.labels):
        others[classes == label] = rng.choice(np.flatnonzero(split.labels == label), np.sum(classes == label))
    return (
        np.stack([split.images, split.images[others]], axis=1)[:, :, None],
        np.where(split.labels == split.labels[others], 1, -1).astype(np.float32)[:, None],
    )


def siamese(data: Dataset, options: argparse.Namespace) -> Matrices:
    test_pairs, test_targets = pairs(data.test, np.random.default_rng(0))
    height, width = test_pairs.shape[3:]
    tied, untied = (Siamese(height, width, options.hidden, is_tied, options.seed) for is_tied in (True, False))

    def samples(epoch: int) -> Samples:
        return pairs(data.train, np.random.default_rng((options.seed, epoch)))

    def accuracy(model: Siamese) -> float:
        parts = [slice(start, start + 500) for start in range(0, len(test_pairs), 500)]  # all would fill the memory
        return float(np.mean(np.concatenate([pxl.predict(test_pairs[p], model) * test_targets[p] > 0 for p in parts])))

    compare({"tied": tied, "untied": untied}, samples, accuracy, ACCURACY, options)
    branches = {"tied, both": tied.left, "untied, first": untied.left, "untied, second": untied.right}
    return {name: np.asarray(branch.convolutions[0].nn.weight)[:, 0] for name, branch in branches.items()}


class Partial(pxc.EnergyModule):
    """Linear layers with a value node after each; layers 2 and 3 have one weight, or layers 1 to 3 have one bias."""

    def __init__(self, pixels: int, hidden: int, what: str, seed: int) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        self.layers = [pxnn.Linear(a, b, rkg=rkg) for a, b in pairwise((pixels, hidden, hidden, hidden, 10))]
        first, second, third, _ = (layer.nn for layer in self.layers)
        if what == "weight":
            third.weight = second.weight
        elif what == "bias":
            third.bias = second.bias = first.bias
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jax.nn.gelu(layer(x)))
        return observe(self.vodes[-1], self.layers[-1](x), y)


def partial(data: Dataset, options: argparse.Namespace) -> Matrices:
    images, targets, test_images = data.train.vectors, data.train.targets, data.test.vectors
    models = {
        f"one {what}" if what else "untied": Partial(images.shape[1], options.hidden, what, options.seed)
        for what in ("weight", "bias", "")
    }

    def accuracy(model: Partial) -> float:
        return pxl.accuracy(test_images, data.test.labels, model)

    compare(models, lambda epoch: (images, targets), accuracy, ACCURACY, options)
    return {
        f"{name}, W of layers 2, 3": np.stack([layer.nn.weight.get()[:32, :32] for layer in model.layers[1:3]])
        for name, model in models.items()
    }


def compare(
    models: dict[str, AnyModel],
    samples: Callable[[int], Samples],
    test: Callable[[AnyModel], float],
    score: str,
    options: argparse.Namespace,
) -> None:
    """Trains the models, one after the other, with new samples in each epoch, and sums up."""
    # JAX on CPUs runs convolutions in loops many times slower than outside.
    algorithm = pxl.PC(options.steps, unroll=options.part == "siamese" and jax.default_backend() == "cpu")
    results: list[str] = []
    for name, model in models.items():
        print(f"{name}:")
        for first, others in pxnn.shared_params(model).items():
            print(f"  {first} is also {', '.join(others[:2])}{', ...' if others[2:] else ''}")
        weights = pxu.Optim(optax.adamw(options.lr_weights), pxl.WEIGHTS(model))
        nodes = pxu.Optim(optax.sgd(options.lr_nodes))
        progress = Progress(len(samples(0)[0]), options, score)
        progress.tested(test(model))
        for epoch in range(options.epochs):
            inputs, targets = samples(epoch)
            for batch in progress.batches():
                progress.trained(algorithm(inputs[batch], targets[batch], model=model, nodes=nodes, weights=weights))
            progress.tested(test(model))
        count = sum(px.tree_extract(pxl.WEIGHTS(model), extract_fn=lambda param: param.size))
        results.append(f"{name:9} {count:9,} parameters, {score.format(progress.scores[-1])}")
    print("\n".join(results))


def observe(output: pxc.Vode[pxc.VodeParam], u: Array, y: Array | None) -> Array:
    """Gives the output node its prediction and, in training, the target."""
    prediction: Array = output(u, output="u")
    if y is not None:
        output.set("h", y)
    return prediction


def draw(rows: Matrices, picture: Path) -> None:
    """A row of matrices for each name, as grey images, all of a row on one scale."""
    columns = max(len(row) for row in rows.values())
    figure = Figure(figsize=(1 + columns, 1.3 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, row) in zip(grid, rows.items(), strict=True):
        axes[0].set_title(name, loc="left", fontsize="small")
        for each, matrix in zip(axes, row, strict=False):
            each.imshow(matrix, cmap="gray", vmin=row.min(), vmax=row.max())
        for each in axes:
            each.axis("off")
    figure.savefig(picture, dpi=150)
    print(f"wrote {picture}")


def main(data: Dataset, options: argparse.Namespace) -> None:
    print(f"{data.name}: {len(data.train.images)} images to learn, {len(data.test.images)} to test")
    draw(PARTS[options.part](data, options), options.out / f"sharing_{options.part}.png")


PARTS = {part.__name__: part for part in (autoencoder, recurrent, siamese, partial)}

if __name__ == "__main__":
    options = parser(__doc__, epochs=30, steps=16, batch_size=64, lr_weights=1e-3, lr_nodes=0.1)
    options.add_argument("part", choices=PARTS, help="which of the networks")
    options.add_argument("--hidden", type=int, default=64, help="size of the hidden layers")
    run(main, options)

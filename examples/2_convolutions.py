"""A convolutional predictive coding network, VGG-5 or AlexNet, learns to recognise images.

VGG-5 has four 3 × 3 convolutions, of 128, 256, 512 and 512 channels divided by --scale, each followed by a 2 × 2
max-pooling as long as the image is large enough, and a linear layer. AlexNet, here with 3 × 3 kernels as its images are
small, has five convolutions, of which three are pooled, and three linear layers. As it is deep, it wants other rates:
`--network alexnet --scale 16 --lr-nodes 0.1 --lr-weights 0.001 --epochs 20` recognises 89 % of the digits. They learn
scikit-learn's digits, or, with --data, MNIST or Fashion-MNIST. Run it with --help to see what can be changed.
"""

import argparse
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
import optax
from data import Dataset, Split
from jax import Array
from jaxtyping import Float32, Int
from training import Progress, parser, run

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


class Architecture(NamedTuple):
    """The sizes of a network, before --scale divides them."""

    channels: tuple[int, ...]
    pooled: tuple[bool, ...]
    hidden: tuple[int, ...]  # the linear layers before the last


ARCHITECTURES = {
    "vgg5": Architecture((128, 256, 512, 512), (True, True, True, True), ()),
    "alexnet": Architecture((96, 256, 384, 384, 256), (True, True, False, False, True), (4096, 4096)),
}


class Model(pxc.EnergyModule):
    """Blocks of convolution, pooling and activation, and then linear layers, with a value node after each."""

    def __init__(
        self, sizes: Architecture, height: int, width: int, scale: int, outputs: int, rkg: px.RandomKeyGenerator
    ) -> None:
        super().__init__()
        self.convolutions: list[pxnn.Conv2d] = []
        self.pools: list[pxnn.MaxPool2d] = []
        inputs = 1
        for full, pooled in zip(sizes.channels, sizes.pooled, strict=True):
            channels = max(1, full // scale)
            window = 2 if pooled and min(height, width) > 1 else 1
            self.convolutions.append(pxnn.Conv2d(inputs, channels, 3, padding=1, rkg=rkg))
            self.pools.append(pxnn.MaxPool2d(window, window))
            inputs, height, width = channels, height // window, width // window
        hidden = [max(1, full // scale) for full in sizes.hidden]
        self.linears = [pxnn.Linear(*pair, rkg=rkg) for pair in pairwise([inputs * height * width, *hidden, outputs])]
        self.vodes = [pxc.Vode() for _ in self.convolutions]
        self.hidden = [pxc.Vode() for _ in hidden]
        self.output = pxc.Vode()
        self.output.h.frozen = True  # the output is observed, not inferred

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for convolution, pool, vode in zip(self.convolutions, self.pools, self.vodes, strict=True):
            x = vode(jax.nn.gelu(pool(convolution(x))))  # in this order gelu is computed a quarter as often
        x = x.ravel()
        for linear, vode in zip(self.linears[:-1], self.hidden, strict=True):
            x = vode(jax.nn.gelu(linear(x)))
        self.output(self.linears[-1](x))
        if y is not None:
            self.output.set("h", y)
        prediction: Array = self.output.get("u")
        return prediction


def train(data: Dataset, options: argparse.Namespace) -> None:
    """The training loop."""
    images, targets = with_channel(data.train)
    test_images, test_targets = with_channel(data.test)
    _, _, height, width = images.shape
    sizes, rkg = ARCHITECTURES[options.network], px.RandomKeyGenerator(options.seed)
    model = Model(sizes, height, width, options.scale, 10, rkg)
    updates = options.epochs * (len(images) // options.batch_size)
    decaying = optax.cosine_decay_schedule(options.lr_weights, updates)
    weights = pxu.Optim(optax.adamw(decaying), pxl.WEIGHTS(model))
    nodes = pxu.Optim(optax.sgd(options.lr_nodes))
    unroll = jax.default_backend() == "cpu"  # where JAX runs convolutions in loops many times slower than outside
    algorithm = pxl.PC(options.steps, unroll)
    print(f"{data.name}: {len(images)} images to learn, {len(test_images)} to test; on {jax.devices()[0]}")
    print(f"channels: {', '.join(str(convolution.out_channels) for convolution in model.convolutions)}")

    progress = Progress(len(images), options)
    progress.tested(accuracy(test_images, data.test.labels, model))
    for _ in range(options.epochs):
        for batch in progress.batches():
            report = algorithm(images[batch], targets[batch], model=model, nodes=nodes, weights=weights)
            progress.trained(report)
        progress.tested(accuracy(test_images, data.test.labels, model))

    x, y = test_images[: options.batch_size], test_targets[: options.batch_size]
    pxl.initialise(x, y, model=model)
    energies = pxl.infer(x, 4 * options.steps, unroll, model=model, optim=nodes)
    progress.finish(energies, options.out / "convolutions.png")


def with_channel(
    split: Split,
) -> tuple[Float32[np.ndarray, "samples 1 height width"], Float32[np.ndarray, "samples 10"]]:
    """Images with their one channel, and labels as one-hot targets."""
    return split.images[:, None], split.targets


def accuracy(
    images: Float32[np.ndarray, "samples 1 height width"], labels: Int[np.ndarray, " samples"], model: Model
) -> float:
    """The share of images that are recognised; in parts, because the states of ten thousand would fill the memory."""
    parts = [slice(start, start + 500) for start in range(0, len(images), 500)]
    return sum(pxl.accuracy(images[part], labels[part], model) * len(labels[part]) for part in parts) / len(images)


if __name__ == "__main__":
    options = parser(__doc__, epochs=10, steps=8, batch_size=64, lr_weights=3e-3, lr_nodes=0.05)
    options.add_argument("--scale", type=int, default=8, help="what the sizes of layers are divided by")
    options.add_argument("--network", choices=ARCHITECTURES, default="vgg5", help="which network to train")
    run(train, options)

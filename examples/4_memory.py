"""An associative memory: a generative predictive coding network recalls images of which it sees only the upper half.

The network predicts images from latent states. Learning clamps whole images, and infers the states behind them. Recall
clamps the upper half: the pixels below get a precision of zero, so that they have no energy, and what the inferred
states predict for them is the memory. It stores scikit-learn's digits, or, with --data, MNIST or Fashion-MNIST.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import Dataset
from jax import Array
from jaxtyping import Float
from matplotlib.figure import Figure
from training import parser, run

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

Images = Float[np.ndarray, "images pixels"]


class Memory(pxc.EnergyModule):
    """Latent states, with a learned prior, predict hidden states, and these the image."""

    def __init__(self, latent: int, hidden: int, pixels: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.prior = pxnn.LayerParam(jnp.zeros(latent))
        self.layers = [pxnn.Linear(latent, hidden, rkg=rkg), pxnn.Linear(hidden, pixels, rkg=rkg)]
        self.latent, self.hidden, self.image = pxc.Vode(), pxc.Vode(), pxc.Vode()
        self.image.h.frozen = True  # what is seen is not inferred

    def __call__(self, visible: Array, image: Array | None = None) -> Array:
        z = self.latent(self.prior.get())
        h = self.hidden(jnp.tanh(self.layers[0](z)))
        prediction: Array = self.image(self.layers[1](jnp.tanh(h)), precision=visible, output="u")
        if image is not None:
            self.image.set("h", image)
        return prediction


def recall(visible: Images, images: Images, model: Memory, nodes: pxu.Optim, steps: int) -> tuple[Images, Array]:
    """What the network makes of the visible pixels, and the energy of every step."""
    pxl.initialise(visible, images, model=model)
    energies = pxl.infer(visible, steps, model=model, optim=nodes)
    hidden = model.hidden.h.get()
    recalled = jax.vmap(model.layers[1])(jnp.tanh(hidden))
    return np.asarray(recalled), energies


def train(data: Dataset, options: argparse.Namespace) -> None:
    """Stores images, and recalls them."""
    _, height, width = data.train.images.shape
    images = data.train.images[: options.memories].reshape(-1, height * width)
    model = Memory(options.latent, options.hidden, height * width, px.RandomKeyGenerator(options.seed))
    nodes = pxu.Optim(optax.sgd(options.lr_nodes, momentum=0.5))
    weights = pxu.Optim(optax.adamw(options.lr_weights, weight_decay=0.01), pxl.WEIGHTS(model))
    algorithm = pxl.PC(options.steps)
    everything = np.ones_like(images)
    upper = everything * (np.arange(height * width) < height // 2 * width)
    print(f"{data.name}: {len(images)} images to store; on {jax.devices()[0]}")

    order = np.random.default_rng(options.seed)
    for epoch in range(1, options.epochs + 1):
        batches = np.array_split(order.permutation(len(images)), max(1, len(images) // options.batch_size))
        *_, report = (
            algorithm(everything[batch], images[batch], model=model, nodes=nodes, weights=weights) for batch in batches
        )
        report.check()
        if epoch % max(1, options.epochs // 10) == 0:
            print(f"epoch {epoch}: energy {report.energies[0]:.3f} before inference, {report.energies[-1]:.3f} after")

    seen = np.where(upper == 1, images, 0)
    recalled, energies = recall(upper, seen, model, nodes, 10 * options.steps)
    lower = upper[0] == 0
    error = np.mean((recalled - images)[:, lower] ** 2)
    guess = np.mean((images - images.mean(0))[:, lower] ** 2)
    print(f"energy of recall over {len(energies)} steps: {energies[0]:.3f} to {energies[-1]:.3f}")
    print(f"mean squared error of the hidden pixels: {error:.4f}; of the average image: {guess:.4f}")
    picture = draw([images, np.where(upper == 1, images, -1), recalled], (height, width), options.out / "memory.png")
    print(f"wrote {picture}")


def draw(rows: list[Images], shape: tuple[int, int], picture: Path) -> Path:
    """A picture of what was stored, seen and recalled."""
    count = min(10, len(rows[0]))
    figure = Figure(figsize=(count, 3.4), layout="constrained")
    for axes_of_row, images, name in zip(figure.subplots(3, count), rows, ("stored", "seen", "recalled"), strict=True):
        for axes, image in zip(np.atleast_1d(axes_of_row), images, strict=False):
            axes.imshow(image.reshape(shape), cmap="gray", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
        np.atleast_1d(axes_of_row)[0].set_ylabel(name)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)
    return picture


if __name__ == "__main__":
    options = parser(__doc__, epochs=200, steps=30, batch_size=20, lr_weights=1e-3, lr_nodes=0.02)
    options.add_argument("--memories", type=int, default=60, help="how many images to store")
    options.add_argument("--latent", type=int, default=64, help="size of the latent states")
    options.add_argument("--hidden", type=int, default=256, help="size of the hidden states")
    run(train, options)

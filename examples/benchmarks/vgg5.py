"""What a training step of VGG-5 costs: predictive coding (T = 7) against backpropagation, on images like CIFAR-10's.

It is meant for a GPU. There JAX_DEFAULT_MATMUL_PRECISION=float32, tensorfloat32 or bfloat16 in the environment says how
exact products are, and the last energy what that changes. With --busy it tells for how much of the time the device is
busy: how long a step takes among many in one program, where it never waits for Python, relative to one that is called.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from timing import interleaved, report

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

IMAGE = (3, 32, 32)
CHAINED = 5  # steps in one program


class VGG5(pxc.EnergyModule):
    """Four blocks of convolution, pooling and gelu, and a linear layer, with a value node after each."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(0)
        channels = [IMAGE[0], *(full // scale for full in (128, 256, 512, 512))]
        self.convolutions = [pxnn.Conv2d(before, after, 3, padding=1, rkg=rkg) for before, after in pairwise(channels)]
        self.pool = pxnn.MaxPool2d(2, 2)
        self.linear = pxnn.Linear(channels[-1] * 2 * 2, 10, rkg=rkg)
        self.vodes = [pxc.Vode() for _ in self.convolutions]
        self.output = pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for convolution, vode in zip(self.convolutions, self.vodes, strict=True):
            x = vode(jax.nn.gelu(self.pool(convolution(x))))
        prediction: Array = self.output(self.linear(x.ravel()), output="u")
        if y is not None:
            self.output.set("h", y)
        return prediction


class Steps(NamedTuple):
    """Training steps of one model: one, and as many as CHAINED in one program. They return the energies."""

    one: Callable[[], Array]
    chained: Callable[[], Array]


def steps(algorithm: pxl.Algorithm, model: pxl.Model, x: Array) -> Steps:
    """Steps of a model with ten classes, always on the same batch."""
    y = jax.nn.one_hot(jnp.arange(len(x)) % 10, 10)
    nodes, weights = pxu.Optim(optax.sgd(0.01)), pxu.Optim(optax.adamw(1e-4), pxl.WEIGHTS(model))

    def step(_: None, /, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> tuple[tuple[()], Array]:
        return (), algorithm(x, y, model=model, nodes=nodes, weights=weights).energies

    program = pxf.jit(pxf.scan(step, length=CHAINED))
    return Steps(
        lambda: step(None, model=model, nodes=nodes, weights=weights)[1],
        lambda: program(model=model, nodes=nodes, weights=weights)[1],
    )


def contestants(batch: int, inference: int, scale: int) -> dict[str, Steps]:
    """Steps of PC, with so many steps of inference, and of backpropagation, each with a model of its own."""
    x = jax.random.normal(jax.random.PRNGKey(0), (batch, *IMAGE))
    unroll = jax.default_backend() == "cpu"  # where JAX runs convolutions in loops many times slower than outside
    algorithms = {"PC": pxl.PC(inference, unroll), "backpropagation": pxl.Backprop()}
    return {name: steps(algorithm, VGG5(scale), x) for name, algorithm in algorithms.items()}


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--steps", type=int, default=7, help="T, of inference for each batch")
    parser.add_argument("--scale", type=int, default=1, help="what the numbers of channels are divided by")
    parser.add_argument("--rounds", type=int, default=25, help="rounds to take the median over")
    parser.add_argument("--busy", action="store_true", help="say for how much of the time the device is busy")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    trained = contestants(options.batch, options.steps, options.scale)
    times = interleaved({name: each.one for name, each in trained.items()}, options.rounds)
    for name, each in trained.items():
        print(f"{name}: energy {each.one()[-1]:.6f} after {options.rounds + 1} steps")
    if options.busy:
        chained = interleaved({name: each.chained for name, each in trained.items()}, options.rounds)
        for name, seconds in chained.items():
            print(f"{name}: the device is busy for {seconds / CHAINED / times[name]:.0%} of the time")
    row = f"T = {options.steps}, batch {options.batch}", times["backpropagation"], times["PC"]
    report("training step of VGG-5", [row], options.out / "vgg5.png", yardstick="backprop", measured="PC")


if __name__ == "__main__":
    main()

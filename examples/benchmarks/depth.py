"""What depth costs, and whether very deep networks train.

The time of a step of `PC`, of its first call, and its memory, against the number of layers: the hidden layers of a
residual network as a `Stack`, and as a list of the same blocks with a node after each. It prints a table, and draws the
times. Then μPC against the same network without its scalings, on an epoch of images: width 128, batches of 128, Adam
on the weights, at a rate that suits 8 layers. With μPC, the rate of the hidden layers falls with the root of the depth,
as Adam's steps do not shrink with the gradient. It learns by `EPC`, T = 8, SGD of rate 0.02 on errors: over states, an
error needs a step for every layer. It prints the test accuracy, and draws it over the depth.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from timing import interleaved
from training_step import memory

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset, load_or_exit  # beside the examples, one folder up

WIDTH, BATCH, STEPS, FEATURES, CLASSES = 128, 128, 8, 64, 10
CASES = {
    "μPC, tanh": (jax.numpy.tanh, True, 0.02),
    "μPC, relu": (jax.nn.relu, True, 0.02),
    "no scalings, tanh": (jax.numpy.tanh, False, 0.001),
    "no scalings, relu": (jax.nn.relu, False, 0.001),
}
Numbers = dict[str, float]


class Listed(pxc.EnergyModule):
    """A residual network of μPC whose hidden layers are a list."""

    def __init__(self, width: int, depth: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        scale = 1 / math.sqrt(width * depth)
        self.first, self.vode = pxl.ScaledLinear(FEATURES, width, 1 / math.sqrt(FEATURES), rkg), pxc.Vode()
        layers = [pxl.ScaledLinear(width, width, scale, rkg) for _ in range(depth - 2)]
        self.blocks = [pxl.ResidualBlock(layer, jnp.tanh) for layer in layers]
        self.vodes: list[pxc.Vode] = [pxc.Vode() for _ in layers]
        self.last, self.output = pxl.ScaledLinear(width, CLASSES, 1 / width, rkg), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        h = self.vode(self.first(x))
        for block, vode in zip(self.blocks, self.vodes, strict=True):
            h = vode(block(h))
        prediction: Array = self.output(self.last(jnp.tanh(h)), output="u")
        if y is not None:
            self.output.set("h", y)
        return prediction


class Step:
    """Repeats a training step on one batch, for a network with this many hidden layers."""

    def __init__(self, stacked: bool, width: int, batch: int, hidden: int, algorithm: pxl.Algorithm) -> None:
        rkg, self.algorithm, depth = px.RandomKeyGenerator(0), algorithm, hidden + 2
        self.model = (
            pxl.ResidualNetwork(FEATURES, width, CLASSES, depth, rkg=rkg) if stacked else Listed(width, depth, rkg)
        )
        self.nodes, self.weights = pxu.Optim(optax.sgd(0.05)), pxu.Optim(optax.sgd(0.01), pxl.WEIGHTS(self.model))
        self.x = jax.random.normal(jax.random.PRNGKey(0), (batch, FEATURES))
        self.y = jax.nn.one_hot(jnp.arange(batch) % CLASSES, CLASSES)

    def __call__(self) -> Array:
        report = self.algorithm(self.x, self.y, model=self.model, nodes=self.nodes, weights=self.weights)
        return report.energies

    def kilobytes(self) -> int:
        """The memory of the compiled step for what is neither input nor output."""
        algorithm = self.algorithm

        def whole(x: Array, y: Array, *, model: Any, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
            return algorithm(x, y, model=model, nodes=nodes, weights=weights)

        return memory(pxf.jit(whole), self.x, self.y, model=self.model, nodes=self.nodes, weights=self.weights)


def step_times(
    width: int,
    batch: int,
    layers: Sequence[int],
    longest_list: int,
    rounds: int,
    algorithm: pxl.Algorithm | None = None,
) -> Iterator[tuple[int, Numbers]]:
    """Yields, for each number of layers, the times of both networks, in seconds, and their memory, in kilobytes.

    Lists are left out where they are longer than `longest_list`, as they take long to compile.
    """
    for hidden in layers:
        kinds = {"stack": True} if hidden > longest_list else {"list": False, "stack": True}
        make = partial(Step, width=width, batch=batch, hidden=hidden, algorithm=algorithm or pxl.PC(STEPS))
        steps = {name: make(stacked) for name, stacked in kinds.items()}
        found: Numbers = {}
        for name, step in steps.items():
            start = time.perf_counter()
            step().block_until_ready()
            found[f"{name}, first"] = time.perf_counter() - start
        found |= interleaved(steps, rounds)
        yield hidden, found | {f"{name}, kB": step.kilobytes() for name, step in steps.items()}


def measure_steps(options: argparse.Namespace) -> None:
    """Prints the table of times, and draws them."""
    figure = Figure(figsize=(4 * len(options.widths), 4), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(options.widths), sharey=True, squeeze=False))
    print(f"a step of PC, T = {STEPS}, batch {options.batch}; jax {jax.__version__} on {jax.devices()[0].device_kind}")
    print("width  layers         list        stack  ratio   first: list  stack   memory: list  stack")
    for width, axes in zip(options.widths, panels, strict=True):
        rows = dict(step_times(width, options.batch, options.layers, options.longest_list, options.rounds))
        for hidden, found in rows.items():
            listed, stacked = found.get("list", math.nan), found["stack"]
            print(
                f"{width:5}  {hidden:6}  {1e3 * listed:8.2f} ms  {1e3 * stacked:8.2f} ms  {stacked / listed:5.2f}  "
                f"{found.get('list, first', math.nan):10.1f} s  {found['stack, first']:3.1f} s  "
                f"{found.get('list, kB', math.nan):9.0f} kB  {found['stack, kB']:.0f} kB"
            )
        for name in ("list", "stack"):
            known = {hidden: 1e3 * found[name] for hidden, found in rows.items() if name in found}
            axes.plot([*known], [*known.values()], marker="o", label=name)
        axes.set(title=f"width {width}", xlabel="layers", xscale="log", yscale="log")
    panels[0].set(ylabel="time of a step, ms")
    panels[0].legend()
    figure.savefig(options.out / "depth_time.png", dpi=150)
    print(f"wrote {options.out / 'depth_time.png'}")


def adam(rate: float, hidden_rate: float) -> optax.GradientTransformation:
    """Adam, with a rate of its own for the hidden layers."""
    return optax.multi_transform(
        {"hidden": optax.adam(hidden_rate), "first and last": optax.adam(rate)},
        lambda params: {path: "hidden" if path.startswith(".hidden") else "first and last" for path in params},
    )


def train(name: str, depth: int, seed: int, data: Dataset, images_used: int | None) -> float:
    """The test accuracy after one epoch of the images, or of the first few of them; that of guessing if it diverges."""
    act_fn, scaled, rate = CASES[name]
    images, targets = data.train.vectors[:images_used], data.train.targets
    rkg = px.RandomKeyGenerator(seed)
    model = pxl.ResidualNetwork(images.shape[1], WIDTH, CLASSES, depth, act_fn, scaled, rkg)
    weights = pxu.Optim(adam(rate, rate * math.sqrt(8 / depth) if scaled else rate), pxl.WEIGHTS(model))
    nodes, algorithm = pxu.Optim(optax.sgd(0.02)), pxl.EPC(STEPS)
    count = len(images) // BATCH
    batches = np.random.default_rng(seed).permutation(len(images))[: count * BATCH].reshape(count, BATCH)
    *_, report = (algorithm(images[n], targets[n], model=model, nodes=nodes, weights=weights) for n in batches)
    try:
        report.check()
    except FloatingPointError as error:
        print(f"{name}, {depth} layers, seed {seed}: {error}")
        return 0.1
    return pxl.accuracy(data.test.vectors, data.test.labels, model)


def measure_accuracies(options: argparse.Namespace, data: Dataset) -> None:
    """Prints the table of accuracies, and draws them."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in options.cases:
        means = []
        for depth in options.depths:
            start = time.perf_counter()
            accuracies = [100 * train(name, depth, seed, data, options.images) for seed in range(options.seeds)]
            means.append(np.mean(accuracies))
            seconds = (time.perf_counter() - start) / options.seeds
            print(f"{name:18}  {depth:4} layers: {means[-1]:5.2f} ± {np.std(accuracies):.2f} %, {seconds:.0f} s a run")
        axes.plot(options.depths, means, marker="o", label=name)
    axes.set(title="one epoch", xlabel="layers", ylabel="test accuracy, %", xscale="log")
    axes.legend()
    figure.savefig(options.out / "depth.png", dpi=150)
    print(f"wrote {options.out / 'depth.png'}")


def main() -> None:
    """Prints the tables and draws the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    times = parser.add_argument_group("times")
    times.add_argument("--layers", type=int, nargs="*", default=[1, 8, 32, 128, 512], help="numbers of hidden layers")
    times.add_argument("--longest-list", type=int, default=128, help="longer lists are not measured")
    times.add_argument("--widths", type=int, nargs="+", default=[16, 64, 256], help="of the layers")
    times.add_argument("--batch", type=int, default=32, help="samples in a batch")
    times.add_argument("--rounds", type=int, default=9, help="rounds to take the median over")
    training = parser.add_argument_group("training")
    training.add_argument("--data", type=Path, help="folder with the four gzipped IDX files; without it, the digits")
    training.add_argument(
        "--depths", type=int, nargs="*", default=[8, 32, 128], help="numbers of layers; none to skip it"
    )
    training.add_argument("--images", type=int, help="how many images to train on; without it, all")
    training.add_argument("--cases", nargs="+", choices=CASES, default=[*CASES], help="which networks")
    training.add_argument("--seeds", type=int, default=1, help="how many runs of each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.layers:
        measure_steps(options)
    if options.depths:
        measure_accuracies(options, load_or_exit(options.data))


if __name__ == "__main__":
    main()

"""How many steps does each algorithm need to bring the energy down, and how long does that take?

One multilayer perceptron, trained by every algorithm, each with the best of a few learning rates of weights (Adam) and
nodes (SGD). The energy is the squared error of the output after the forward pass, a mean over the samples and over the
batches of an epoch. It prints how many batches, and how many steps of inference, pass until it is below a goal, and the
time without compilation; and draws the energy against batches and seconds. Means and deviations over seeds.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from mlp import MLP

import minipcax.learning as pxl
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Split, load_or_exit  # beside the examples, one folder up

BATCH, STEPS, HIDDEN = 64, 8, [128, 128, 128]
WEIGHT_RATES = [3e-4, 1e-3, 3e-3, 1e-2]
NODE_RATES = [0.03, 0.1]


class Method(NamedTuple):
    """An algorithm for each epoch, the optimiser of its nodes by rate, and its steps of inference for each batch."""

    algorithm: Callable[[int], pxl.Algorithm]
    nodes: Callable[[float], optax.GradientTransformation] = optax.sgd
    steps: int = STEPS
    node_rates: list[float] = NODE_RATES


METHODS = {
    "backpropagation": Method(lambda epoch: pxl.Backprop(), steps=0, node_rates=[1.0]),
    "PC": Method(lambda epoch: pxl.PC(STEPS)),
    "PC, momentum": Method(lambda epoch: pxl.PC(STEPS), lambda rate: optax.sgd(rate, momentum=0.5)),
    "positive nudging": Method(lambda epoch: pxl.Nudging(0.5, STEPS)),
    "negative nudging": Method(lambda epoch: pxl.Nudging(-0.5, STEPS)),
    "centred nudging": Method(lambda epoch: pxl.Nudging(0.5 * (-1) ** epoch, STEPS)),
    "iPC": Method(lambda epoch: pxl.IPC(STEPS)),
    "Z-IL": Method(lambda epoch: pxl.ZIL(), steps=len(HIDDEN) + 1, node_rates=[1.0]),
    "Monte Carlo PC": Method(lambda epoch: pxl.PC(STEPS), lambda rate: pxl.langevin(rate, temperature=1e-5)),
    "error-based PC": Method(lambda epoch: pxl.EPC(STEPS), node_rates=[0.01, 0.03]),
}


class Run(NamedTuple):
    """The energy before each update, a mean over the last `window` of them, and how long a batch takes."""

    energies: np.ndarray
    window: int
    seconds: float

    def batches_until(self, goal: float) -> float:
        """How many batches it takes to get below a goal."""
        below = np.flatnonzero(self.energies < goal)
        return float(below[0] + self.window) if len(below) else np.inf


def train(method: Method, rates: tuple[float, float], seed: int, data: Split, epochs: int) -> Run:
    """Trains a new network, with these rates of weights and nodes."""
    images, targets = data.vectors, data.targets
    model = MLP([images.shape[1], *HIDDEN, 10], jax.nn.gelu, seed=seed)
    weights, nodes = pxu.Optim(optax.adam(rates[0]), pxl.WEIGHTS(model)), pxu.Optim(method.nodes(rates[1]))
    batches = len(images) // BATCH
    order, losses, seconds = np.random.default_rng(seed), [], []
    for epoch in range(epochs):
        start = time.perf_counter()
        for batch in order.permutation(len(images))[: batches * BATCH].reshape(batches, BATCH):
            report = method.algorithm(epoch)(images[batch], targets[batch], model=model, nodes=nodes, weights=weights)
            losses.append(report.loss)
        losses[-1].block_until_ready()
        seconds.append((time.perf_counter() - start) / batches)
    means = np.convolve(np.asarray(losses), np.ones(batches) / batches, mode="valid")
    return Run(means, batches, float(np.median(seconds)))


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="folder with the four gzipped IDX files; without it, the digits")
    parser.add_argument("--goal", type=float, default=0.05, help="the energy to get below")
    parser.add_argument("--epochs", type=int, default=15, help="how often to go through the training set")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each")
    parser.add_argument("--rates", type=float, nargs="+", default=WEIGHT_RATES, help="learning rates of the weights")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    data = load_or_exit(options.data)

    print(f"until the energy is below {options.goal}, on {data.name}; jax {jax.__version__} on {jax.devices()[0]}")
    print(f"{'':17}  {'batches':>10}  {'steps':>6}  seconds  ms a batch  energy at the end (rates of weights, nodes)")
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, method in METHODS.items():
        run = partial(train, method, data=data.train, epochs=options.epochs)
        pairs = [*product(options.rates, method.node_rates)]
        runs = {rates: [run(rates, seed) for seed in range(options.seeds)] for rates in pairs}
        until = {rates: [one.batches_until(options.goal) for one in tried] for rates, tried in runs.items()}
        last = {
            rates: np.nan_to_num(np.mean([one.energies[-1] for one in tried]), nan=np.inf)
            for rates, tried in runs.items()
        }
        best = min(runs, key=lambda rates: (np.mean(until[rates]), last[rates]))
        seconds = float(np.median([one.seconds for one in runs[best]]))
        energies = np.mean([one.energies for one in runs[best]], axis=0)
        mean = np.mean(until[best])
        reached = "      not reached          "
        if np.isfinite(mean):
            deviation = np.std(until[best])
            reached = f"{mean:4.0f} ± {deviation:3.0f}  {mean * method.steps:6.0f}  {mean * seconds:7.2f}"
        rates = ", ".join(f"{rate:g}" for rate in best)
        print(f"{name:17}  {reached}  {1e3 * seconds:10.2f}  {energies[-1]:.4f} ({rates})")
        counts = np.arange(len(energies)) + runs[best][0].window
        left.plot(counts, energies, label=name)
        right.plot(counts * seconds, energies, label=name)
    left.set(xlabel="batches", ylabel="energy", xscale="log", yscale="log")
    right.set(xlabel="seconds", xscale="log", yscale="log")
    left.legend(fontsize="small")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "inference.png", dpi=150)
    print(f"wrote {options.out / 'inference.png'}")


if __name__ == "__main__":
    main()

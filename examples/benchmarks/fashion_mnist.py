"""Test accuracies of all algorithms on Fashion-MNIST, beside those of the benchmark paper and of pcx.

An MLP 784-128-128-128-10, 25 epochs, batches of 128, the protocol of Pinchetti et al., arXiv 2407.01163: AdamW with
warm-up to 1.1 of the learning rate over the first tenth of its steps and cosine decay to 0.1, SGD with momentum on the
value nodes, the best epoch on the test set. The settings are those of the paper's published code (for centred nudging,
those of negative nudging). What has been run is kept in the output folder, and not run again.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
from jax import Array
from mlp import MLP
from tqdm import tqdm

import minipcax.learning as pxl
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset, load_or_exit  # beside the examples, one folder up

HIDDEN = [128, 128, 128]
BATCH = 128


@dataclass(frozen=True)
class Row:
    """A method with its settings, and the accuracies in per cent that the paper and pcx reach."""

    algorithm: Callable[[int], pxl.Algorithm]  # for each epoch
    act_fn: Callable[[Array], Array]
    weights: tuple[float, float]  # learning rate, decay
    nodes: tuple[float, float] = (0.1, 0.0)  # learning rate, momentum
    energy_fn: pxc.EnergyFn = pxc.se_energy
    updates: int = 1  # of the weights, for each batch
    paper: float | None = None
    pcx: float | None = None


def _negative(epoch: int) -> float:
    return -min(1.0, 0.9 + 0.02 * epoch)


ROWS = {
    "PC, squared error": Row(
        lambda epoch: pxl.PC(5), jax.nn.gelu, (2.972e-4, 1.838e-3), (0.02607, 0.1), paper=89.6, pcx=89.60
    ),
    "PC, cross entropy": Row(
        lambda epoch: pxl.PC(5), jax.nn.gelu, (2.771e-4, 8.403e-4), (0.01313, 0.4), pxc.ce_energy, paper=89.2, pcx=89.13
    ),
    "positive nudging": Row(
        lambda epoch: pxl.Nudging(min(1.0, 0.75 + 0.02 * epoch), 8),
        jax.nn.gelu,
        (2.837e-4, 4.780e-4),
        (0.01215, 0.55),
        paper=89.6,
        pcx=89.63,
    ),
    "negative nudging": Row(
        lambda epoch: pxl.Nudging(_negative(epoch), 6),
        jax.nn.leaky_relu,
        (2.849e-4, 2.520e-4),
        (0.02808, 0.15),
        paper=89.5,
        pcx=89.48,
    ),
    "centred nudging": Row(
        lambda epoch: pxl.Nudging(_negative(epoch) * (-1) ** epoch, 6),
        jax.nn.leaky_relu,
        (2.849e-4, 2.520e-4),
        (0.02808, 0.15),
    ),
    "iPC": Row(
        lambda epoch: pxl.IPC(8),
        jax.nn.leaky_relu,
        (2.691e-4, 1.162e-2),
        (0.7997, 0.25),
        updates=8,
        paper=89.9,
        pcx=89.17,
    ),
    "backpropagation, squared error": Row(
        lambda epoch: pxl.Backprop(), jax.nn.hard_tanh, (2.716e-4, 8.732e-5), paper=89.5, pcx=88.28
    ),
    "backpropagation, cross entropy": Row(
        lambda epoch: pxl.Backprop(),
        jax.nn.relu,
        (2.751e-4, 1.717e-4),
        energy_fn=pxc.ce_energy,
        paper=89.0,
        pcx=88.71,
    ),
}


def train(name: str, seed: int, data: Dataset, epochs: int) -> list[float]:
    """The test accuracy after every epoch."""
    row = ROWS[name]
    images, targets = data.train.vectors, data.train.targets
    batches = len(images) // BATCH
    steps = epochs * batches * row.updates
    rate, decay = row.weights
    schedule = optax.warmup_cosine_decay_schedule(rate, 1.1 * rate, steps // 10, steps, 0.1 * rate)

    model = MLP([images.shape[1], *HIDDEN, 10], row.act_fn, row.energy_fn, seed=seed)
    weights = pxu.Optim(optax.adamw(schedule, weight_decay=decay), pxl.WEIGHTS(model))
    nodes = pxu.Optim(optax.sgd(row.nodes[0], momentum=row.nodes[1]))
    order, accuracies = np.random.default_rng(seed), []
    with tqdm(range(epochs), f"{name}, seed {seed}", unit="epoch", disable=None) as bar:
        for epoch in bar:
            algorithm = row.algorithm(epoch)
            report = None
            for batch in order.permutation(len(images))[: batches * BATCH].reshape(batches, BATCH):
                report = algorithm(images[batch], targets[batch], model=model, nodes=nodes, weights=weights)
            if report is not None:
                report.check()
            accuracies.append(pxl.accuracy(data.test.vectors, data.test.labels, model))
            bar.set_postfix(accuracy=f"{accuracies[-1]:.2%}")
    return accuracies


def main() -> None:
    """Runs what has not been run yet, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the four gzipped IDX files")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), help="which methods to run")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs of each")
    parser.add_argument("--epochs", type=int, default=25, help="how often to go through the training set")
    parser.add_argument("--out", type=Path, default=Path("out/fashion_mnist"), help="folder for the results")
    options = parser.parse_args()
    data = load_or_exit(options.data)
    options.out.mkdir(parents=True, exist_ok=True)

    results: dict[str, list[float]] = {}
    for name in options.rows:
        for seed in range(options.seeds):
            path = options.out / f"{name}, {options.epochs} epochs, seed {seed}.json"
            if not path.exists():
                path.write_text(json.dumps(train(name, seed, data, options.epochs)))
            results.setdefault(name, []).append(100 * max(json.loads(path.read_text())))

    print(f"test accuracy in per cent, best of {options.epochs} epochs, mean ± deviation over {options.seeds} seeds")
    print(f"{'':32}  paper    pcx  minipcax")
    for name, best in results.items():
        others = "  ".join("   –" if value is None else f"{value:5.2f}" for value in (ROWS[name].paper, ROWS[name].pcx))
        deviation = statistics.stdev(best) if len(best) > 1 else 0.0
        print(f"{name:32}  {others}  {statistics.mean(best):5.2f} ± {deviation:.2f}")


if __name__ == "__main__":
    main()

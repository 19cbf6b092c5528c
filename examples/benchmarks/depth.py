"""Do very deep networks train? μPC against the same residual network without its scalings, on one epoch of images.

Width 128, T = 8, SGD of rate 0.1 on the value nodes, Adam on the weights, batches of 128. The learning rate is that of
8 layers: 0.2 for μPC, and without the scalings 0.001. It prints the test accuracy, and draws it over the depth.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import minipcax as px
import minipcax.learning as pxl
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset, load_or_exit  # beside the examples, one folder up

WIDTH, BATCH, STEPS = 128, 128, 8
CASES = {
    "μPC, tanh": (jax.numpy.tanh, True, 0.2),
    "μPC, relu": (jax.nn.relu, True, 0.2),
    "no scalings, tanh": (jax.numpy.tanh, False, 0.001),
    "no scalings, relu": (jax.nn.relu, False, 0.001),
}


def train(name: str, depth: int, seed: int, data: Dataset) -> float:
    """The test accuracy after one epoch; that of guessing if it diverges."""
    act_fn, scaled, rate = CASES[name]
    images, targets = data.train.vectors, data.train.targets
    rkg = px.RandomKeyGenerator(seed)
    model = pxl.ResidualNetwork(images.shape[1], WIDTH, 10, depth, act_fn, scaled, rkg)
    weights = pxu.Optim(optax.adam(rate), pxl.WEIGHTS(model))
    nodes, algorithm = pxu.Optim(optax.sgd(0.1)), pxl.PC(STEPS)
    count = len(images) // BATCH
    batches = np.random.default_rng(seed).permutation(len(images))[: count * BATCH].reshape(count, BATCH)
    *_, report = (algorithm(images[n], targets[n], model=model, nodes=nodes, weights=weights) for n in batches)
    try:
        report.check()
    except FloatingPointError as error:
        print(f"{name}, {depth} layers, seed {seed}: {error}")
        return 0.1
    return pxl.accuracy(data.test.vectors, data.test.labels, model)


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="folder with the four gzipped IDX files; without it, the digits")
    parser.add_argument("--depths", type=int, nargs="*", default=[8, 32, 128], help="numbers of layers")
    parser.add_argument("--seeds", type=int, default=1, help="how many runs of each")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    data = load_or_exit(options.data)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in CASES:
        means = []
        for depth in options.depths:
            start = time.perf_counter()
            accuracies = [100 * train(name, depth, seed, data) for seed in range(options.seeds)]
            means.append(np.mean(accuracies))
            seconds = (time.perf_counter() - start) / options.seeds
            print(f"{name:18}  {depth:4} layers: {means[-1]:5.2f} ± {np.std(accuracies):.2f} %, {seconds:.0f} s a run")
        axes.plot(options.depths, means, marker="o", label=name)
    axes.set(title="one epoch", xlabel="layers", ylabel="test accuracy, %", xscale="log")
    axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "depth.png", dpi=150)
    print(f"wrote {options.out / 'depth.png'}")


if __name__ == "__main__":
    main()

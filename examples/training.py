"""What the examples need around a model and its training loop: options, data, a progress bar and a picture."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from data import DataError, Dataset, load
from jax import Array
from jaxtyping import Int
from matplotlib.figure import Figure
from tqdm import tqdm

from minipcax.learning import Report


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults of options, and leaves the lines of the description as they are."""


def parser(
    description: str | None, *, epochs: int, steps: int, batch_size: int, lr_weights: float, lr_nodes: float
) -> argparse.ArgumentParser:
    """The options that all examples have, with the defaults of one."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_Formatter, allow_abbrev=False)
    parser.add_argument(
        "--data", type=Path, help="folder with the four gzipped IDX files of (Fashion-)MNIST; without one, the digits"
    )
    parser.add_argument("--epochs", type=int, default=epochs, help="how often to go through the training set")
    parser.add_argument("--steps", type=int, default=steps, help="T, the inference steps for each batch")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="images for each update of the weights")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of images")
    parser.add_argument("--lr-weights", type=float, default=lr_weights, help="learning rate of the weights (AdamW)")
    parser.add_argument("--lr-nodes", type=float, default=lr_nodes, help="learning rate of the value nodes (SGD)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    return parser


def run(train: Callable[[Dataset, argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Trains with the options of the command line, or ends with status 2 and says what is wrong with them."""
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, int | float) and name != "seed" and not value > 0:
            parser.error(f"--{name.replace('_', '-')}: expected a positive number, found {value}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed: expected a number of 32 bits, not negative, found {options.seed}")
    try:
        data = load(options.data)
        options.out.mkdir(parents=True, exist_ok=True)
        if options.batch_size > len(data.train.images):
            raise DataError(f"expected --batch-size of at most {len(data.train.images)}, found {options.batch_size}")
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    train(data, options)


class Progress:
    """Draws the batches, and says how training goes, by a score that the model gets before it and after each epoch."""

    def __init__(self, samples: int, options: argparse.Namespace, score: str = "test accuracy {:.2%}") -> None:
        self.score = score
        self.samples, self.batch_size = samples, options.batch_size
        self.order = np.random.default_rng(options.seed)
        self.scores: list[float] = []
        self.seconds: list[float] = []
        self.last: Report | None = None

    def batches(self) -> Iterator[Int[np.ndarray, " batch_size"]]:
        """The indices of one epoch's batches; what is left over is dropped, so that all are of one size."""
        self.start, self.count = time.perf_counter(), 0
        whole = self.samples - self.samples % self.batch_size
        batches = self.order.permutation(self.samples)[:whole].reshape(-1, self.batch_size)
        with tqdm(batches, f"epoch {len(self.scores)}", unit="batch", leave=False, disable=None) as self.bar:
            for batch in self.bar:
                self.count += 1
                yield batch

    def trained(self, report: Report) -> None:
        """Takes note of a training step; the step before it, which has ended by now, must have gone well."""
        if self.last is not None:
            self.last.check()
        self.last = report
        if self.count % 20 == 1:  # looking at a number waits for the device
            self.bar.set_postfix_str(f"energy {report.energies[-1]:.4f}, {self.score.format(self.scores[-1])}")

    def tested(self, score: float) -> None:
        """Takes note of the score, before training or after an epoch."""
        epoch = len(self.scores)
        self.scores.append(score)
        if epoch == 0:
            print(f"before training: {self.score.format(score)}")
        else:
            self.seconds.append(time.perf_counter() - self.start)
            print(f"epoch {epoch}: {self.score.format(score)}, {self.seconds[-1]:.2f} s")

    def finish(self, energies: Array, picture: Path) -> None:
        """Sums up, and draws the energy over the inference steps for one batch, and the accuracy over the epochs."""
        fastest = 1e3 * min(self.seconds) / self.count
        print(f"{fastest:.2f} ms per batch of {self.batch_size}, in the fastest epoch")
        print(f"energy of a test batch over {len(energies)} steps: {energies[0]:.4f} to {energies[-1]:.4f}")
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(np.asarray(energies), marker=".")
        left.set(title="inference on one batch", xlabel="step", ylabel="energy per sample")
        right.plot([100 * score for score in self.scores], marker=".")
        right.set(title="learning", xlabel="epoch", ylabel="test accuracy, %")
        figure.savefig(picture, dpi=150)
        print(f"wrote {picture}")

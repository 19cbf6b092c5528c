"""What the pages of this folder share: batches, a score for each of several seeds, and rows of images."""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

Scores = dict[str, float]


def batches(count: int, seed: int, options: argparse.Namespace) -> Iterator[Int[np.ndarray, " batch_size"]]:
    """The indices of the batches of all epochs; what is left over is dropped, so that all are of one size."""
    order, whole = np.random.default_rng(seed), count - count % options.batch_size
    for _ in range(options.epochs):
        yield from order.permutation(count)[:whole].reshape(-1, options.batch_size)


def over_seeds(score: Callable[[int], Scores], options: argparse.Namespace, form: str = "{:.4f}") -> None:
    """Prints the scores of `--seeds` seeds from `--seed` on, by name: each, their mean and their standard deviation."""
    found = [score(options.seed + number) for number in range(options.seeds)]
    for name in found[0]:
        values = [scores[name] for scores in found]
        each = ", ".join(form.format(value) for value in values)
        spread = f" ± {form.format(statistics.stdev(values))}" if len(values) > 1 else ""
        print(f"{name}: {form.format(statistics.mean(values))}{spread} ({each})")


def draw_rows(rows: dict[str, Float[np.ndarray, "images pixels"]], shape: tuple[int, int], picture: Path) -> None:
    """Draws a row of images for each name."""
    count = min(map(len, rows.values()))
    figure = Figure(figsize=(count + 1, len(rows) + 0.2), layout="constrained")
    for axes_of_row, (name, images) in zip(figure.subplots(len(rows), count, squeeze=False), rows.items(), strict=True):
        for axes, image in zip(axes_of_row, images, strict=False):
            axes.imshow(image.reshape(shape), cmap="gray", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
        axes_of_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(picture, dpi=100)
    print(f"wrote {picture}")

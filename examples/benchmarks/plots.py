"""Draws the pictures of this folder's README.md from its tables: `python examples/benchmarks/plots.py`.

They are written to `examples/pictures`, or to the folder that the environment variable PICTURES names.
"""

import os
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLORS = {"minipcax": "#c8442c", "pcx": "#1f5fa8", "paper": "#9ca3af"}
GREY = "#6b7280"


def table(first: str) -> dict[str, dict[str, str]]:
    """The table whose first column has this title: its rows by name, each by the titles of the columns."""
    lines = (HERE / "README.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if re.match(rf"\| {first} +\|", line))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def number(cell: str) -> float:
    """The first number in a cell, or NaN."""
    found = re.match(r"[\d.]+", cell)
    return float(found[0]) if found else np.nan


def accuracy(axes: Axes) -> None:
    """Each method, in the paper, with pcx, and here, with the deviation over seeds."""
    rows = table("method")
    places = np.arange(len(rows))
    for shift, column in zip((-0.25, 0, 0.25), ("paper", "pcx", "minipcax"), strict=True):
        values = [number(row[column]) for row in rows.values()]
        spreads = [number(row[column].partition("± ")[2]) for row in rows.values()]
        axes.errorbar(values, places + shift, xerr=spreads, fmt="o", ms=5, color=COLORS[column], label=column)
    axes.set(title="Fashion-MNIST", xlabel="test accuracy, %", xlim=(87.6, 90.2))
    axes.set_yticks(places, [*rows])
    axes.grid(axis="x", alpha=0.4)
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="upper left")


def dispatch(axes: Axes) -> None:
    """A bar for each library, of a model with 50 layers of which nothing changes."""
    rows = {name.replace("`", ""): number(row["50"]) for name, row in table("layers").items()}
    colors = [COLORS.get(name, GREY) for name in rows]
    bars = axes.barh([*rows], [*rows.values()], color=colors)
    axes.bar_label(bars, [f"{value:g}" for value in rows.values()], padding=3)
    axes.axvline(1, color="black", lw=1)
    axes.set(title="a call, 50 layers", xlabel="time / by hand in JAX", xscale="log", xlim=(0.8, 300))
    axes.invert_yaxis()


def steps(axes: Axes) -> None:
    """A bar for each algorithm: the steps of inference until the output has been learned."""
    rows = {name.replace("`", ""): row for name, row in table("algorithm").items()}
    reached = {name: row for name, row in rows.items() if row["seconds"]}
    bars = axes.barh([*reached], [number(row["seconds"]) for row in reached.values()], color=COLORS["minipcax"])
    words = [f"{number(row['batches']):.0f} batches, {row['steps of inference']} steps" for row in reached.values()]
    axes.bar_label(bars, words, padding=3, fontsize=8)
    axes.set(title="until the energy of the output is below 0.05, on the digits", xlabel="seconds", xlim=(0, 1.1))
    axes.invert_yaxis()


# The same drawing is the same file, and its words are text. Matplotlib types the keys one by one.
STYLE: Any = {"svg.hashsalt": "minipcax", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana"]}
PICTURES = {
    "accuracy": ([accuracy], (7, 4)),
    "dispatch": ([dispatch], (7, 2.4)),
    "steps": ([steps], (7, 3.2)),
    "results": ([accuracy, dispatch], (10, 3.4)),  # for the front page
}


def main() -> None:
    """Draws all of them."""
    folder = Path(os.environ.get("PICTURES", HERE.parent / "pictures"))
    with mpl.rc_context(STYLE):
        for name, (parts, size) in PICTURES.items():
            figure = Figure(figsize=size, layout="constrained")
            for draw, axes in zip(parts, figure.subplots(1, len(parts), squeeze=False)[0], strict=True):
                draw(axes)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            print(f"wrote {folder / f'{name}.svg'}")


if __name__ == "__main__":
    main()

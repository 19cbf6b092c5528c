"""Draws the diagrams of the README and the course: `python examples/pictures/diagrams.py`.

They are written beside this file, or to the folder that the environment variable PICTURES names.
"""

import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

BLUE, RED, GREY, PAPER, TINT = "#1f5fa8", "#c8442c", "#6b7280", "#ffffff", "#e8f0fa"
BODY = 10.5


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, whose coordinates are tenths of an inch."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10 * width), ylim=(0, 10 * height))
    axes.axis("off")
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, color: str = GREY, fill: str = PAPER) -> None:
    """A rounded box around a centre."""
    corner, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=1"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=fill, ec=color, lw=1.4))


def text(axes: Axes, x: float, y: float, words: str, color: str = "black", size: float = BODY, **options: Any) -> None:
    """Words around a centre, unless `ha` says otherwise."""
    axes.text(x, y, words, color=color, size=size, **{"ha": "center", "va": "center", **options})


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = GREY, bend: float = 0.0
) -> None:
    """An arrow, bent to the left if `bend` is positive."""
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "connectionstyle": f"arc3,rad={-bend}"}
    axes.annotate("", end, start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})


def parameters() -> Figure:
    """A model is a graph: two layers hold the same box."""
    figure, axes = canvas(7.2, 3.1)
    box(axes, 9, 15.5, 12, 5)
    text(axes, 9, 15.5, "model")
    for number, (name, height) in enumerate((("encode", 25), ("hidden", 15.5), ("again", 6))):
        box(axes, 28, height, 12, 5)
        text(axes, 28, height, name)
        arrow(axes, (15.2, 15.5 + (1 - number)), (21.8, height))
    for height in (26.6, 15.9, 9.3):
        text(axes, 40.5, height, ".weight", GREY, 9, family="monospace")
    boxes = ((25, "A", "[32, 2]", BLUE), (10.75, "B", "[32, 32]", RED))
    for height, name, shape, color in boxes:
        box(axes, 54, height, 13, 6.5, color, TINT if color == BLUE else "#fbeae6")
        text(axes, 54, height + 1.3, f"box {name}", color, weight="bold")
        text(axes, 54, height - 1.4, f"an array {shape}", size=9)
    arrow(axes, (34.2, 25), (47.3, 25), BLUE)
    arrow(axes, (34.2, 15.5), (47.3, 12), RED)
    arrow(axes, (34.2, 6), (47.3, 9.5), RED)
    text(axes, 61.5, 10.75, "one box,\nheld twice", RED, ha="left")
    text(axes, 54, 3.2, "set puts another array into a box:\nwhoever holds the box sees it", GREY, 9)
    return figure


def spring(axes: Axes, x: float, bottom: float, top: float) -> None:
    """A spring between two heights, red where it is stretched."""
    if abs(top - bottom) < 0.05:
        return
    heights = np.linspace(bottom, top, 16)
    offsets = np.array([0, 0, *[0.07, -0.07] * 6, 0, 0])
    axes.plot(x + offsets, heights, color=RED, lw=1.5, zorder=2)


def network() -> Figure:
    """What predictive coding does: three layers of one number each, u = w h, in which every number is computed."""
    x, target, rate_h, rate_w = 1.0, 2.2, 0.2, 0.12
    weights, states = np.ones(3), np.array([x, x, x, target])

    def predict() -> np.ndarray:
        predictions: np.ndarray = weights * states[:-1]
        return predictions

    stages = [("1. Predict", "every state h starts at its prediction u;\nthe output is held at the target", predict())]
    seen = [states.copy()]
    for _ in range(200):  # inference: down the gradient of E = ½ Σ (h − u)², with the weights fixed
        errors = states[1:] - predict()
        states[1:-1] -= rate_h * (errors[:-1] - weights[1:] * errors[1:])
    stages.append(("2. Infer", "the states h move until the springs balance;\nthe weights w are fixed", predict()))
    seen.append(states.copy())
    weights += rate_w * (states[1:] - predict()) * states[:-1]  # learning: one step, with the states fixed
    stages.append(
        ("3. Learn", "the weights w move, so that every prediction u\ncomes nearer to its state h", predict())
    )
    seen.append(states.copy())

    figure = Figure(figsize=(9.6, 3.3), facecolor=PAPER)
    for axes, (title, words, u), h in zip(figure.subplots(1, 3, sharey=True), stages, seen, strict=True):
        for layer in range(3):
            style = {"arrowstyle": "-|>", "color": GREY, "lw": 1.3, "shrinkA": 7, "shrinkB": 7}
            axes.annotate("", (layer + 1, u[layer]), (layer, h[layer]), arrowprops=style)
            axes.text(layer + 0.5, (u[layer] + h[layer]) / 2 - 0.14, f"$w_{layer + 1}$", color=GREY, ha="center")
            spring(axes, layer + 1, u[layer], h[layer + 1])
            axes.plot(layer + 1, u[layer], "o", ms=11, mfc=PAPER, mec=BLUE, mew=1.8, zorder=3)
            axes.plot(layer + 1, h[layer + 1], "o", ms=7, color=BLUE if layer < 2 else "black", zorder=4)
        axes.plot(0, h[0], "o", ms=7, color="black", zorder=4)
        axes.text(0, h[0] + 0.16, "x", ha="center")
        axes.text(3, h[3] + 0.16, "y", ha="center")
        energy = 0.5 * np.sum((h[1:] - u) ** 2)
        axes.set_title(f"{title}: energy {energy:.2f}", fontsize=BODY + 1, loc="left", weight="bold")
        axes.text(-0.3, 0.33, words, fontsize=9, va="center")
        axes.set(xlim=(-0.35, 3.4), ylim=(0.1, 2.6))
        axes.axis("off")
    left = figure.axes[0]
    left.plot([0.0], [2.25], "o", ms=7, color=BLUE)
    left.plot([0.0], [1.98], "o", ms=11, mfc=PAPER, mec=BLUE, mew=1.8)
    spring(left, 0.0, 1.54, 1.83)
    for height, words in ((2.25, "state h"), (1.98, "prediction u"), (1.69, "error h − u")):
        left.text(0.22, height, words, va="center", fontsize=9)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.91, 0.04)
    return figure


def transform() -> Figure:
    """How a call crosses a transform: collect, run, write back."""
    figure, axes = canvas(9.6, 3.9)
    for x, title in ((14, "your model"), (48, "what JAX sees"), (82, "inside your function")):
        text(axes, x, 36.5, title, size=BODY + 1, weight="bold")
    box(axes, 48, 21.5, 22, 24, GREY, "#f6f7f9")

    for x, name, color, fill in ((2, "model", BLUE, TINT), (70, "a copy of the model", RED, "#fbeae6")):
        text(axes, x, 31.5, name, ha="left", weight="bold")
        for row, field in enumerate(("layers[0].weight", "layers[1].weight", "act_fn, static")):
            height = 27 - 5 * row
            axes.plot([x + 1, x + 1, x + 2.5], [30, height, height], color=GREY, lw=1)
            text(axes, x + 3.2, height, field, ha="left", size=8.5, family="monospace")
        box(axes, x + 21.5, 24.5, 4.5, 4, color, fill)
        text(axes, x + 21.5, 24.5, "W" if x < 50 else "W′", color, weight="bold")
        for height in (27, 22):
            arrow(axes, (x + 16.2, height), (x + 19.1, 24.5 + (height - 24.5) / 4), color)

    text(axes, 48, 30.5, "leaves: [key, W, h, …]", size=9.5, family="monospace")
    text(axes, 48, 27.7, "each parameter once", GREY, 9)
    text(axes, 48, 22.0, "Skeleton", size=9.5, family="monospace")
    text(axes, 48, 18.4, "classes, attributes, statics,\nwho holds which leaf:\nthe key of compilation", GREY, 9)
    text(axes, 48, 12.2, "a pure function of arrays", size=9, style="italic")
    arrow(axes, (27.5, 29.5), (36.5, 29.5), BLUE)
    text(axes, 31.8, 31.2, "1. collect", BLUE, 9.5)
    arrow(axes, (59.5, 29.5), (68.5, 29.5), RED)
    text(axes, 64, 31.2, "2. run", RED, 9.5)
    axes.plot([82, 82, 14], [14, 5.5, 5.5], color=BLUE, lw=1.4)
    arrow(axes, (14, 5.4), (14, 14), BLUE)
    text(
        axes,
        48,
        3.2,
        "3. write back: only the values that changed, into the parameters that you already hold",
        BLUE,
        9.5,
    )
    return figure


# The same drawing is the same file, and its words are text, small and searchable. Matplotlib types the keys one by one.
STYLE: Any = {
    "svg.hashsalt": "minipcax",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.monospace": ["DejaVu Sans Mono"],
}


def main() -> None:
    """Draws all of them."""
    folder = Path(os.environ.get("PICTURES", Path(__file__).parent))
    with mpl.rc_context(STYLE):
        for draw in (parameters, network, transform):
            path = folder / f"{draw.__name__}.svg"
            draw().savefig(path, metadata={"Date": None})
            print(f"wrote {path}")


if __name__ == "__main__":
    main()

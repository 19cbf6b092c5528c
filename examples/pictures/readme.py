"""Runs the program in the README, and draws what it has learned: `python examples/pictures/readme.py`.

The picture is written beside this file, or to the folder that the environment variable PICTURES names.
"""

import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import minipcax as px
import minipcax.learning as pxl

HERE = Path(__file__).parent


def main() -> None:
    """Runs and draws."""
    text = (HERE.parents[1] / "README.md").read_text()
    program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict[str, Any] = {}
    px.RKG.seed(0)
    exec(compile(program, "README.md", "exec"), names)

    model, reports = names["model"], names["reports"]
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    inference, learning, target, learned = figure.subplots(1, 4, width_ratios=[1.3, 1.3, 1, 1])
    energies = np.asarray(reports[50].history.energies)
    for number, energy in enumerate(energies.T):
        inference.plot(np.maximum(energy, 1e-10), marker=".", label=f"node {number + 1}")
    inference.set(title="inference, in epoch 50", xlabel="step", ylabel="energy", yscale="log", ylim=(1e-10, 1e3))
    inference.legend(fontsize=7, ncols=2, loc="upper center")
    learning.plot([2 * float(report.loss) for report in reports])
    learning.set(title="learning", xlabel="epoch", ylabel="mean squared error", yscale="log")

    side = np.linspace(-2, 2, 41, dtype=np.float32)
    first, second = np.meshgrid(side, side)
    found = pxl.predict(np.stack([first.ravel(), second.ravel()], axis=1), model).reshape(first.shape)
    for axes, values, title in ((target, np.sin(first) * second, "sin(x₁) · x₂"), (learned, found, "predicted")):
        image = axes.pcolormesh(first, second, np.asarray(jax.device_get(values)), cmap="RdBu", vmin=-2, vmax=2)
        axes.set(title=title, xlabel="x₁", ylabel="x₂", aspect="equal")
    figure.colorbar(image, ax=[target, learned])
    path = Path(os.environ.get("PICTURES", HERE)) / "readme.png"
    figure.savefig(path, dpi=90)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

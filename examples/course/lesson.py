"""What the lessons share: data, where pictures go, and small sizes for a quick look (`QUICK=1 python ...`)."""

import os
import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[1]))
from data import Dataset, load  # beside the examples, one folder up

QUICK = bool(os.environ.get("QUICK"))


def digits() -> Dataset:
    """The handwritten digits of scikit-learn: 1,797 images of 8 × 8 pixels, with values in [-1, 1]."""
    return load(None)


def save(figure: Figure, name: str) -> None:
    """Writes a picture to the folder `out`, or to the one that the environment variable PICTURES names."""
    folder = Path(os.environ.get("PICTURES", "out"))
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=80)
    print(f"wrote {folder / name}")

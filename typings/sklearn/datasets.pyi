from typing import Any

import numpy as np

class Bunch:
    images: np.ndarray[Any, np.dtype[np.float64]]
    target: np.ndarray[Any, np.dtype[np.int64]]

def load_digits() -> Bunch: ...
def make_moons(
    n_samples: int = 100, *, noise: float | None = None, random_state: int | None = None
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.int64]]]: ...

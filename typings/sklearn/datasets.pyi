from typing import Any

import numpy as np

class Bunch:
    images: np.ndarray[Any, np.dtype[np.float64]]
    target: np.ndarray[Any, np.dtype[np.int64]]

def load_digits() -> Bunch: ...

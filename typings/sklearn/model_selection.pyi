from typing import Any, TypeVar

import numpy as np

First = TypeVar("First", bound=np.dtype[Any])
Second = TypeVar("Second", bound=np.dtype[Any])

def train_test_split(
    first: np.ndarray[Any, First],
    second: np.ndarray[Any, Second],
    /,
    *,
    test_size: float,
    random_state: int,
    stratify: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, First], np.ndarray[Any, First], np.ndarray[Any, Second], np.ndarray[Any, Second]]: ...

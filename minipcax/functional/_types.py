"""Shared type aliases."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Value = Any  # what a parameter holds: an array, or any pytree of arrays
Keywords = dict[str, Any]  # the tracked arguments of a call: arbitrary pytrees
Axes = Any  # as in `jax.vmap`: an axis, or None, or a tree of them that fits what is mapped
Function = Callable[..., Any]  # a transform may return something other than its function, such as gradients
ARRAY_TYPES = (jax.Array, np.ndarray, np.generic, int, float, complex)

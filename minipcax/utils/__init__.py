"""Masks, optimisers, and the rest of a training loop.

`M` selects parameters, `Optim` and `OptimTree` update them with optax, `step` sets the status of a model for a block,
and `save_params` and `load_params` write and read files.
"""

from minipcax.utils._mask import M, M_has, M_hasnot, M_is
from minipcax.utils._optim import Optim
from minipcax.utils._optim_tree import OptimTree
from minipcax.utils._serialisation import load_params, save_params, saved_params
from minipcax.utils._step import step

__all__ = ["M", "M_has", "M_hasnot", "M_is", "Optim", "OptimTree", "load_params", "save_params", "saved_params", "step"]

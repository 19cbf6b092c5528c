"""Inference and learning algorithms, ready to use, each of parts that can be replaced by one's own.

Read `_model` and `_batch` (a model, applied to a batch), `_inference`, `_learning`, `_algorithm` (what all algorithms
are) and `_pc`; every other file is one idea. To write another, see `Algorithm`; `over_batch` maps what one writes for a
sample, and `PER_SAMPLE` selects what of a model has an axis of samples.

An unsupervised or generative model needs nothing else. What is known is clamped, with `h.frozen = True` and `set("h")`,
or through `y`; `infer` then finds the rest, also the states of a first node that stands for the input.
"""

from minipcax.learning._algorithm import Algorithm
from minipcax.learning._backprop import Backprop
from minipcax.learning._batch import accuracy, energies, initialise, predict, start
from minipcax.learning._error_based import EPC, relax_errors, states_from_errors
from minipcax.learning._inference import infer, relax
from minipcax.learning._ipc import IPC
from minipcax.learning._langevin import langevin
from minipcax.learning._learning import learn
from minipcax.learning._model import NODES, PER_SAMPLE, WEIGHTS, Model, over_batch
from minipcax.learning._mupc import ResidualNetwork, ScaledLinear
from minipcax.learning._nudging import Nudging
from minipcax.learning._pc import PC
from minipcax.learning._report import History, Report
from minipcax.learning._zil import ZIL

__all__ = ["EPC", "IPC", "NODES", "PC", "PER_SAMPLE", "WEIGHTS", "ZIL", "Algorithm", "Backprop", "History", "Model"]
__all__ += ["Nudging", "Report", "ResidualNetwork", "ScaledLinear", "accuracy", "energies", "infer", "initialise"]
__all__ += ["langevin", "learn", "over_batch", "predict", "relax", "relax_errors", "start", "states_from_errors"]

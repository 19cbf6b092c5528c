"""Inference and learning algorithms, ready to use, each of parts that can be replaced by one's own."""

from minipcax.learning._backprop import Backprop
from minipcax.learning._batch import NODES, WEIGHTS, Model, accuracy, energies, initialise, predict
from minipcax.learning._inference import infer
from minipcax.learning._ipc import IPC
from minipcax.learning._learning import learn
from minipcax.learning._nudging import Nudging
from minipcax.learning._pc import PC

__all__ = [
    "IPC",
    "NODES",
    "PC",
    "WEIGHTS",
    "Backprop",
    "Model",
    "Nudging",
    "accuracy",
    "energies",
    "infer",
    "initialise",
    "learn",
    "predict",
]

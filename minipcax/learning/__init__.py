"""Inference and learning algorithms, ready to use, made of parts that can be replaced by your own.

- Algorithms, whose call is one training step: `PC`, `IPC`, `EPC`, `ZIL`, `Nudging`, `Backprop`; their base `Algorithm`,
  and the `Report` and `History` that they return.
- Steps by hand: `initialise`, `infer`, `learn`; inside a `jit`, `start`, `relax`, `relax_errors` and
  `states_from_errors`. After training: `predict`, `accuracy`, `energies`.
- Inference: any optax optimiser, `langevin`, or a `Solver` such as `LBFGS` and `GradientFlow` (a solver of your own
  takes a `Problem` and returns a `Solution` with its `Snapshot`s); `GradientTolerance` ends it, `RandomStart` and
  `start_from_present` say where it starts.
- Masks: `WEIGHTS` selects the parameters to learn, `NODES` the states to infer, `PER_SAMPLE` those with an axis of
  samples. `Model` is the interface of models, and `over_batch` maps a function of one sample over a batch.
- Deep networks: `ResidualNetwork`, made of `ResidualBlock`s and `ScaledLinear`s.
- Theory: `linear_energy`, `linear_hessian`, `state_hessian`, `conditioning`, which returns a `Conditioning`.

Read `_model`, `_forward` (a model over a batch), `_energies`, `_inference`, `_learning`, `_algorithm` (the base of all
algorithms) and `_pc`; every other file is one idea. To write another algorithm, see `Algorithm`.

An unsupervised or generative model needs nothing else. Clamp the known states, with `h.frozen = True` and `set("h")`,
or through `y`; `infer` then finds the others, also those of a first node that stands for the input.
"""

from minipcax.learning._algorithm import Algorithm
from minipcax.learning._backprop import Backprop
from minipcax.learning._energies import energies
from minipcax.learning._error_based import EPC, relax_errors, states_from_errors
from minipcax.learning._forward import accuracy, initialise, predict, start
from minipcax.learning._gradient_flow import GradientFlow
from minipcax.learning._inference import infer, relax
from minipcax.learning._ipc import IPC
from minipcax.learning._langevin import langevin
from minipcax.learning._lbfgs import LBFGS
from minipcax.learning._learning import learn
from minipcax.learning._model import NODES, PER_SAMPLE, WEIGHTS, Model, over_batch
from minipcax.learning._mupc import ResidualBlock, ResidualNetwork, ScaledLinear
from minipcax.learning._nudging import Nudging
from minipcax.learning._pc import PC
from minipcax.learning._report import History, Report
from minipcax.learning._solver import GradientTolerance, Problem, Snapshot, Solution, Solver
from minipcax.learning._starts import RandomStart, start_from_present
from minipcax.learning._theory import Conditioning, conditioning, linear_energy, linear_hessian, state_hessian
from minipcax.learning._zil import ZIL

__all__ = ["EPC", "IPC", "NODES", "PC", "PER_SAMPLE", "WEIGHTS", "ZIL", "Algorithm", "Backprop", "History", "Model"]
__all__ += ["Nudging", "Report", "ResidualBlock", "ResidualNetwork", "ScaledLinear"]
__all__ += ["accuracy", "energies", "infer", "initialise"]
__all__ += ["LBFGS", "GradientFlow", "RandomStart", "start_from_present"]
__all__ += ["GradientTolerance", "Problem", "Snapshot", "Solution", "Solver"]
__all__ += ["langevin", "learn", "over_batch", "predict", "relax", "relax_errors", "start", "states_from_errors"]
__all__ += ["Conditioning", "conditioning", "linear_energy", "linear_hessian", "state_hessian"]

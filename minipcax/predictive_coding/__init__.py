"""Value nodes, their energies and their rules.

A value node (`Vode`) stands after a layer: it holds the state h and the prediction u that the layer makes of it, and
its energy measures how far apart they are. A model is an `EnergyModule`, whose energy is the sum over its nodes.
`Stack` is a sequence of identical layers with their nodes, `Amortised` a network that initialises a node. `EnergyFn` is
the type of an energy function, from a node (and, if it takes one, a keyword `rkg`) to one term per element of h.
"""

from minipcax.predictive_coding._amortised import Amortised
from minipcax.predictive_coding._energy import ce_energy, se_energy, zero_energy
from minipcax.predictive_coding._energy_module import STATUS, EnergyModule
from minipcax.predictive_coding._parameter import VodeParam
from minipcax.predictive_coding._ruleset import Ruleset
from minipcax.predictive_coding._stack import Stack
from minipcax.predictive_coding._vode import EnergyFn, Vode

__all__ = ["STATUS", "Amortised", "EnergyFn", "EnergyModule", "Ruleset", "Stack", "Vode", "VodeParam"]
__all__ += ["ce_energy", "se_energy", "zero_energy"]

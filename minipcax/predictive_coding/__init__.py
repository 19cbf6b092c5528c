"""Value nodes, their energies and their rules."""

from minipcax.predictive_coding._amortised import Amortised
from minipcax.predictive_coding._energy import ce_energy, se_energy, zero_energy
from minipcax.predictive_coding._energy_module import STATUS, EnergyModule
from minipcax.predictive_coding._parameter import VodeParam
from minipcax.predictive_coding._ruleset import Ruleset
from minipcax.predictive_coding._stack import Stack
from minipcax.predictive_coding._vode import EnergyFn, Vode

__all__ = [
    "STATUS",
    "Amortised",
    "EnergyFn",
    "EnergyModule",
    "Ruleset",
    "Stack",
    "Vode",
    "VodeParam",
    "ce_energy",
    "se_energy",
]
__all__ += ["zero_energy"]

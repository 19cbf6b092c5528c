"""Modules that have an energy: the sum of those of their parts."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import Module
from minipcax.core.extract import clear_params
from minipcax.core.filter import Filter
from minipcax.core.tree import path_name, walk
from minipcax.predictive_coding._refusals import hidden_method


class STATUS:
    """The statuses that the library itself uses; any other string will do as well.

    Example:
        >>> model = Vode()
        >>> with step(model, STATUS.INIT):
        ...     print(model.status)
        init
    """

    NONE = None
    INIT = "init"  # nodes are set to their predictions
    ALL = ".*"  # in rules: every status


class EnergyModule(Module, static=("status",)):
    """A module whose energy is the sum over its nearest energy modules, and so over all nodes below it.

    `status`, a free string or `None`, says what the model is being used for; rules of value nodes depend on it.

    Example:
        >>> class Model(EnergyModule):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.vodes = [Vode(), Vode()]
        >>> model = Model()
        >>> for vode in model.vodes:
        ...     _ = vode.set("h", jnp.ones(2)).set("u", jnp.zeros(2))
        >>> float(model.energy())
        2.0
    """

    status: str | None = None

    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            if callable(getattr(EnergyModule, name, None)):
                raise hidden_method(self, name)
            super().__setattr__(name, value)

    def energy(self) -> Float[Array, "..."]:
        """The energy summed over nodes and samples, a scalar: 0.0 when there are no nodes."""
        energies = [module.energy().sum() for module in self.submodules(EnergyModule)]
        return sum(energies[1:], start=energies[0]) if energies else jnp.zeros(())

    def energies(self) -> dict[str, Float[Array, "..."]]:
        """The energy of each node by its path, for plots and debugging; they sum up to `energy()`."""
        if self._is_node():
            return {"": self.energy()}
        return {path + name: energy for path, node in self.nodes().items() for name, energy in node.energies().items()}

    def nodes(self) -> dict[str, "EnergyModule"]:
        """The modules with an energy of their own, such as value nodes, by path, in the order of the tree."""
        if self._is_node():
            return {"": self}
        paths = {id(node): path_name(path) for path, node in reversed([*walk(self)])}
        modules = self.submodules(EnergyModule)
        return {paths[id(module)] + path: node for module in modules for path, node in module.nodes().items()}

    def _is_node(self) -> bool:
        return type(self).energy is not EnergyModule.energy

    def clear_params(self, filter: Filter) -> None:
        """Sets the selected parameters to `None`."""
        clear_params(self, filter)

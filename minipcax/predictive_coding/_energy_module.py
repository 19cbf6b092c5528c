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
    """The statuses that the library itself uses; any other string can be a status as well.

    `NONE` is no status. In `INIT`, nodes are set to their predictions (forward initialisation). `ALL` is a pattern for
    rules, which matches every status.

    Example:
        >>> model = Vode()
        >>> with step(model, STATUS.INIT):
        ...     print(model.status)
        init
    """

    NONE = None
    INIT = "init"
    ALL = ".*"


class EnergyModule(Module, static=("status",)):
    """The base class of models: its energy is the sum of those of its energy modules, such as value nodes.

    `status`, any string or `None`, says what the model is being used for. The rules of value nodes depend on it; see
    `STATUS`, `Ruleset` and `utils.step`.

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
        """Returns the energy summed over nodes and samples, a scalar; 0.0 if there are no nodes."""
        energies = [module.energy().sum() for module in self.submodules(EnergyModule)]
        return sum(energies[1:], start=energies[0]) if energies else jnp.zeros(())

    def energies(self) -> dict[str, Float[Array, "..."]]:
        """Returns a dict from path to energy of every node, for plots and debugging; their sum is `energy()`."""
        if self._is_node():
            return {"": self.energy()}
        return {path + name: energy for path, node in self.nodes().items() for name, energy in node.energies().items()}

    def nodes(self) -> dict[str, "EnergyModule"]:
        """Returns a dict from path to node: the modules with an energy of their own, in the order of the tree."""
        if self._is_node():
            return {"": self}
        paths = {id(node): path_name(path) for path, node in reversed([*walk(self)])}
        modules = self.submodules(EnergyModule)
        return {paths[id(module)] + path: node for module in modules for path, node in module.nodes().items()}

    def _is_node(self) -> bool:
        return type(self).energy is not EnergyModule.energy

    def clear_params(self, filter: Filter) -> None:
        """Sets the parameters to `None` that `filter` selects: a class, a union of classes, a predicate or an `M`."""
        clear_params(self, filter)

"""The value nodes of a `Stack`, as one node whose values have an axis of layers.

Its rules and its energy are those of one layer, to which they are applied by a `vmap` over layers.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, RandomKeyGenerator
from minipcax.core.trace import in_vmap
from minipcax.core.tree import is_param
from minipcax.functional import vmap
from minipcax.predictive_coding._layers import at_once, each_layer, mark
from minipcax.predictive_coding._parameter import VodeParam
from minipcax.predictive_coding._ruleset import Rules, Tform
from minipcax.predictive_coding._vode import EnergyFn, Vode


class Vodes(Vode[VodeParam]):
    """The value nodes of a `Stack`: a node whose values have an axis of layers. The axis of samples is before it."""

    def __init__(self, depth: int, energy_fn: EnergyFn | None, ruleset: Rules, tforms: Mapping[str, Tform]) -> None:
        super().__init__(energy_fn, ruleset, tforms)
        mark(self.h, depth)
        mark(self.cache, depth)

    def energy(self, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
        """Returns the energy of every layer: of shape (layers,) for one sample, (batch, layers) outside `vmap`."""
        self.cache.notes.check_predictions()
        energy: Array = self._each(lambda vode, rkg: vode.energy(rkg), rkg)
        self.cache.notes.predictions = 0
        return energy

    def energies(self) -> dict[str, Float[Array, "..."]]:
        """Returns the energy of each layer by its number, `[17]`."""
        return {f"[{number}]": energy for number, energy in enumerate(jnp.moveaxis(self.energy(), -1, 0))}

    def get(self, key: str, default: object = None, rkg: RandomKeyGenerator = RKG) -> Any:  # as for `Vode`
        """Like `Vode.get`; an output rule is applied layer by layer."""
        if self.ruleset.output_for(self.status, key) is None:
            return super().get(key, default, rkg)
        value = self._each(lambda vode, rkg: vode.get(key, rkg=rkg), rkg)
        return default if value is None else value

    def set(self, key: str, value: object, rkg: RandomKeyGenerator = RKG) -> Self:
        """Like `Vode.set`; transformations are applied layer by layer."""

        def store(vode: Vode[VodeParam], rkg: RandomKeyGenerator, value: object) -> None:
            vode.set(key, value, rkg)

        if not any(rule.tforms for rule in self.ruleset.inputs_for(self.status, key)):
            return super().set(key, value, rkg)
        self._each(store, rkg, value)
        return self

    def one(self) -> Vode[VodeParam]:
        """Returns an ordinary node with the same parameters, while they hold the values of one layer."""
        vode = Vode[VodeParam]()
        vars(vode).update(vars(self))
        return vode

    def _each(self, fn: Callable[..., Any], rkg: RandomKeyGenerator, *x: Any) -> Any:
        if not in_vmap() and vars(self.h).get("one_sample") != jnp.shape(self.h.get()):

            def of_sample(*x: Any, vodes: Vodes, rkg: RandomKeyGenerator) -> Any:
                return vodes._each(fn, rkg, *x)

            return vmap({"vodes": _axes_of_samples})(of_sample)(*x, vodes=self, rkg=rkg)
        asked: set[str] = set()

        def of_layer(*x: Any, tracked: tuple[Vodes, RandomKeyGenerator]) -> Any:
            vode = tracked[0].one()
            output = fn(vode, tracked[1], *x)
            asked.update(vode.cache.notes.asked)
            return output

        output = each_layer(at_once, of_layer, (self, rkg), *x)
        self.cache.notes.asked |= asked
        return output


def _axes_of_samples(tree: Any) -> Any:  # for parameters, in the form of a mask
    def axis(param: object) -> int | None:
        return 0 if isinstance(param, VodeParam | VodeParam.Cache) else None

    return jax.tree.map(axis, tree, is_leaf=is_param)

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
from minipcax.predictive_coding._refusals import missing_entry
from minipcax.predictive_coding._ruleset import Rules, Tform
from minipcax.predictive_coding._vode import EnergyFn, Vode


class Vodes(Vode[VodeParam]):
    """The value nodes of a `Stack`: a node whose values have an axis of layers. The axis of samples is before it.

    So the energy is of shape (layers,) for one sample, and (batch, layers) outside `vmap`.
    """

    def __init__(self, depth: int, energy_fn: EnergyFn | None, ruleset: Rules, tforms: Mapping[str, Tform]) -> None:
        super().__init__(energy_fn, ruleset, tforms)
        mark(self.h, depth)
        mark(self.cache, depth)

    def _energy(self, rkg: RandomKeyGenerator) -> Array:
        self.cache.notes.check_predictions()
        energy: Array = self._each(lambda vode, rkg: vode._energy(rkg), rkg)
        return energy

    def energies(self) -> dict[str, Float[Array, "..."]]:
        """Returns the energy of each layer by its number, `[17]`."""
        return dict(zip(self.energy_names(), jnp.moveaxis(self.energy(), -1, 0), strict=True))

    def energy_names(self) -> list[str]:
        """The numbers of the layers, `[17]`."""
        return [f"[{number}]" for number in range(vars(self.h)["stacked"])]

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

        rules = self.ruleset.inputs_for(self.status, key)
        if not any(rule.tforms for rule in rules):
            return super().set(key, value, rkg)
        self._each(store, rkg, value)
        self._note(key, rules)
        return self

    def one(self) -> Vode[VodeParam]:
        """Returns an ordinary node with the same parameters, while they hold the values of one layer."""
        vode = Vode[VodeParam]()
        vars(vode).update(vars(self))
        return vode

    def note_one_sample(self) -> None:
        """Notes that the state is that of one sample, so that the energy, computed later, has no axis of samples.

        Only the call can tell: a shape does not say whether its first axis is that of samples or of layers.
        """
        vars(self.h)["one_sample"] = self.h.shape

    def _each(self, fn: Callable[..., Any], rkg: RandomKeyGenerator, *x: Any) -> Any:
        if self.h.get() is None:
            raise missing_entry("h")
        if not in_vmap() and vars(self.h).get("one_sample") != jnp.shape(self.h.get()):

            def of_sample(*x: Any, vodes: Vodes, rkg: RandomKeyGenerator) -> Any:
                return vodes._each(fn, rkg, *x)

            return vmap({"vodes": _axes_of_samples})(of_sample)(*x, vodes=self, rkg=rkg)
        asked: set[str] = set()

        def of_layer(*x: Any, tracked: dict[str, Any]) -> Any:
            vode = tracked["vodes"].one()
            output = fn(vode, tracked["rkg"], *x)
            asked.update(vode.cache.notes.asked)
            return output

        output = each_layer(at_once, of_layer, {"vodes": self, "rkg": rkg}, *x)
        self.cache.notes.asked |= asked
        return output


def _axes_of_samples(tree: Any) -> Any:  # for parameters, in the form of a mask
    def axis(param: object) -> int | None:
        return 0 if isinstance(param, VodeParam | VodeParam.Cache) else None

    return jax.tree.map(axis, tree, is_leaf=is_param)

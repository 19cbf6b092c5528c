"""The value node (vode): the state of one layer for one sample, and the prediction it receives."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, Param, RandomKeyGenerator, get
from minipcax.core.surroundings import held_by
from minipcax.core.trace import in_vmap
from minipcax.predictive_coding._energy import se_energy, summed
from minipcax.predictive_coding._energy_module import STATUS, EnergyModule
from minipcax.predictive_coding._parameter import VodeParam
from minipcax.predictive_coding._refusals import refuse_broadcast, refuse_other_terms, refuse_several_predictions
from minipcax.predictive_coding._ruleset import Rules, Ruleset, Tform

H = TypeVar("H", bound=Param)


@runtime_checkable
class DrawingEnergyFn(Protocol):
    """An energy function that needs random keys."""

    def __call__(self, vode: "Vode[Any]", /, *, rkg: RandomKeyGenerator) -> Float[Array, "..."]:
        """One energy per element of h."""
        ...


EnergyFn = Callable[["Vode[Any]"], Float[Array, "..."]] | DrawingEnergyFn

FORWARD_INITIALISATION: Rules = {STATUS.INIT: ("h, u <- u",)}


class Vode(EnergyModule, Generic[H], static=("energy_fn", "ruleset")):
    """A value node: the state `h`, and in the cache the prediction `u` and the energy `E`.

    Called with a prediction, it stores it and returns its state, so that it stands between two layers:
    `x = vode(act_fn(layer(x)))`. In status `STATUS.INIT` the prediction becomes the state (forward initialisation).

    Args:
        energy_fn: called as `energy_fn(vode, rkg=rkg)`, gives one energy per element of h; `None` means none.
        ruleset: rules by status, see `Ruleset`; with its own `STATUS.INIT` it replaces the built-in one, which sets h.
        tforms: the transformations that the rules name.
        param_type: the class of `h`.
        param_args: what `h` is made from.
        param_kwargs: what `h` is made from.

    Raises:
        ValueError: a rule can not be parsed, or names an unknown transformation.

    Example:
        >>> vode = Vode()
        >>> vode.status = STATUS.INIT
        >>> vode(jnp.ones(2)).tolist()
        [1.0, 1.0]

    Example: what an energy reads beside h and u, such as the weights of samples, is either set in every call,
    `vode(u, weight=weight)`, or is a state of its own that is not inferred, which is set once, with the target.
        >>> class Weighted(Vode[VodeParam]):
        ...     def __init__(self) -> None:
        ...         super().__init__(lambda vode: vode.get("weight") * se_energy(vode))
        ...         self.weight = VodeParam()
        ...         self.weight.frozen = True
        >>> vode = Weighted().set("h", jnp.ones(2)).set("weight", jnp.array([1.0, 0.0]))
        >>> vode.set("u", jnp.zeros(2)).energy().tolist()
        [0.5, 0.0]
    """

    h: H
    cache: VodeParam.Cache
    precision: Param  # not there unless it is set, see se_energy
    energy_fn: EnergyFn | None
    ruleset: Ruleset

    @overload
    def __init__(
        self: "Vode[VodeParam]",
        energy_fn: EnergyFn | None = se_energy,
        ruleset: Rules = ...,
        tforms: Mapping[str, Tform] = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        energy_fn: EnergyFn | None = se_energy,
        ruleset: Rules = ...,
        tforms: Mapping[str, Tform] = ...,
        *,
        param_type: type[H],
        **param_kwargs: Any,  # whatever param_type takes
    ) -> None: ...
    @overload
    def __init__(
        self,
        energy_fn: EnergyFn | None,
        ruleset: Rules,
        tforms: Mapping[str, Tform],
        param_type: type[H],
        *param_args: Any,  # whatever param_type takes
        **param_kwargs: Any,
    ) -> None: ...
    def __init__(
        self,
        energy_fn: EnergyFn | None = se_energy,
        ruleset: Rules = {},
        tforms: Mapping[str, Tform] = {},
        param_type: type[Any] = VodeParam,
        *param_args: Any,  # whatever param_type takes
        **param_kwargs: Any,
    ) -> None:
        super().__init__()
        self.energy_fn = energy_fn
        # The order of the rules is the user's own, also where they replace the built-in one.
        self.ruleset = Ruleset(ruleset if STATUS.INIT in ruleset else {**FORWARD_INITIALISATION, **ruleset}, tforms)
        self.h = param_type(*param_args, **param_kwargs)
        self.cache = VodeParam.Cache()

    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            if name == "status":  # another pass begins, with targets and predictions of its own
                self._note_target(False)
                self.cache.notes.predictions = 0
            super().__setattr__(name, value)

    @overload
    def __call__(
        self, u: Array | Param | None = None, rkg: RandomKeyGenerator = RKG, *, output: None, **activations: object
    ) -> Self: ...
    @overload
    def __call__(
        self, u: Array | Param | None = None, rkg: RandomKeyGenerator = RKG, output: str = "h", **activations: object
    ) -> Array: ...
    def __call__(
        self, u: Any = None, rkg: RandomKeyGenerator = RKG, output: str | None = "h", **activations: object
    ) -> Any:
        """Stores the prediction, and other activations by name; returns what `output` names, or with `None` itself."""
        for key, value in (("u", u), *activations.items()):
            if value is not None:
                self.set(key, value, rkg)
        return self if output is None else self.get(output, rkg=rkg)

    def set(self, key: str, value: object, rkg: RandomKeyGenerator = RKG) -> Self:
        """Stores a value where the input rules for `key` say, or else under its own name.

        An observed node (`h.frozen = True`) keeps the target that it is given, `set("h", y)`, whether that comes before
        or after its prediction: forward initialisation leaves it as it is.
        """
        rules = self.ruleset.inputs_for(self.status, key)
        if not rules:
            self._store(key, get(value))
        for rule in rules:
            result = get(value)
            for _, tform in rule.tforms:
                result = tform(self, key, result, rkg)
            for target in rule.others:
                if not (target == "h" and key != "h" and self._has_target()):
                    self._store(target, result)
        if key == "h" or (key != "u" and any("h" in rule.others for rule in rules)):
            self._note_target(self.status == STATUS.INIT)
        # A transformation may make one prediction of several.
        if any("u" in rule.others and not rule.tforms for rule in rules) or (key == "u" and not rules):
            self.cache.notes.predictions += 1
        return self

    def get(self, key: str, default: object = None, rkg: RandomKeyGenerator = RKG) -> Any:  # of any type
        """What the output rule for `key` says, computed once; or else what is stored under that name."""
        return self._get(key, default, rkg, ())

    def _get(self, key: str, default: Any, rkg: RandomKeyGenerator, asking: tuple[str, ...]) -> Any:
        if key in asking:
            raise ValueError(f"the output rules make {key!r} of itself: {' -> '.join((*asking, key))}")
        rule = self.ruleset.output_for(self.status, key)
        if rule is None:
            value = self._stored(key)
            return default if value is None else value
        source = rule.others[0]
        # What is made of the entry of the same name must not take its place, or it would be made of itself.
        name = rule.text if source == key else key
        if not self.cache.is_kept(name, self._sources(name)):
            value = self._stored(key) if source == key else self._get(source, None, rkg, (*asking, key))
            if value is None:
                return default
            for _, tform in rule.tforms:
                value = tform(self, key, value, rkg)
            self.cache.keep(name, value, self._sources(name))
        return self.cache[name]

    def energy(self, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
        """The energy: a scalar inside `vmap`, outside one per sample, of shape (batch,).

        It is kept in the cache, and computed anew when what the node holds has changed.

        Raises:
            ValueError: the energy function does not give one term per element of h, or was given several predictions.
        """
        if not self.cache.is_kept("E", self._sources("E")):
            (self.cache.value or {}).pop("E", None)
            self.cache.keep("E", self._energy(rkg), self._sources("E"))
            self.cache.notes.predictions = 0
        energy: Array = self.cache["E"]
        return energy

    def _energy(self, rkg: RandomKeyGenerator) -> Array:
        if self.energy_fn is None:
            return jnp.zeros(())
        refuse_several_predictions(self.cache.notes.predictions)
        energy_fn: Callable[..., Array] = self.energy_fn
        accepted = inspect.signature(energy_fn).parameters
        takes_rkg = "rkg" in accepted or any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        terms = jnp.asarray(energy_fn(self, rkg=rkg) if takes_rkg else energy_fn(self))
        refuse_broadcast(self.h.get(), self.cache.get("u"))
        refuse_other_terms(self.h.get(), terms)
        total: Array = summed(terms, axis=None if in_vmap() else tuple(range(1, terms.ndim)))
        return total

    def _sources(self, name: str) -> tuple[Any, ...]:
        """All that a computed entry may depend on: what the node holds, but for what was itself computed."""
        attributes = {key: value for key, value in vars(self).items() if key != "cache"}
        entries = {key: self.cache[key] for key in self.cache.given() if key not in (name, "E")}
        functions = [self.energy_fn, *(tform for rule in self.ruleset.outputs for _, tform in rule.tforms)]
        return in_vmap(), attributes, entries, [*map(held_by, functions)]

    def _has_target(self) -> bool:
        return self.h.frozen and self.h.get() is not None and hasattr(self.h, "given")

    def _note_target(self, given: bool) -> None:
        """Notes, for the length of a pass, whether the state is a target; transforms carry attributes along."""
        attributes = vars(self.h)
        if given:
            attributes["given"] = True
        else:
            attributes.pop("given", None)

    def _stored(self, key: str) -> Any:
        self.cache.notes.asked.add(key)
        if key == "E" and key in self.cache:
            return self.energy()
        param = vars(self).get(key)
        return param.get() if isinstance(param, Param) else self.cache.get(key)

    def _store(self, key: str, value: Any) -> None:
        param = vars(self).get(key)
        if isinstance(param, Param):
            param.set(value)
        else:
            self.cache[key] = value

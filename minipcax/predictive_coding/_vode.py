"""The value node (vode): the state of one layer for one sample, and the prediction it receives."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minipcax.core import RKG, Param, RandomKeyGenerator, get
from minipcax.core.surroundings import held_by
from minipcax.core.trace import in_vmap
from minipcax.predictive_coding._energy import se_energy
from minipcax.predictive_coding._energy_module import STATUS, EnergyModule
from minipcax.predictive_coding._parameter import VodeParam
from minipcax.predictive_coding._refusals import check_no_circle, check_not_broadcast, check_terms
from minipcax.predictive_coding._ruleset import Rule, Rules, Ruleset, Tform

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # which `typing` has from Python 3.13 on

    H = TypeVarWithDefault("H", bound=Param, default=VodeParam)
else:
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
    """A value node (vode): the state `h` of one layer, with its prediction `u` and energy `E` in the cache.

    Called with a prediction, it stores it and returns its state, so that it stands between two layers:
    `x = vode(act_fn(layer(x)))`. In status `STATUS.INIT` the prediction becomes the state (forward initialisation).
    Inside `vmap`, h and u are those of one sample; outside, their first axis is the batch. `se_energy` and `ce_energy`
    need equal shapes of both.

    Args:
        energy_fn: a function of the node that returns one term per element of h; it is called with `rkg=rkg` if it
            takes that keyword. `None` means zero.
        ruleset: the rules by status, see `Ruleset`. Rules for `STATUS.INIT` replace the built-in ("h, u <- u",).
        tforms: the transformations that the rules name, see `Ruleset`.
        param_type: the class of `h`, a subclass of `Param`.
        param_args: the arguments of `param_type`, such as an initial state.
        param_kwargs: the keyword arguments of `param_type`.

    Raises:
        ValueError: a rule cannot be parsed, or names an unknown transformation.
        TypeError: the rules of a status are not a sequence of strings.

    Example:
        >>> vode = Vode()
        >>> vode.status = STATUS.INIT
        >>> vode(jnp.ones(2)).tolist()
        [1.0, 1.0]

        Anything else that an energy reads, such as the weights of samples, is either passed in every call,
        `vode(u, weight=weight)`, or is a frozen parameter of the node, which is set once, with the target:

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
    precision: Param  # absent unless it is set, see se_energy
    energy_fn: EnergyFn | None
    ruleset: Ruleset

    def __init__(
        self,
        energy_fn: EnergyFn | None = se_energy,
        ruleset: Rules = {},
        tforms: Mapping[str, Tform] = {},
        param_type: type[H] = VodeParam,  # type: ignore[assignment]  # the default of H
        *param_args: Any,  # the arguments of param_type
        **param_kwargs: Any,
    ) -> None:
        super().__init__()
        self.energy_fn = energy_fn
        # The rules keep the user's order, also where they replace the built-in one.
        self.ruleset = Ruleset(ruleset if STATUS.INIT in ruleset else {**FORWARD_INITIALISATION, **ruleset}, tforms)
        self.h = param_type(*param_args, **param_kwargs)
        self.cache = VodeParam.Cache()

    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            if name == "status" and "cache" in vars(self):  # a new pass begins, with its own targets and predictions
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
        """Stores the prediction `u`, and other activations by name, where not `None`; returns the entry `output`.

        With `output=None`, returns the node itself. `rkg` is passed to transformations.
        """
        for key, value in (("u", u), *activations.items()):
            if value is not None:
                self.set(key, value, rkg)
        return self if output is None else self.get(output, rkg=rkg)

    def set(self, key: str, value: object, rkg: RandomKeyGenerator = RKG) -> Self:
        """Stores a value as the input rules for `key` say, or under its own name if there are none; returns the node.

        An observed node (`h.frozen = True`) keeps its target, `set("h", y)`, whether this comes before or after the
        prediction: forward initialisation does not overwrite it.
        """
        rules = self.ruleset.inputs_for(self.status, key)
        if not rules:
            self._store(key, get(value))
        for rule in rules:
            result = rule.transform(self, get(value), rkg)
            for target in rule.others:
                if not (target == "h" and key != "h" and self._has_target()):
                    self._store(target, result)
        self._note(key, rules)
        return self

    def _note(self, key: str, rules: list[Rule]) -> None:
        """Notes that a target or a prediction has arrived."""
        if key == "h" or (key != "u" and any("h" in rule.others for rule in rules)):
            self._note_target(self.status == STATUS.INIT)
        # A transformation may make one prediction of several.
        if any("u" in rule.others and not rule.tforms for rule in rules) or (key == "u" and not rules):
            self.cache.notes.predictions += 1

    def get(self, key: str, default: object = None, rkg: RandomKeyGenerator = RKG) -> Any:  # entries have any type
        """Returns what the output rule for `key` computes, or what is stored under that name if there is no rule.

        Returns `default` if that is `None`. Raises a `ValueError` if output rules define a key in terms of itself.
        """
        value = self._get(key, rkg, ())
        return default if value is None else value

    def _get(self, key: str, rkg: RandomKeyGenerator, asking: tuple[str, ...]) -> Any:
        asking = (*asking, key)
        check_no_circle(asking)
        rule = self.ruleset.output_for(self.status, key)
        return self._stored(key) if rule is None else self._apply(rule, rkg, asking)

    def _apply(self, rule: Rule, rkg: RandomKeyGenerator, asking: tuple[str, ...]) -> Any:
        key, source = rule.key, rule.others[0]

        def compute() -> Any:
            value = self._stored(key) if source == key else self._get(source, rkg, asking)
            return None if value is None else rule.transform(self, value, rkg)

        # Stored under `key`, it would overwrite its own source.
        return self.cache.computed(rule.text if source == key else key, self._sources, compute)

    def energy(self, rkg: RandomKeyGenerator = RKG) -> Float[Array, "..."]:
        """Returns the energy: a scalar inside `vmap`, and one per sample, of shape (batch,), outside.

        It is kept in the cache as `E`, and computed again only when something that the node holds has changed.

        Raises:
            ValueError: h or u is not set, their shapes do not fit, the node was given several predictions, or the
                energy function does not return one term per element of h.
        """
        energy: Array = self.cache.computed("E", self._sources, partial(self._energy, rkg))
        self.cache.notes.predictions = 0
        return energy

    def _energy(self, rkg: RandomKeyGenerator) -> Array:
        if self.energy_fn is None:
            return jnp.zeros(())
        self.cache.notes.check_predictions()
        energy_fn: Callable[..., Array] = self.energy_fn
        accepted = inspect.signature(energy_fn).parameters
        takes_rkg = "rkg" in accepted or any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        terms = jnp.asarray(energy_fn(self, rkg=rkg) if takes_rkg else energy_fn(self))
        check_not_broadcast(self.h.get(), self.cache.get("u"))
        check_terms(self.h.get(), terms)
        total: Array = _summed(terms, axis=None if in_vmap() else tuple(range(1, terms.ndim)))
        return total

    def energy_names(self) -> list[str]:
        """Returns the names of the energies, to be appended to the path of the node: a `Stack` has one per layer."""
        return [""]

    def _sources(self) -> tuple[Any, ...]:
        """Returns everything that an entry may be computed from: all that the node holds, except computed entries."""
        attributes = {key: value for key, value in vars(self).items() if key != "cache"}
        entries = {key: self.cache[key] for key in self.cache.given() if key != "E"}
        functions = [self.energy_fn, *(tform for rule in self.ruleset.outputs for tform in rule.tforms)]
        return in_vmap(), attributes, entries, [*map(held_by, functions)]

    def _has_target(self) -> bool:
        return self.h.frozen and self.h.get() is not None and hasattr(self.h, "given")

    def _note_target(self, given: bool) -> None:
        """Notes on `h`, for one pass, whether the state is a target; attributes travel through transforms."""
        vars(self.h).pop("given", None)
        if given:
            vars(self.h)["given"] = True

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


# Compiled, it is traced and differentiated once for all nodes of a size.
@partial(jax.jit, static_argnames="axis", inline=True)
def _summed(terms: Float[Array, "..."], axis: tuple[int, ...] | None) -> Float[Array, "..."]:
    """Returns the sum of the terms of a node."""
    if terms.dtype == jnp.float16:  # where doubled sums would soon overflow
        return terms.sum(axis)
    # XLA folds the 2 into the ½ of squared errors, and so saves a multiplication of every term. It is exact.
    return 0.5 * (2.0 * terms).sum(axis)

"""Value nodes know the class of their state; energies are arrays; rules and energy functions have their signatures."""

from collections.abc import Iterator
from functools import partial
from typing import Any, assert_type

import jax
import jax.numpy as jnp
from jax import Array

import minipcax as px
import minipcax.predictive_coding as pxc
from tests.types.common import Model, model, x

vode = pxc.Vode()


class State(pxc.VodeParam):
    pass


def a_node_knows_the_class_of_its_state() -> None:
    assert_type(vode, pxc.Vode[pxc.VodeParam])
    assert_type(vode.h, pxc.VodeParam)
    assert_type(vode.cache, pxc.VodeParam.Cache)
    assert_type(pxc.Vode(param_type=State).h, State)
    assert_type(pxc.Vode(pxc.ce_energy, {}, {}, State, x), pxc.Vode[State])
    bare: list[pxc.Vode] = [vode]
    assert_type(bare[0].h, pxc.VodeParam)


def calls_give_what_output_names() -> None:
    assert_type(vode(x), Array)
    assert_type(vode(px.Param(x), output="u"), Array)
    assert_type(vode(x, output=None), pxc.Vode[pxc.VodeParam])
    assert_type(vode(u=x, precision=x), Array)


def set_gives_the_node_itself() -> None:
    class Node(pxc.Vode[State]):
        pass

    assert_type(vode.set("u", x).set("h", x), pxc.Vode[pxc.VodeParam])
    assert_type(Node(param_type=State).set("u", x), Node)
    assert_type(vode.get("u"), Any)


def energies_are_arrays() -> None:
    assert_type(vode.energy(), Array)
    assert_type(model.energy(), Array)
    assert_type(model.energies(), dict[str, Array])
    assert_type(pxc.se_energy(vode, log_normaliser=True), Array)
    assert_type(pxc.ce_energy(vode, px.RKG), Array)
    assert_type(pxc.zero_energy(vode), Array)


def energy_functions_of_ones_own() -> None:
    def absolute(vode: pxc.Vode[Any]) -> Array:
        return jnp.abs(vode.get("h") - vode.get("u"))

    def noisy(vode: pxc.Vode[Any], rkg: px.RandomKeyGenerator) -> Array:
        return pxc.se_energy(vode) * jax.random.normal(rkg())

    assert_type(pxc.Vode(absolute), pxc.Vode[pxc.VodeParam])
    assert_type(pxc.Vode(noisy), pxc.Vode[pxc.VodeParam])
    assert_type(pxc.Vode(None), pxc.Vode[pxc.VodeParam])
    assert_type(pxc.Vode(partial(pxc.se_energy, log_normaliser=True)), pxc.Vode[pxc.VodeParam])
    assert_type(pxc.Vode(lambda vode: vode.h - vode.get("u")), pxc.Vode[pxc.VodeParam])


def what_an_energy_reads_beside_h_and_u() -> None:
    class Weighted(pxc.Vode[pxc.VodeParam]):
        def __init__(self) -> None:
            super().__init__(lambda vode: vode.get("weight") * pxc.se_energy(vode))
            self.weight = pxc.VodeParam()
            self.weight.frozen = True

    assert_type(Weighted().set("weight", x).weight, pxc.VodeParam)


def rules_and_their_transformations() -> None:
    def relu(vode: pxc.Vode[Any], key: str, value: Array, rkg: px.RandomKeyGenerator) -> Array:
        return jax.nn.relu(value)

    rules = {pxc.STATUS.INIT: ("h, u <- u:relu",), pxc.STATUS.ALL: ["e -> h:relu"], pxc.STATUS.NONE: ()}
    assert_type(pxc.Vode(ruleset=rules, tforms={"relu": relu}), pxc.Vode[pxc.VodeParam])
    assert_type(pxc.Ruleset(rules, {"relu": relu}), pxc.Ruleset)


def statuses_are_strings_or_none() -> None:
    model.status = pxc.STATUS.INIT
    model.status = None
    model.clear_params(pxc.VodeParam.Cache)
    model.clear_params(pxc.VodeParam | pxc.VodeParam.Cache)


def nodes_of_a_model(model: Model) -> None:
    assert_type(model.submodules(pxc.EnergyModule), Iterator[pxc.EnergyModule])
    model.vode.h.frozen = True
    model.vode.frozen = True
    model.vode.frozn = True  # E: "Vode[VodeParam]" has no attribute "frozn" [attr-defined]


def the_state_is_replaced_by_its_like() -> None:
    vode.h = x  # E: expression has type "Array", variable has type "VodeParam" [assignment]
    vode.h = px.Param(x)  # E: expression has type "Param", variable has type "VodeParam" [assignment]
    vode.h.frozen = "yes"  # E: expression has type "str", variable has type "bool" [assignment]


def calls_with_other_arguments_are_refused() -> None:
    vode("x")  # E: No overload variant of "__call__" of "Vode" matches [call-overload]
    vode(x, output=3)  # E: No overload variant of "__call__" of "Vode" matches [call-overload]
    vode.set(x)  # E: Missing positional argument "value" [call-arg]  # E: incompatible type "Array" [arg-type]
    vode.get(3)  # E: incompatible type "int"; expected "str" [arg-type]
    vode.enregy()  # E: "Vode[VodeParam]" has no attribute "enregy" [attr-defined]


def other_energy_functions_are_refused() -> None:
    def of_arrays(h: Array, u: Array) -> Array:
        return h - u

    def named(vode: pxc.Vode[Any]) -> str:
        return ""

    pxc.Vode(of_arrays)  # E: Argument 1 to "Vode" has incompatible type [arg-type]
    pxc.Vode(named)  # E: Argument 1 to "Vode" has incompatible type [arg-type]
    pxc.Vode("se_energy")  # E: Argument 1 to "Vode" has incompatible type "str" [arg-type]
    pxc.Vode(param_type=int)  # E: cannot be "int" [type-var]
    pxc.se_energy(x)  # E: incompatible type "Array"; expected "Node" [arg-type]


def a_function_of_one_array_is_no_transformation() -> None:
    pxc.Ruleset({}, {"relu": jnp.abs})  # E: Dict entry 0 has incompatible type [dict-item]
    pxc.Ruleset({3: ()}, {})  # E: Dict entry 0 has incompatible type "int" [dict-item]


def statuses_of_other_types_are_refused() -> None:
    model.status = 3  # E: expression has type "int", variable has type "str | None" [assignment]
    model.clear_params("cache")  # E: incompatible type "str" [arg-type]


class Quiet(pxc.EnergyModule):
    def energy(self) -> float:  # E: Return type "float" of "energy" incompatible [override]
        return 0.0


class Bare(pxc.Vode[pxc.VodeParam]):
    def __call__(self, u: Array) -> Array:  # E: Signature of "__call__" incompatible with supertype [override]
        return u

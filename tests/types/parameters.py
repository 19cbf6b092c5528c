"""Parameters stand for their arrays; statics for their values, each of its own type."""

from collections.abc import Callable
from typing import Any, assert_type

import jax
import jax.numpy as jnp
from jax import Array

import minipcax as px
from tests.types.common import x

p = px.Param(x)


def operators_give_arrays() -> None:
    assert_type(p + 1, Array)
    assert_type(2.0 * p, Array)
    assert_type(p @ p, Array)
    assert_type(-p, Array)
    assert_type(p == p, Array)
    assert_type(p < 1, Array)
    assert_type(p[0], Array)
    assert_type(divmod(p, 2), tuple[Array, Array])


def conversions() -> None:
    assert_type(float(p), float)
    assert_type(int(p), int)
    assert_type(len(p), int)
    assert_type(list(p), list[Array])


def attributes_of_the_array() -> None:
    assert_type(p.shape, tuple[int, ...])
    assert_type(p.ndim, int)
    assert_type(p.size, int)
    assert_type(p.T, Array)
    assert_type(p.sum(axis=0, keepdims=True), Array)
    assert_type(p.astype(jnp.float16), Array)


def augmented_assignment_keeps_the_parameter(weight: px.Param) -> None:
    weight += 1
    weight @= x
    assert_type(weight, px.Param)


def set_gives_the_parameter_itself() -> None:
    class Scale(px.Param):
        pass

    assert_type(Scale(x).set(2 * x), Scale)
    assert_type(px.set(Scale(x), x), Scale)


def statics_know_their_values() -> None:
    assert_type(px.static(3), px.StaticParam[int])
    assert_type(px.static(3).get(), int)
    assert_type(px.static(px.static("a")), px.StaticParam[str])
    assert_type(px.get(px.static(3)), int)
    assert_type(px.StaticParam([1, 2]).set([3]), px.StaticParam[list[int]])
    assert_type(px.static("abc") == "abc", bool)


def static_functions_keep_their_signatures() -> None:
    def scaled(x: Array, factor: float = 1.0) -> Array:
        return factor * x

    assert_type(px.static(jax.nn.relu)(x), Array)
    assert_type(px.static(scaled)(x, factor=2.0), Array)
    assert_type(px.static(float)("3"), float)


def get_passes_arrays_through(either: Array | px.Param) -> None:
    assert_type(px.get(x), Array)
    assert_type(px.get(either), Array | Any)


def dicts_of_arrays(cache: px.ParamDict) -> None:
    cache["u"] = x
    assert_type("u" in cache, bool)
    assert_type(list(cache), list[str])
    assert_type(isinstance(cache, px.DynamicParam), bool)


def random_keys(rkg: px.RandomKeyGenerator) -> None:
    assert_type(rkg(), Array)
    assert_type(rkg(3), Array)
    assert_type(rkg.key, px.RKGState)
    assert_type(px.RKG, px.RandomKeyGenerator)
    rkg.seed(1)


def misspelt_attributes_are_refused() -> None:
    p.shpae  # E: "Param" has no attribute "shpae" [attr-defined]
    p.summ()  # E: "Param" has no attribute "summ" [attr-defined]
    px.static("abc").uper()  # E: has no attribute "uper" [attr-defined]
    px.RKG.sede(0)  # E: "RandomKeyGenerator" has no attribute "sede" [attr-defined]


def operands_that_are_no_arrays_are_refused() -> None:
    p + "x"  # E: Argument 1 has incompatible type "str" [arg-type]
    "x" + p  # E: Unsupported operand types for + ("str" and "Param") [operator]
    p @ None  # E: Argument 1 has incompatible type "None" [arg-type]


def a_parameter_is_no_array_for_jax() -> None:
    jnp.sin(p)  # E: incompatible type "Param" [arg-type]
    jnp.sin(p.get())
    y: Array = p  # E: expression has type "Param", variable has type "Array" [assignment]


def an_array_is_no_parameter(weight: px.Param) -> None:
    weight = x  # E: expression has type "Array", variable has type "Param" [assignment]
    px.tree_inject([weight], params=[x])  # E: List item 0 has incompatible type "Array" [list-item]


def what_can_not_be_called_is_refused() -> None:
    px.static(3)()  # E: Invalid self argument "StaticParam[int]" to attribute function "__call__" [misc]
    px.static("relu")()  # E: Invalid self argument "StaticParam[str]" [misc]
    px.static(None)()  # E: Invalid self argument "StaticParam[None]" [misc]


def static_functions_refuse_other_arguments(act_fn: px.StaticParam[Callable[[Array], Array]]) -> None:
    px.static(jnp.tanh)(x, x)  # E: Too many arguments [call-arg]
    px.static(jnp.tanh)()  # E: Too few arguments [call-arg]
    act_fn("x")  # E: incompatible type "str"; expected "Array" [arg-type]
    act_fn.set(3)  # E: Argument 1 to "set" of "BaseParam" has incompatible type "int" [arg-type]
    size: str = px.static(3).get()  # E: expression has type "int", variable has type "str" [assignment]

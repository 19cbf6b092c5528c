"""Loops carry what they are given, and branches agree."""

from typing import Any, assert_type

import jax.numpy as jnp
import numpy as np
from jax import Array

import minipcax.functional as pxf
from tests.types.common import Model, forward, model, x


def total(x: Array, carry: Array, *, model: Model) -> tuple[Array, str]:
    return carry + model(x), ""


def total_and_count(x: Array, carry: Array, count: int, *, model: Model) -> tuple[tuple[Array, int], str]:
    return (carry + model(x), count), ""


def no_input(x: None, *, model: Model) -> tuple[tuple[()], Array]:
    return (), model.energy()


def difference(x: tuple[Array, Array], carry: Array) -> tuple[Array, Array]:
    return carry, x[1] - x[0]


def forgets_the_carry(x: Array, carry: Array) -> tuple[str, Array]:
    return "", x


def relax(x: Array, *, model: Model) -> Array:
    return model(x)


def relax_and_count(x: Array, count: int, *, model: Model) -> tuple[Array, int]:
    return model(x), count + 1


def goes_on(x: Array, *, model: Model) -> Array:
    return x.sum() > 0


def goes_on_counting(x: Array, count: int, *, model: Model) -> Array:
    return x.sum() > count


def named(x: Array, *, model: Model) -> str:
    return ""


def of_two(x: Array, y: Array, *, model: Model) -> Array:
    return x + y


def scan_gives_a_tuple_of_carries_and_the_outputs() -> None:
    assert_type(pxf.scan(total, x)(x, model=model), tuple[tuple[Array], str])
    assert_type(pxf.scan(total_and_count, x)(x, 0, model=model), tuple[tuple[Array, int], str])
    assert_type(pxf.scan(no_input, length=3)(model=model), tuple[tuple[()], Array])


def scan_takes_trees_and_numpy_arrays() -> None:
    assert_type(pxf.scan(difference, (x, x))(x), tuple[tuple[Array], Array])
    assert_type(pxf.scan(total, np.ones(3), reverse=True, unroll=True)(x, model=model), tuple[tuple[Array], str])


def while_loop_gives_a_tuple_of_carries() -> None:
    assert_type(pxf.while_loop(relax, goes_on)(x, model=model), tuple[Array])
    assert_type(pxf.while_loop(relax_and_count, goes_on_counting)(x, 0, model=model), tuple[Array, int])
    assert_type(pxf.while_loop(pxf.jit(relax), pxf.jit(goes_on))(x, model=model), tuple[Array])


def branches_give_what_the_first_does() -> None:
    assert_type(pxf.cond(forward, pxf.jit(forward))(True, x, model=model), Array)
    assert_type(pxf.cond(forward, lambda x, *, model: x)(jnp.array(True), x, model=model), Array)
    assert_type(pxf.switch([forward, forward, forward])(0, x, model=model), Array)
    assert_type(pxf.switch((forward, pxf.jit(forward)))(jnp.array(1), x, model=model), Array)


def nested_three_deep() -> None:
    loop = pxf.jit(pxf.vmap({"model": None})(pxf.scan(pxf.jit(total), x)))
    assert_type(loop(x, model=model), tuple[tuple[Array], str])
    chosen = pxf.jit(pxf.grad({"model": True})(pxf.cond(forward, pxf.vmap()(forward))))
    assert_type(chosen(True, x, model=model), dict[str, Any])
    assert_type(pxf.while_loop(pxf.jit(pxf.vmap()(relax)), goes_on)(x, model=model), tuple[Array])


def the_classes_that_they_make() -> None:
    scan, loop = pxf.scan(total, x), pxf.while_loop(relax, goes_on)
    cond, switch = pxf.cond(forward, forward), pxf.switch([forward])
    some_scan: pxf.Scan[..., tuple[tuple[Array], str]] = scan
    some_loop: pxf.WhileLoop[..., tuple[Array]] = loop
    some_cond: pxf.Cond[..., Array] = cond
    some_switch: pxf.Switch[..., Array] = switch


def a_carry_of_another_type_is_refused() -> None:
    pxf.scan(total, x)("x", model=model)  # E: incompatible type "str"; expected "Array" [arg-type]
    pxf.scan(total_and_count, x)(x, x, model=model)  # E: incompatible type "Array"; expected "int" [arg-type]
    pxf.while_loop(relax, goes_on)(None, model=model)  # E: incompatible type "None"; expected "Array" [arg-type]


def a_carry_that_changes_its_type_is_refused() -> None:
    pxf.scan(forgets_the_carry, x)  # E: Argument 1 to "scan" has incompatible type [arg-type]
    pxf.while_loop(named, goes_on)  # E: Argument 1 to "while_loop" has incompatible type [arg-type]


def results_are_tuples() -> None:
    carry, y = pxf.scan(total, x)(x, model=model)
    carry.sum()  # E: "tuple[Array]" has no attribute "sum" [attr-defined]
    (one, two), ys = pxf.scan(total, x)(x, model=model)  # E: Need more than 1 value to unpack [misc]
    pxf.while_loop(relax, goes_on)(x, model=model).sum()  # E: "tuple[Array]" has no attribute "sum" [attr-defined]


def inputs_of_another_type_are_refused() -> None:
    pxf.scan(total, 3)  # E: Cannot infer value of type parameter "X" [misc]  # E: Argument 1 to "scan" [arg-type]
    pxf.scan(difference, x)  # E: Cannot infer value of type parameter "X" [misc]  # E: Argument 1 to "scan" [arg-type]
    pxf.scan(total, x, None, False, 1, 2)  # E: No overload variant of "scan" matches [call-overload]


def misspelt_and_missing_keywords_are_refused() -> None:
    pxf.scan(total, x)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.while_loop(relax, goes_on)(x)  # E: Missing named argument "model" [call-arg]
    pxf.cond(forward, forward)(True, x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.switch([forward, forward])(0, x)  # E: Missing named argument "model" [call-arg]


def extra_arguments_are_refused() -> None:
    pxf.scan(total, x)(x, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]
    pxf.while_loop(relax, goes_on)(x, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]
    pxf.cond(forward, forward)(True, x, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]
    pxf.switch([forward, forward])(0, x, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]


def arguments_of_other_types_are_refused() -> None:
    pxf.scan(total, x)(x, model=x)  # E: incompatible type "Array"; expected "Model" [arg-type]
    pxf.while_loop(relax, goes_on)(x, model=3)  # E: incompatible type "int"; expected "Model" [arg-type]
    pxf.cond(forward, forward)("true", x, model=model)  # E: incompatible type "str" [arg-type]
    pxf.cond(forward, forward)(True, "x", model=model)  # E: incompatible type "str"; expected "Array" [arg-type]
    pxf.switch([forward, forward])(None, x, model=model)  # E: incompatible type "None" [arg-type]


def branches_that_disagree_are_refused() -> None:
    pxf.cond(forward, named)  # E: Argument 2 to "cond" has incompatible type [arg-type]
    pxf.cond(forward, of_two)  # E: Argument 2 to "cond" has incompatible type [arg-type]
    pxf.cond(forward, 3)  # E: Argument 2 to "cond" has incompatible type "int" [arg-type]
    pxf.switch([forward, of_two])  # E: Argument 1 to "switch" has incompatible type [arg-type]
    chosen: Array = pxf.switch([forward, named])(0, x, model=model)  # E: variable has type "Array" [assignment]


def a_condition_that_disagrees_with_its_loop_is_refused() -> None:
    pxf.while_loop(relax_and_count, goes_on)  # E: Argument 2 to "while_loop" has incompatible type [arg-type]

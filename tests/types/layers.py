"""Layers are built from the arguments that they document, and lead from arrays to arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import minipcax as px
import minipcax.nn as pxnn
from tests.types.common import Model, model, x

linear = pxnn.Linear(2, 3, rkg=px.RandomKeyGenerator(0))


def every_layer_gives_an_array(key: Array) -> None:
    assert_type(linear(x), Array)
    assert_type(linear(px.Param(x), key=key), Array)
    assert_type(pxnn.Conv(2, 1, 4, (3, 3), padding="SAME", dtype=jnp.float16)(x), Array)
    assert_type(pxnn.Conv1d(1, 4, 3, padding=[(0, 1)])(x), Array)
    assert_type(pxnn.Conv2d(1, 4, 3, stride=2)(x), Array)
    assert_type(pxnn.Conv3d(1, 4, 3, padding=1)(x), Array)
    assert_type(pxnn.ConvTranspose(2, 4, 1, 3, output_padding=1)(x), Array)
    assert_type(pxnn.Pool(0.0, jax.lax.add, 2, 2)(x), Array)
    assert_type(pxnn.MaxPool2d(2, stride=2)(x), Array)
    assert_type(pxnn.AvgPool2d((2, 2))(x), Array)
    assert_type(pxnn.AdaptivePool(2, 1, jnp.max)(x), Array)
    assert_type(pxnn.AdaptiveAvgPool2d(1)(x), Array)
    assert_type(pxnn.AdaptiveMaxPool2d((1, 2))(x), Array)
    assert_type(pxnn.Dropout(0.1)(x, key=key), Array)
    assert_type(pxnn.LayerNorm((2, 3))(x), Array)
    assert_type(pxnn.BatchNorm(3, axis_name="batch")(x), Array)


def layers_are_modules() -> None:
    layers: list[pxnn.Layer] = [linear, pxnn.MaxPool2d(2), pxnn.Dropout()]
    modules: list[px.Module] = [*layers]


def sizes_may_come_from_numpy() -> None:
    assert_type(pxnn.Linear(np.int64(2), np.int64(3)), pxnn.Linear)
    assert_type(pxnn.Conv2d(np.int64(2), 3, np.int64(3)), pxnn.Conv2d)


def layers_know_their_sizes_and_parameters() -> None:
    assert_type(linear.nn.weight, pxnn.LayerParam)
    assert_type(linear.in_features, int)
    assert_type(pxnn.BatchNorm(3, axis_name="batch").state, pxnn.StateParam)
    state: pxnn.LayerState = pxnn.StateParam(x)
    linear.nn.weight = pxnn.Linear(2, 3).nn.weight


def shared_modules_are_of_the_same_class(either: Callable[[Any], bool]) -> None:
    assert_type(pxnn.shared(linear), pxnn.Linear)
    assert_type(pxnn.shared(model, filter=either), Model)
    assert_type(pxnn.shared(model, px.DynamicParam), Model)


def a_layer_of_ones_own(x: Array) -> None:
    class Double(pxnn.Linear):
        def __call__(self, x: Array | px.Param, *, key: Array | None = None) -> Array:
            return 2 * super().__call__(x)

    assert_type(Double(2, 3)(x), Array)


@dataclass
class Cell:
    """A callable pytree from elsewhere."""

    weight: Array

    def __call__(self, x: Array, h: Array, *, key: Array | None = None) -> tuple[Array, int]:
        return self.weight * x + h, 1


def make(size: int) -> Cell:
    return Cell(jnp.ones(size))


cell = pxnn.Layer(make, 3)


def a_layer_is_called_as_its_definition_is(key: Array) -> None:
    assert_type(cell, pxnn.Layer[Cell])
    assert_type(cell(x, x, key=key), tuple[Array, int])
    assert_type(pxnn.Layer(Cell, x)(x, h=x), tuple[Array, int])
    assert_type(pxnn.shared(cell)(x, x), tuple[Array, int])


def a_layer_of_any_definition_is_called_in_any_way(layer: pxnn.Layer) -> None:
    assert_type(layer(x, 1, scale=2), Any)
    assert_type([cell, linear], list[pxnn.Layer])
    assert_type([pxnn.Dropout(), linear][0](x), Array)


def calls_that_the_definition_does_not_take_are_refused() -> None:
    cell(x)  # E: Missing positional argument "h" [call-arg]
    cell(x, "h")  # E: incompatible type "str"; expected "Array" [arg-type]
    cell(x, x, keys=None)  # E: Unexpected keyword argument "keys" [call-arg]
    cell(x, x).shape  # E: has no attribute "shape" [attr-defined]


def what_can_not_be_called_is_no_definition() -> None:
    pxnn.Layer(int, 1)  # E: Value of type variable "D" of "Layer" cannot be "int" [type-var]


def missing_and_misspelt_arguments_are_refused() -> None:
    pxnn.Linear(2)  # E: Missing positional argument "out_features" [call-arg]
    pxnn.Linear(2, 3, biass=True)  # E: Unexpected keyword argument "biass" [call-arg]
    pxnn.Conv2d(1, 4)  # E: Missing positional argument "kernel_size" [call-arg]
    pxnn.BatchNorm(3)  # E: Missing positional argument "axis_name" [call-arg]
    pxnn.MaxPool2d(2, strides=2)  # E: Unexpected keyword argument "strides" [call-arg]


def arguments_of_other_types_are_refused(key: Array) -> None:
    pxnn.Linear("2", 3)  # E: incompatible type "str"; expected "SupportsIndex" [arg-type]
    pxnn.Linear(2, 3, rkg=key)  # E: incompatible type "Array"; expected "RandomKeyGenerator" [arg-type]
    pxnn.Conv2d(1, 4, 2.5)  # E: incompatible type "float" [arg-type]
    pxnn.Dropout("half")  # E: incompatible type "str"; expected "float | floating[Any]" [arg-type]
    pxnn.Pool(0.0, "max", 2, 2)  # E: incompatible type "str" [arg-type]
    pxnn.Layer("Linear", 2, 3)  # E: incompatible type "str" [arg-type]


def calls_with_other_arguments_are_refused(key: Array) -> None:
    linear("x")  # E: incompatible type "str"; expected "Array | Param" [arg-type]
    linear()  # E: Missing positional argument "x" [call-arg]
    linear(x, rng=key)  # E: Unexpected keyword argument "rng" [call-arg]


def an_array_does_not_take_the_place_of_a_parameter() -> None:
    linear.nn.weight = x  # E: expression has type "Array", variable has type "LayerParam" [assignment]
    linear.nn.weight = px.Param(x)  # E: expression has type "Param", variable has type "LayerParam" [assignment]


def only_modules_are_shared() -> None:
    pxnn.shared(x)  # E: cannot be "Array" [type-var]
    pxnn.shared(linear, filter="weight")  # E: incompatible type "str" [arg-type]


class Narrow(pxnn.Linear):
    def __call__(self, x: str) -> str:  # E: Signature of "__call__" incompatible with supertype [override]
        return x


class Needy(pxnn.Dropout):
    def __call__(self, x: Array | px.Param, *, key: Array) -> Array:  # E: incompatible [override]
        return key


def a_layer_holds_its_parameters_in_nn() -> None:
    linear.weight  # E: "Linear" has no attribute "weight" [attr-defined]
    linear.bias = x  # E: "Linear" has no attribute "bias" [attr-defined]
    assert_type(pxnn.Layer(make, 3, filter=jax.Array), pxnn.Layer[Cell])

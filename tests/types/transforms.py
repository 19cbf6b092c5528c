"""Transforms keep the signatures of the functions that they wrap, however deep they are nested."""

from typing import Any, assert_type

import jax
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.types.common import Model, forward, loss, loss_and_more, model, x

WEIGHTS = {"model": pxu.M(pxnn.LayerParam)}
NODES = {"model": pxu.M(pxc.VodeParam).to((None, 0))}


class Scaled(Model):
    @pxf.jit
    def loss(self, x: Array, scale: float = 1.0) -> Array:
        return scale * self(x).sum()


def jit_bare_and_with_options() -> None:
    @pxf.jit(static_argnums=1, donate_argnames="model")
    def repeated(x: Array, times: int, *, model: Model) -> tuple[Array, int]:
        return model(x), times

    assert_type(pxf.jit(forward)(x, model=model), Array)
    assert_type(repeated(x, 3, model=model), tuple[Array, int])
    assert_type(pxf.jit(forward).lower(x, model=model), jax.stages.Lowered)


def vmap_keeps_the_signature() -> None:
    assert_type(pxf.vmap(NODES)(forward)(x, model=model), Array)
    assert_type(pxf.vmap({"model": None}, in_axes=0, out_axes=0, axis_name="batch")(forward)(x, model=model), Array)
    assert_type(pxf.vmap({("a", "b"): 0}, in_axes=(0, None))(forward)(x, model=model), Array)


def gradients_come_after_the_value() -> None:
    assert_type(pxf.value_and_grad(WEIGHTS)(loss)(x, model=model), tuple[Array, dict[str, Any]])
    assert_type(pxf.grad(WEIGHTS)(loss)(x, model=model), dict[str, Any])
    assert_type(pxf.grad({"model": True})(loss)(x, model=model), dict[str, Any])
    assert_type(pxf.grad(pxu.M(pxnn.LayerParam))(loss)(x, model=model), dict[str, Any])


def aux_is_a_tuple_of_what_follows_the_value() -> None:
    one = pxf.value_and_grad(WEIGHTS, has_aux=True)(loss_and_more)
    assert_type(one(x, model=model), tuple[tuple[Array, tuple[int, str]], dict[str, Any]])
    (value, (number, text)), gradients = one(x, model=model)
    assert_type(text, str)
    two = pxf.grad(WEIGHTS, has_aux=True)(loss_and_more)
    assert_type(two(x, model=model), tuple[dict[str, Any], tuple[int, str]])


def argnums_add_positional_gradients() -> None:
    one = pxf.value_and_grad(WEIGHTS, argnums=0)(loss)
    assert_type(one(x, model=model), tuple[Array, tuple[Any, dict[str, Any]]])
    both = pxf.value_and_grad(WEIGHTS, argnums=(0,), has_aux=True)(loss_and_more)
    assert_type(both(x, model=model), tuple[tuple[Array, tuple[int, str]], tuple[Any, dict[str, Any]]])
    assert_type(pxf.grad(argnums=0)(loss)(x, model=model), tuple[Any, dict[str, Any]])


def jacobians_have_the_structure_of_the_output() -> None:
    assert_type(pxf.jacrev(WEIGHTS)(forward)(x, model=model), Any)
    assert_type(pxf.jacobian(WEIGHTS, argnums=(0,))(forward)(x, model=model), Any)
    assert_type(pxf.jacfwd(WEIGHTS, has_aux=True)(loss_and_more)(x, model=model), tuple[Any, tuple[int, str]])
    assert_type(pxf.hessian(WEIGHTS)(loss)(x, model=model), Any)
    assert_type(pxf.hessian(WEIGHTS, has_aux=True)(loss_and_more)(x, model=model), tuple[Any, tuple[int, str]])


def products_take_a_direction_and_return_one() -> None:
    gradients = pxf.grad(WEIGHTS)(loss)(x, model=model)
    assert_type(pxf.jvp(WEIGHTS)(forward)(gradients, x, model=model), tuple[Array, Array])
    more = pxf.jvp(WEIGHTS, has_aux=True)(loss_and_more)
    assert_type(more(gradients, x, model=model), tuple[Array, Array, tuple[int, str]])
    value, pullback = pxf.vjp(WEIGHTS)(forward)(x, model=model)
    assert_type(value, Array)
    assert_type(pullback(value), Any)
    number, pull, aux = pxf.vjp(WEIGHTS, argnums=0, has_aux=True)(loss_and_more)(x, model=model)
    assert_type(aux, tuple[int, str])


def checkpoint_and_eval_shape_keep_the_signature() -> None:
    assert_type(pxf.checkpoint(forward)(x, model=model), Array)
    assert_type(pxf.checkpoint(prevent_cse=False)(forward)(x, model=model), Array)
    assert_type(pxf.eval_shape(forward, x, model=model), Any)


@pxf.jit
@pxf.value_and_grad(WEIGHTS, has_aux=True)
@pxf.vmap(NODES, out_axes=(None, 0, None))
def jit_grad_vmap(x: Array, scale: float = 1.0, *, model: Model) -> tuple[Array, Array, str]:
    return scale * model.energy(), x, ""


@pxf.vmap({"model": None})
@pxf.jit
@pxf.grad(WEIGHTS, argnums=0)
def vmap_jit_grad(x: Array, *, model: Model) -> Array:
    return model(x).sum()


def nested_three_deep() -> None:
    expected = jit_grad_vmap(x, 2.0, model=model)
    assert_type(expected, tuple[tuple[Array, tuple[Array, str]], dict[str, Any]])
    assert_type(vmap_jit_grad(x, model=model), tuple[Any, dict[str, Any]])
    assert_type(pxf.jit(pxf.jit(pxf.jit(forward)))(x, model=model), Array)


def methods_are_called_without_self(scaled: Scaled) -> None:
    assert_type(scaled.loss(x), Array)
    assert_type(scaled.loss(x, scale=2.0), Array)
    assert_type(Scaled.loss(scaled, x, scale=2.0), Array)


def the_classes_that_transforms_make() -> None:
    jitted: pxf.Jit[..., Array] = pxf.jit(forward)
    mapped: pxf.Vmap[..., Array] = pxf.vmap()(forward)
    gradient: pxf.Grad[..., dict[str, Any]] = pxf.grad()(loss)
    both: pxf.ValueAndGrad[..., tuple[Array, dict[str, Any]]] = pxf.value_and_grad()(loss)


def misspelt_keywords_are_refused() -> None:
    pxf.jit(forward)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.vmap(NODES)(forward)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.grad(WEIGHTS)(loss)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.value_and_grad(WEIGHTS)(loss)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    jit_grad_vmap(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]


def misspelt_keywords_of_other_derivatives_are_refused() -> None:
    pxf.jacrev(WEIGHTS)(forward)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.hessian(WEIGHTS)(loss)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.jvp(WEIGHTS)(forward)({}, x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.vjp(WEIGHTS)(forward)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.checkpoint(forward)(x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]
    pxf.eval_shape(forward, x, modle=model)  # E: Unexpected keyword argument "modle" [call-arg]


def other_mistakes_with_derivatives_are_refused() -> None:
    pxf.jvp(WEIGHTS)(forward)({}, "x", model=model)  # E: incompatible type "str"; expected "Array" [arg-type]
    pxf.vjp(WEIGHTS)(forward)(x, model=model)[1]("x")  # E: incompatible type "str"; expected "Array" [arg-type]
    pxf.hessian(WEIGHTS)(loss_and_more)  # E: Argument 1 has incompatible type [arg-type]
    pxf.jacfwd(WEIGHTS, has_aux=True)(forward)  # E: Argument 1 has incompatible type [arg-type]
    pxf.checkpoint(polisy=None)(forward)  # E: "polisy" [call-overload]


def missing_arguments_are_refused() -> None:
    pxf.jit(forward)(x)  # E: Missing named argument "model" [call-arg]
    pxf.vmap(NODES)(forward)(model=model)  # E: Missing positional argument "x" [call-arg]
    pxf.grad(WEIGHTS)(loss)(x)  # E: Missing named argument "model" [call-arg]
    pxf.value_and_grad(WEIGHTS)(loss)(model=model)  # E: Missing positional argument "x" [call-arg]
    jit_grad_vmap(x)  # E: Missing named argument "model" [call-arg]


def extra_arguments_are_refused() -> None:
    pxf.jit(forward)(x, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]
    pxf.vmap(NODES)(forward)(x, model=model, other=x)  # E: Unexpected keyword argument "other" [call-arg]
    pxf.grad(WEIGHTS)(loss)(x, y=x, model=model)  # E: Unexpected keyword argument "y" [call-arg]
    pxf.value_and_grad(WEIGHTS)(loss)(x, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]
    jit_grad_vmap(x, 1.0, model=model, y=x)  # E: Unexpected keyword argument "y" [call-arg]


def arguments_of_other_types_are_refused() -> None:
    pxf.jit(forward)("x", model=model)  # E: incompatible type "str"; expected "Array" [arg-type]
    pxf.vmap(NODES)(forward)(x, model=3)  # E: incompatible type "int"; expected "Model" [arg-type]
    pxf.grad(WEIGHTS)(loss)(x, model=model.layer)  # E: incompatible type "Linear"; expected "Model" [arg-type]
    pxf.value_and_grad(WEIGHTS)(loss)(None, model=model)  # E: incompatible type "None"; expected "Array" [arg-type]
    jit_grad_vmap(x, 3.5j, model=model)  # E: incompatible type "complex"; expected "float" [arg-type]


def a_parameter_is_no_array_and_an_array_no_model() -> None:
    pxf.jit(forward)(px.Param(x), model=model)  # E: incompatible type "Param"; expected "Array" [arg-type]
    pxf.jit(forward)(x, model=x)  # E: incompatible type "Array"; expected "Model" [arg-type]


def results_of_other_types_are_refused() -> None:
    number: int = pxf.jit(forward)(x, model=model)  # E: expression has type "Array" [assignment]
    text: str = pxf.vmap(NODES)(forward)(x, model=model)  # E: expression has type "Array" [assignment]
    value: Array = pxf.grad(WEIGHTS)(loss)(x, model=model)  # E: "dict[str, Any]" [assignment]
    pxf.jit(forward)(x, model=model).shpae  # E: "Array" has no attribute "shpae" [attr-defined]


def methods_refuse_what_their_functions_do(scaled: Scaled) -> None:
    scaled.loss(x, scael=2.0)  # E: Unexpected keyword argument "scael" [call-arg]
    scaled.loss()  # E: Too few arguments [call-arg]
    scaled.loss("x")  # E: incompatible type "str"; expected "Array" [arg-type]
    number: int = scaled.loss(x)  # E: expression has type "Array" [assignment]


def aux_unpacked_wrongly_is_refused() -> None:
    value, gradients, more = jit_grad_vmap(x, model=model)  # E: Need more than 2 values to unpack [misc]
    (value, (one, two, three)), grads = jit_grad_vmap(x, model=model)  # E: Need more than 2 values to unpack [misc]
    (number, aux), grads = jit_grad_vmap(x, model=model)
    aux.sum()  # E: "tuple[Array, str]" has no attribute "sum" [attr-defined]
    loss_value, grads = pxf.value_and_grad(WEIGHTS)(loss)(x, model=model)
    grads.model  # E: "dict[str, Any]" has no attribute "model" [attr-defined]


def has_aux_must_fit_the_function() -> None:
    pxf.value_and_grad(WEIGHTS, has_aux=True)(loss)  # E: Argument 1 has incompatible type [arg-type]
    pxf.grad(WEIGHTS, has_aux=True)(loss)  # E: Argument 1 has incompatible type [arg-type]
    pxf.value_and_grad(WEIGHTS)(loss_and_more)  # E: cannot be "tuple[Array, int, str]" [type-var]
    pxf.grad(WEIGHTS)(loss_and_more)  # E: Argument 1 has incompatible type [arg-type]


def masks_of_the_wrong_kind_are_refused() -> None:
    pxf.vmap("model")  # E: Argument 1 to "vmap" has incompatible type "str" [arg-type]
    pxf.vmap({"model": "batch"})  # E: Dict entry 0 has incompatible type "str": "str" [dict-item]
    pxf.vmap({"model": 0.5})  # E: Dict entry 0 has incompatible type "str": "float" [dict-item]
    pxf.grad({"model": 0})  # E: Dict entry 0 has incompatible type "str": "int" [dict-item]
    pxf.grad([pxnn.LayerParam])  # E: No overload variant of "grad" matches [call-overload]
    pxf.value_and_grad(True)  # E: No overload variant of "value_and_grad" matches [call-overload]


def options_that_there_are_not_are_refused() -> None:
    pxf.jit(static_argname="x")(forward)  # E: "jit" [call-overload]
    pxf.vmap(NODES, in_axis=0)  # E: Unexpected keyword argument "in_axis" [call-arg]
    pxf.vmap(NODES, in_axes=0.5)  # E: Argument "in_axes" to "vmap" has incompatible type "float" [arg-type]
    pxf.grad(WEIGHTS, has_aux=1)  # E: No overload variant of "grad" matches [call-overload]
    pxf.jit(3)  # E: No overload variant of "jit" matches [call-overload]

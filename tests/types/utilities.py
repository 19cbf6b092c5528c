"""Masks, optimisers, statuses, files."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import optax
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.types.common import Model, loss, model, x

WEIGHTS = pxu.M(pxnn.LayerParam)
optim = pxu.Optim(optax.sgd(0.1), WEIGHTS(model))
gradients = pxf.grad({"model": WEIGHTS})(loss)(x, model=model)


def is_small(param: px.Param) -> bool:
    return param.size < 10


def masks_combine() -> None:
    assert_type(WEIGHTS | pxc.VodeParam, pxu.M)
    assert_type((WEIGHTS & ~pxu.M(is_small)) | None, pxu.M)
    assert_type(pxu.M(pxnn.LayerParam | pxc.VodeParam).hasnot(frozen=True), pxu.M)
    assert_type(pxu.M_is(pxnn.LayerParam, is_small, WEIGHTS), pxu.M)
    assert_type(pxu.M_has(px.Param, ndim=2), pxu.M)
    assert_type(pxu.M_hasnot(frozen=True), pxu.M)
    assert_type(WEIGHTS.to((None, 0)).to(None), pxu.M)
    assert_type(WEIGHTS.apply(px.Param()), bool)


def a_masked_tree_has_the_type_of_the_tree() -> None:
    assert_type(WEIGHTS(model), Model)
    assert_type(WEIGHTS([model.layer], is_pytree=True), list[pxnn.Linear])


def optimisers() -> None:
    assert_type(pxu.Optim(lambda: optax.adam(1e-3)), pxu.Optim)
    assert_type(optim.init(WEIGHTS(model)), None)
    assert_type(optim.step(model, gradients["model"], scale_by=0.5, apply_updates=False), Any)
    assert_type(optim.step([model.layer], [None], allow_none=True), Any)
    assert_type(optim.state, px.Param)
    assert_type(optim.step(model, gradients["model"], np.float32(0.5)), Any)
    assert_type(optim.retarget(WEIGHTS([model])), None)
    assert_type(optim.clear(), None)
    assert_type(pxu.Optim(optax.MultiSteps(optax.sgd(0.1), 2)), pxu.Optim)


def optimisers_of_nodes() -> None:
    each = pxu.OptimTree(optax.adam(1e-3), lambda node: isinstance(node, pxnn.Layer), model)
    assert_type(each.step(model, gradients["model"], scale_by=x), None)
    assert_type(pxu.OptimTree(optax.adam(1e-3), pxnn.Linear).retarget(model), None)
    assert_type(each.state, px.Param)


def steps() -> None:
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        model(x)
    with pxu.step([model], ("inference", None), clear_params=(None, WEIGHTS)):
        model(x)


def files(path: Path) -> None:
    assert_type(pxu.save_params(model, path), None)
    assert_type(pxu.load_params(optim, "weights", filter=px.Param), None)
    assert_type(pxu.saved_params(path), dict[str, tuple[tuple[int, ...], str]])


def what_is_no_filter_is_refused() -> None:
    pxu.M(3)  # E: incompatible type "int" [arg-type]
    pxu.M("LayerParam")  # E: incompatible type "str" [arg-type]
    WEIGHTS & 3  # E: Unsupported operand types for & ("M" and "int") [operator]
    pxu.M_is(3)  # E: incompatible type "int" [arg-type]
    pxu.M_is()  # E: Missing positional argument "mask" [call-arg]
    WEIGHTS.values = (None, 0)  # E: Property "values" defined in "M" is read-only [misc]
    WEIGHTS.to(3)  # E: incompatible type "int" [arg-type]
    WEIGHTS.apply()  # E: Missing positional argument "leaf" [call-arg]


def what_is_no_optimiser_is_refused() -> None:
    pxu.Optim(0.1)  # E: incompatible type "float" [arg-type]
    pxu.Optim(optax.sgd)  # E: Argument 1 to "Optim" has incompatible type [arg-type]
    pxu.Optim(optax.MultiSteps)  # E: Argument 1 to "Optim" has incompatible type [arg-type]
    optax.sgd("fast")  # E: incompatible type "str" [arg-type]


def gradients_that_are_none_are_refused() -> None:
    value = loss(x, model=model)
    optim.step(model, value)  # E: Argument 2 to "step" of "Optim" has incompatible type "Array" [arg-type]
    optim.step(model, 0.5)  # E: incompatible type "float" [arg-type]
    optim.step(model)  # E: Missing positional argument "grads" [call-arg]
    optim.step(model, gradients["model"], scale="big")  # E: Unexpected keyword argument "scale" [call-arg]
    optim.step(model, gradients["model"], "big")  # E: incompatible type "str" [arg-type]
    optim.steps(model)  # E: "Optim" has no attribute "steps" [attr-defined]


def other_arguments_of_step_are_refused() -> None:
    pxu.step(model, 3)  # E: incompatible type "int" [arg-type]
    pxu.step(model, clear_params="cache")  # E: incompatible type "str" [arg-type]
    pxu.step(model, status=None, clear=None)  # E: Unexpected keyword argument "clear" [call-arg]
    with pxu.step(model) as inside:
        inside.energy()  # E: "None" has no attribute "energy" [attr-defined]


def other_arguments_of_files_are_refused() -> None:
    pxu.save_params(model)  # E: Missing positional argument "path" [call-arg]
    pxu.save_params(model, 3)  # E: incompatible type "int" [arg-type]
    saved: Array = pxu.saved_params("weights")["layer"]  # E: variable has type "Array" [assignment]

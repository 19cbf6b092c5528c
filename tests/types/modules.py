"""Modules, the tree they form, and what walks it."""

from collections.abc import Iterator
from typing import Any, assert_type

from jax import Array

import minipcax as px
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
from tests.types.common import Model, model, x


def submodules_are_of_the_class_asked_for() -> None:
    assert_type(model.submodules(), Iterator[px.BaseModule])
    assert_type(model.submodules(pxnn.Linear), Iterator[pxnn.Linear])
    nodes: list[pxc.Vode[Any]] = list(model.submodules(cls=pxc.Vode))


def modes() -> None:
    model.train()
    model.eval()
    assert_type(model.mode(px.Module.MODE.TRAIN), px.Module.MODE | None)
    assert_type(model.is_train, bool)


def attributes_keep_their_types() -> None:
    assert_type(model.layer.nn.weight, pxnn.LayerParam)
    assert_type(model.layer.nn.bias, pxnn.LayerParam | None)
    assert_type(model.act_fn(x), Array)


def trees_keep_their_types() -> None:
    assert_type(px.tree_ref(model), Model)
    assert_type(px.tree_unref([model]), list[Model])
    assert_type(px.tree_inject(model, values=[x]), Model)
    px.tree_apply(lambda node: node.set(None), lambda node: isinstance(node, px.Param), model)


def what_is_extracted_has_the_type_that_extract_fn_gives() -> None:
    def shape(param: px.Param) -> tuple[int, ...]:
        return param.shape

    assert_type(px.tree_extract(model, extract_fn=shape), tuple[tuple[int, ...], ...])
    assert_type(px.tree_extract(model), tuple[Any, ...])


def unknown_members_are_refused() -> None:
    model.trian()  # E: "Model" has no attribute "trian" [attr-defined]
    model.layer.nn.wieght  # E: "Weights" has no attribute "wieght" [attr-defined]
    px.Module.MODE.TEST  # E: has no attribute "TEST" [attr-defined]


def modes_are_members_and_not_strings() -> None:
    model.mode("train")  # E: incompatible type "str"; expected "MODE | None" [arg-type]


def other_arguments_of_walks_are_refused() -> None:
    list(model.submodules(cls=px.Param))  # E: cannot be "Param" [type-var]
    px.tree_inject(model, value=[x])  # E: Unexpected keyword argument "value" [call-arg]
    px.tree_extract(model, filter_fn=3)  # E: No overload variant of "tree_extract" matches [call-overload]
    px.tree_apply(print, 3, model)  # E: Argument 2 to "tree_apply" has incompatible type "int" [arg-type]


class Narrower(Model):
    def __call__(self, x: str) -> str:  # E: Signature of "__call__" incompatible with supertype [override]
        return x


class OtherMode(px.Module):
    def mode(self) -> None: ...  # E: Signature of "mode" incompatible with supertype [override]

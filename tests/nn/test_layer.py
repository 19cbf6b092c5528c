"""What all layers have in common, and `Layer` around callable pytrees from elsewhere."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.nn.oracles import normal
from tests.oracles import close


@jax.tree_util.register_dataclass
@dataclass
class Gain:
    factor: np.ndarray[Any, Any]
    inference: bool = False

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return x if self.inference else x * self.factor


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "act_fn", "gain"], meta_fields=["inference"])
@dataclass(frozen=True)
class Foreign:
    """A callable pytree like those of other libraries: arrays, a function, a nested pytree, and a static flag."""

    weight: jax.Array
    act_fn: Callable[[jax.Array], jax.Array] = jnp.tanh
    gain: Gain = field(default_factory=lambda: Gain(np.full(2, 3.0, np.float32)))
    inference: bool = False

    def __call__(self, x: jax.Array, **kwargs: jax.Array) -> Any:
        y = self.act_fn(self.gain(self.weight @ x))
        return (y, *kwargs) if self.inference or kwargs else y


def foreign(filter: Callable[[Any], bool] | None = None) -> pxnn.Layer:
    return pxnn.Layer(Foreign, normal(0, (2, 3)), **({} if filter is None else {"filter": filter}))


def test_arrays_become_weights_and_the_rest_static() -> None:
    layer = foreign()
    assert isinstance(layer.nn, Foreign)
    assert isinstance(layer.nn.weight, pxnn.LayerParam)
    assert isinstance(layer.nn.gain.factor, pxnn.LayerParam)
    assert isinstance(layer.nn.act_fn, px.StaticParam)
    assert isinstance(layer.nn.gain.inference, px.StaticParam)
    assert "  .nn.weight: LayerParam([2,3], float32)" in repr(layer).splitlines()


def test_the_filter_chooses() -> None:
    layer = foreign(lambda leaf: isinstance(leaf, jax.Array))
    assert isinstance(layer.nn.weight, pxnn.LayerParam)
    assert isinstance(layer.nn.gain.factor, pxnn.LayerState), "an array cannot be static"
    assert not isinstance(layer.nn.gain.factor, pxnn.LayerParam)
    close(layer(jnp.ones(3)), jnp.tanh(3 * layer.nn.weight.get().sum(1)))


def test_parameters_are_kept() -> None:
    param = px.Param(jnp.ones((2, 3)))
    layer = pxnn.Layer(Foreign, param)
    assert layer.nn.weight is param


def test_a_call_returns_what_the_pytree_returns() -> None:
    layer, x = foreign(), normal(1, (3,))
    expected = jnp.tanh(3 * normal(0, (2, 3)) @ x)
    close(layer(x), expected)
    close(pxf.jit()(lambda x, *, layer: layer(x))(x, layer=layer), expected)


def test_key_is_passed_on_only_when_given() -> None:
    layer, x = foreign(), normal(1, (3,))
    assert isinstance(layer(x, key=None), jax.Array)
    assert layer(x, key=jax.random.PRNGKey(0))[1] == "key"


def test_mode_sets_every_inference_flag() -> None:
    layer, x = foreign(), normal(1, (3,))
    layer.eval()
    assert layer.nn.inference is True
    assert layer.nn.gain.inference == True  # noqa: E712  # a StaticParam
    close(layer(x)[0], jnp.tanh(normal(0, (2, 3)) @ x))
    layer.mode(None)
    assert layer.nn.inference is True
    layer.train()
    assert layer.nn.inference is False
    close(layer(x), jnp.tanh(3 * normal(0, (2, 3)) @ x))


def test_the_parameters_of_a_layer_are_frozen_together() -> None:
    layer = pxnn.Linear(3, 2)
    layer.nn.frozen = True
    assert layer.frozen
    assert all(param.frozen for param in px.tree_extract(layer))


def test_mode_leaves_an_inference_that_is_a_subclass_own() -> None:
    class Own(pxnn.Linear):
        @property
        def inference(self) -> bool:  # type: ignore[override]  # nothing else may be set
            return self.is_eval

    layer = Own(3, 2)
    layer.eval()
    assert layer.inference


def test_mode_reaches_layers_from_a_model() -> None:
    class Model(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers: list[Any] = [foreign(), pxnn.Dropout(0.5)]

    model = Model()
    model.eval()
    assert [model.layers[0].nn.inference, model.layers[1].inference] == [True, True]
    assert [layer.is_eval for layer in model.layers] == [True, True]


def test_a_mode_set_inside_a_transform_does_not_escape() -> None:
    @pxf.jit()
    def call(x: jax.Array, *, layer: pxnn.Layer) -> Any:
        layer.eval()
        return layer(x)[0]

    layer, x = foreign(), normal(1, (3,))
    close(call(x, layer=layer), jnp.tanh(normal(0, (2, 3)) @ x))
    assert layer.nn.inference is False
    assert not layer.is_eval


SIGNATURES: dict[type[pxnn.Layer], str] = {
    pxnn.Linear: "in_features, out_features, bias=True",
    pxnn.Conv: "num_spatial_dims, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
    "use_bias=True, padding_mode='ZEROS', dtype=None",
    pxnn.ConvTranspose: "num_spatial_dims, in_channels, out_channels, kernel_size, stride=1, padding=0, "
    "output_padding=0, dilation=1, groups=1, use_bias=True, padding_mode='ZEROS', dtype=None",
    **dict.fromkeys(
        (pxnn.Conv1d, pxnn.Conv2d, pxnn.Conv3d),
        "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, use_bias=True, "
        "padding_mode='ZEROS', dtype=None",
    ),
    pxnn.Pool: "init, operation, num_spatial_dims, kernel_size, stride=1, padding=0, use_ceil=False",
    **dict.fromkeys((pxnn.MaxPool2d, pxnn.AvgPool2d), "kernel_size, stride=1, padding=0, use_ceil=False"),
    pxnn.AdaptivePool: "target_shape, num_spatial_dims, operation",
    **dict.fromkeys((pxnn.AdaptiveAvgPool2d, pxnn.AdaptiveMaxPool2d), "target_shape"),
    pxnn.Dropout: "p=0.5, inference=False",
    pxnn.LayerNorm: "shape=None, eps=1e-05, use_weight=True, use_bias=True, dtype=None",
    pxnn.BatchNorm: "input_size, axis_name, eps=1e-05, channelwise_affine=True, momentum=0.99, inference=False, "
    "dtype=None",
    pxnn.Transposed: "layer, use_bias=True, output_padding=0",
}


@pytest.mark.parametrize(("cls", "expected"), SIGNATURES.items())
def test_every_argument_is_in_the_signature(cls: type[pxnn.Layer], expected: str) -> None:
    """Where an editor shows it: no argument travels through `*args`."""
    params = inspect.signature(cls).parameters.values()
    assert {param.kind for param in params} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    positional = [param for param in params if param.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    without_types = [param.replace(annotation=inspect.Parameter.empty) for param in positional]
    assert ", ".join(map(str, without_types)) == expected


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (pxnn.Linear(3, 2), {"in_features": 3, "out_features": 2, "use_bias": True}),
        (pxnn.Conv2d(2, 4, (3, 1), padding=1), {"kernel_size": (3, 1), "padding": ((1, 1), (1, 1)), "groups": 1}),
        (pxnn.ConvTranspose(1, 2, 4, 3, 2, output_padding=1), {"stride": (2,), "output_padding": (1,)}),
        (pxnn.Transposed(pxnn.Linear(3, 2)), {"in_features": 2, "out_features": 3}),
        (pxnn.Transposed(pxnn.Conv1d(2, 4, 3)), {"in_channels": 4, "out_channels": 2, "in_features": None}),
        (pxnn.LayerNorm((2, 3), use_bias=False), {"shape": (2, 3), "eps": 1e-5}),
        (pxnn.BatchNorm(3, "batch", channelwise_affine=False), {"input_size": 3, "axis_name": "batch"}),
        (pxnn.MaxPool2d(2), {"kernel_size": (2, 2), "num_spatial_dims": 2}),
        (pxnn.AdaptiveAvgPool2d(2), {"target_shape": (2, 2)}),
        (pxnn.Dropout(0.25), {"p": 0.25, "inference": False}),
    ],
)
def test_a_layer_holds_its_sizes_and_nn_its_parameters(layer: Any, sizes: dict[str, Any]) -> None:
    assert {name: getattr(layer, name) for name in sizes} == sizes
    assert all(type(held) is pxnn.LayerParam for held in vars(layer.nn).values())
    assert vars(layer.nn).keys() <= {"weight", "bias"}
    assert not callable(layer.nn)
    leaves = len(jax.tree.leaves(layer)) - len(jax.tree.leaves(getattr(layer, "state", None)))
    assert leaves == len(vars(layer.nn)), "sizes are structure"


@pytest.mark.parametrize(
    "layer",
    [pxnn.Linear(4, 2), pxnn.MaxPool2d(2), pxnn.ConvTranspose(2, 1, 1, 2), pxnn.LayerNorm(4), pxnn.Dropout(0.0)],
)
def test_a_parameter_stands_for_its_array(layer: pxnn.Layer) -> None:
    x = jnp.arange(4.0) if isinstance(layer, (pxnn.Linear, pxnn.LayerNorm)) else jnp.arange(4.0).reshape(1, 2, 2)
    np.testing.assert_array_equal(layer(px.Param(x)), layer(x))


def test_a_class_of_uncallable_objects_is_refused() -> None:
    with pytest.raises(TypeError, match="expects a class of callable pytrees, found <class 'dict'>"):
        pxnn.Layer(dict, a=1)  # type: ignore[type-var]  # mypy refuses it as well


def test_a_parameter_is_replaced_by_a_parameter() -> None:
    a, b = pxnn.Linear(2, 2), pxnn.Linear(2, 2)
    b.nn.weight = a.nn.weight
    assert b.nn.weight is a.nn.weight
    b.nn.weight *= 2
    assert b.nn.weight is a.nn.weight


@pytest.mark.parametrize("value", [jnp.ones((2, 2)), np.ones((2, 2)), 1.0, None])
def test_a_parameter_is_not_replaced_by_an_array(value: Any) -> None:
    layer = pxnn.Linear(2, 2)
    before = layer.nn.weight
    with pytest.raises(TypeError, match=re.escape("change the value with .weight.set(...), or assign another param")):
        layer.nn.weight = value
    assert layer.nn.weight is before


def test_an_array_is_not_accepted_for_a_missing_parameter() -> None:
    with pytest.raises(TypeError, match=r"layer\.nn\.bias takes a parameter, found a"):
        pxnn.Linear(2, 2, bias=False).nn.bias = jnp.ones(2)  # type: ignore[assignment]  # what is tested


def test_a_foreign_layer_trains_in_a_predictive_coding_network() -> None:
    class Model(pxc.EnergyModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = foreign()
            self.vode = pxc.Vode()

        def __call__(self, x: jax.Array) -> jax.Array:
            u: jax.Array = self.vode(self.layer(x))
            return u

    @pxf.jit()
    @pxf.value_and_grad({"model": pxu.M(pxnn.LayerParam)})
    def energy(x: jax.Array, y: jax.Array, *, model: Model) -> jax.Array:
        model(x)
        model.vode.set("h", y)
        return model.energy()

    model, x, y = Model(), normal(1, (3,)), normal(2, (2,))
    weight, factor = model.layer.nn.weight.get(), jnp.full(2, 3.0)

    def by_hand(weight: jax.Array, factor: jax.Array) -> jax.Array:
        return 0.5 * ((y - jnp.tanh(factor * (weight @ x))) ** 2).sum()

    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        value, grads = energy(x, y, model=model)
    expected, (weight_grad, factor_grad) = jax.value_and_grad(by_hand, argnums=(0, 1))(weight, factor)
    close(value, expected)
    close(grads["model"].layer.nn.weight.get(), weight_grad)
    close(grads["model"].layer.nn.gain.factor.get(), factor_grad)

    optim = pxu.Optim(optax.sgd(0.1), pxu.M(pxnn.LayerParam)(model))
    optim.step(model, grads["model"])
    close(model.layer.nn.weight.get(), weight - 0.1 * weight_grad)

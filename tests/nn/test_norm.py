import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.nn.oracles import normal, value_and_gradients
from tests.oracles import close


@pytest.mark.parametrize(
    ("shape", "options"),
    [((5,), {}), ((2, 3, 4), {"eps": 0.1}), ((4,), {"use_weight": False}), ((2, 3), {"use_bias": False})],
)
def test_layer_norm_is_its_equation(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    layer = pxnn.LayerNorm(shape if len(shape) > 1 else shape[0], **options)
    eps = options.get("eps", 1e-5)
    for seed, name in enumerate(("weight", "bias")):
        param = getattr(layer.nn, name)
        assert (param is None) is not options.get(f"use_{name}", True)
        if param is not None:
            np.testing.assert_array_equal(param.get(), np.full(shape, float(name == "weight")))
            param.set(normal(seed + 5, shape))
    params = {name: getattr(layer.nn, name) for name in ("weight", "bias") if getattr(layer.nn, name) is not None}

    def by_hand(values: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        variance = (x**2).mean() - x.mean() ** 2
        return values.get("weight", 1.0) * (x - x.mean()) / jnp.sqrt(variance + eps) + values.get("bias", 0.0)

    x, direction = 3 * normal(0, shape) + 1, normal(1, shape)
    values = {name: param.get() for name, param in params.items()}
    y, grads, x_grad = value_and_gradients(layer, x, direction)
    close(y, by_hand(values, x), 1e-4)
    expected, expected_x = jax.grad(lambda v, x: (by_hand(v, x) * direction).sum(), argnums=(0, 1))(values, x)
    close(x_grad, expected_x, 1e-4)
    assert grads.keys() == expected.keys()
    for name, gradient in grads.items():
        close(gradient, expected[name], 1e-4)


def test_layer_norm_without_a_shape() -> None:
    layer = pxnn.LayerNorm(use_weight=False, use_bias=False)
    for x in (normal(0, (7,)), normal(1, (2, 3))):
        close(layer(x), (x - x.mean()) / jnp.sqrt(x.var() + 1e-5), 1e-4)
    with pytest.raises(ValueError, match="LayerNorm expected shape, that of one sample, found None"):
        pxnn.LayerNorm()


def test_layer_norm_in_half_precision() -> None:
    x = (100 + normal(0, (256,))).astype(jnp.bfloat16)
    y = pxnn.LayerNorm(256, dtype=jnp.bfloat16)(x)
    exact = np.asarray(x, np.float64)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float64), (exact - exact.mean()) / exact.std(), rtol=0.02, atol=0.02)


def forward(axis_name: str = "batch") -> Callable[..., jax.Array]:
    @pxf.jit()
    @pxf.vmap(axis_name=axis_name)
    def call(x: jax.Array, *, layer: pxnn.BatchNorm) -> jax.Array:
        return layer(x)

    return call


@pytest.mark.parametrize(
    ("shape", "momentum", "affine", "eps"),
    [((3,), 0.9, True, 1e-5), ((2, 4, 3), 0.5, True, 0.1), ((2, 5), 0.99, False, 1e-3)],
)
def test_batch_norm_moves_its_statistics(shape: tuple[int, ...], momentum: float, affine: bool, eps: float) -> None:
    layer = pxnn.BatchNorm(shape[0], "batch", eps, affine, momentum)
    weight, bias = np.ones(shape[0]), np.zeros(shape[0])
    if affine:
        assert layer.nn.weight is not None and layer.nn.bias is not None
        np.testing.assert_array_equal(layer.nn.weight.get(), weight)
        np.testing.assert_array_equal(layer.nn.bias.get(), bias)
        weight, bias = np.asarray(normal(8, shape[:1])), np.asarray(normal(9, shape[:1]))
        layer.nn.weight.set(jnp.asarray(weight))
        layer.nn.bias.set(jnp.asarray(bias))
    call, state = forward(), layer.state
    mean = var = np.zeros(shape[0])
    axes = (0, *range(2, len(shape) + 1))
    column = (-1, *(1,) * (len(shape) - 1))
    for step in range(3):
        x = np.asarray((step + 1) * normal(step, (6, *shape)) + step)
        y = call(jnp.asarray(x), layer=layer)
        old = momentum if step else 0.0
        mean = old * mean + (1 - old) * x.mean(axes)
        var = old * var + (1 - old) * x.var(axes)
        expected = (x - mean.reshape(column)) / np.sqrt(var.reshape(column) + eps)
        close(y, weight.reshape(column) * expected + bias.reshape(column), 1e-4)
        assert layer.state is state
        close(state.get().mean, mean, 1e-4)
        close(state.get().var, var, 1e-4)

    before = state.get()
    layer.eval()
    frozen = call(jnp.asarray(x + 7), layer=layer)
    close(
        frozen,
        weight.reshape(column) * (x + 7 - mean.reshape(column)) / np.sqrt(var.reshape(column) + eps)
        + bias.reshape(column),
        1e-3,
    )
    assert all(now is then for now, then in zip(state.get(), before, strict=True)), "nothing is even written"
    close(layer(jnp.asarray(x[0] + 7)), frozen[0], 1e-4)
    layer.train()
    call(jnp.asarray(x), layer=layer)
    assert float(jnp.abs(state.get().mean - before.mean).max()) > 0


@pytest.mark.thorough
def test_batch_norm_gradients() -> None:
    layer = pxnn.BatchNorm(2, "batch", 1e-3, momentum=0.8)
    first, x, direction = normal(0, (5, 2, 3)), 2 * normal(1, (5, 2, 3)) + 1, normal(2, (5, 2, 3))
    call = forward()
    call(first, layer=layer)

    def by_hand(weight: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
        def move(statistic: Callable[..., jax.Array]) -> jax.Array:
            mixed = 0.8 * statistic(first, (0, 2)) + 0.2 * statistic(x, (0, 2))
            return mixed[None, :, None]

        y = (x - move(jnp.mean)) / jnp.sqrt(move(jnp.var) + 1e-3)
        return ((weight[None, :, None] * y + bias[None, :, None]) * direction).sum()

    @pxf.value_and_grad({"layer": pxu.M(pxnn.LayerParam)}, argnums=0)
    def loss(x: jax.Array, *, layer: pxnn.BatchNorm) -> jax.Array:
        return (call(x, layer=layer) * direction).sum()

    value, (x_grad, grads) = loss(x, layer=layer)
    expected, gradients = jax.value_and_grad(by_hand, argnums=(0, 1, 2))(jnp.ones(2), jnp.zeros(2), x)
    close(value, expected, 1e-4)
    nn = grads["layer"].nn
    for actual, gradient in zip((nn.weight.get(), nn.bias.get(), x_grad), gradients, strict=True):
        close(actual, gradient, 1e-4)
    close(layer.state.get().mean, 0.8 * first.mean((0, 2)) + 0.2 * x.mean((0, 2)), 1e-4)


def test_statistics_are_one_state_that_no_weight_mask_selects() -> None:
    layer = pxnn.BatchNorm(3, "batch")
    states = [p for p in px.tree_extract(layer) if not isinstance(p, pxnn.LayerParam)]
    assert [type(state) for state in states] == [pxnn.StateParam]
    selected = pxu.M(pxnn.LayerParam)(layer)
    assert selected.state is None
    assert selected.nn.weight is layer.nn.weight


def test_a_loop_over_inference_moves_them_only_when_asked() -> None:
    layer, xs = pxnn.BatchNorm(2, "batch", momentum=0.5), normal(0, (4, 6, 2))
    layer.train()
    call = forward()
    call(xs[0], layer=layer)
    before = layer.state.get().mean

    def relax(x: jax.Array, *, layer: pxnn.BatchNorm) -> tuple[tuple[()], jax.Array]:
        if frozen:
            layer.eval()
        return (), call(x, layer=layer)

    frozen = True
    _, ys = pxf.scan(relax, xs)(layer=layer)
    np.testing.assert_array_equal(layer.state.get().mean, before)
    assert layer.is_train, "what is asked inside a transform does not escape"
    close(ys[1], (xs[1] - before[None]) / jnp.sqrt(layer.state.get().var[None] + 1e-5), 1e-4)
    frozen = False
    pxf.scan(relax, xs)(layer=layer)
    expected = before
    for x in xs:
        expected = 0.5 * expected + 0.5 * x.mean(0)
    close(layer.state.get().mean, expected)


def test_retracing_and_lanes() -> None:
    traces = 0

    @pxf.jit()
    @pxf.vmap(axis_name="batch")
    def call(x: jax.Array, *, layer: pxnn.BatchNorm) -> jax.Array:
        nonlocal traces
        traces += 1
        return layer(x)

    layer = pxnn.BatchNorm(2, "batch")
    for mode, expected in ((None, 1), (px.Module.MODE.TRAIN, 2), (px.Module.MODE.EVAL, 3), (px.Module.MODE.TRAIN, 3)):
        layer.mode(mode)
        for seed in range(3):
            call(normal(seed, (4, 2)), layer=layer)
        assert traces == expected


def test_before_any_batch_eval_leaves_x_almost_as_it_is() -> None:
    x = normal(0, (3, 4))
    close(pxnn.BatchNorm(3, "batch", inference=True)(x), x / np.sqrt(1 + 1e-5))


def test_half_precision() -> None:
    x = normal(0, (8, 3)).astype(jnp.bfloat16)
    layer = pxnn.BatchNorm(3, "batch", dtype=jnp.bfloat16)
    assert layer.state.get().mean.dtype == jnp.bfloat16
    assert forward()(x, layer=layer).dtype == jnp.bfloat16
    assert layer.state.get().var.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pxnn.BatchNorm(0, "batch"), "input_size to be a positive int, found 0"),
        (lambda: pxnn.BatchNorm(2, "batch", momentum=1.5), "momentum to be a weight, from 0 to 1, found 1.5"),
        (lambda: pxnn.BatchNorm(2, "batch")(jnp.ones(2)), "called inside vmap(..., axis_name='batch')"),
        (lambda: forward("lanes")(jnp.ones((4, 2)), layer=pxnn.BatchNorm(2, "batch")), "found no such axis"),
        (lambda: pxnn.BatchNorm(2, "batch")(jnp.ones((3, 2))), "BatchNorm expected x of shape (2, axis1)"),
        (lambda: pxnn.BatchNorm(2, "batch")(jnp.ones(())), "BatchNorm expected x of shape (2,), one sample, found ()"),
        (lambda: pxnn.LayerNorm((2, 3))(jnp.ones((4, 2, 3))), "LayerNorm expected x of shape (2, 3), found (4, 2, 3)"),
        (lambda: pxnn.LayerNorm((2, 0)), "shape to be a positive int, found 0"),
    ],
)
def test_errors(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call()

"""`eval_shape`: the shapes that a call returns, and nothing else that a call does."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array, ShapeDtypeStruct

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.functional.support import Net, Snapshot, X


def struct(*shape: int, dtype: Any = jnp.float32) -> Any:
    return ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]  # jax


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_the_shape_of_a_product() -> None:
    def product(x: Array, *, w: px.Param) -> Any:
        return w @ x

    found = pxf.eval_shape(product, struct(3, 5), w=px.Param(jnp.ones((2, 3))))
    assert isinstance(found, ShapeDtypeStruct)
    assert (found.shape, found.dtype) == ((2, 5), jnp.float32)


def test_it_equals_jax() -> None:
    def fn(x: Any, w: Any) -> Any:
        return {"a": w @ x, "b": (x > 0, None, [x.astype(jnp.float16)])}

    def tracked(x: Array, *, w: px.Param) -> Any:
        return fn(x, w.get())

    found = pxf.eval_shape(tracked, X, w=px.Param(jnp.eye(2)))
    assert shapes(found) == shapes(jax.eval_shape(fn, X, jnp.eye(2)))


def test_nothing_is_written_or_drawn() -> None:
    model = Net()
    before = Snapshot(model)

    def fn(x: Array, *, model: Net) -> Array:
        model.state += x
        model.cache["u"] = model.state.get()
        return model(x) + jax.random.normal(px.RKG(), x.shape)

    assert pxf.eval_shape(fn, X, model=model).shape == (2,)
    before.check()


def test_nothing_changes_if_the_function_raises() -> None:
    model = Net()
    before = Snapshot(model)

    def fn(*, model: Net) -> None:
        model.state *= 2.0
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        pxf.eval_shape(fn, model=model)
    before.check()


def test_outputs_keep_their_sharing() -> None:
    p = px.Param(X)

    def twice(*, p: px.Param) -> list[px.Param]:
        return [p, p]

    one, other = pxf.eval_shape(twice, p=p)
    assert one is other
    assert type(one) is px.Param
    assert one.get().shape == (2,)
    assert p.get() is X


def test_a_model_that_is_not_made() -> None:
    """A constructor by its shapes, and then a call of what it would make."""
    key = px.RKG.key.get()
    model = pxf.eval_shape(lambda: pxnn.Linear(1000, 3))
    assert px.RKG.key.get() is key
    assert shapes(model.nn.weight.get()) == ((3, 1000), jnp.float32)
    assert pxf.eval_shape(lambda x, model: model(x), struct(1000), model).shape == (3,)

    def tracked(x: Array, *, model: pxnn.Linear) -> Any:
        return model(x)

    assert pxf.eval_shape(tracked, struct(1000), model=model).shape == (3,)


def test_methods_modules_and_transforms() -> None:
    layer = pxnn.Linear(2, 3)
    assert pxf.eval_shape(layer, X).shape == (3,)
    assert pxf.eval_shape(layer.__call__, X).shape == (3,)
    assert pxf.eval_shape(pxf.vmap({"layer": None})(lambda x, *, layer: layer(x)), struct(7, 2), layer=layer).shape == (
        7,
        3,
    )
    grads = pxf.eval_shape(pxf.grad({"layer": True})(lambda x, *, layer: layer(x).sum()), X, layer=layer)
    assert grads["layer"].nn.weight.get().shape == (3, 2)


def test_inside_jit() -> None:
    @pxf.jit
    def fn(x: Array, *, layer: pxnn.Linear) -> Array:
        return jnp.zeros(pxf.eval_shape(layer, x).shape)

    assert fn(X, layer=pxnn.Linear(2, 3)).shape == (3,)

"""A call that raises leaves everything as it was, wherever it raises."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import minipcax as px
import minipcax.functional as pxf
from tests.functional.support import NESTINGS, WRAPPERS, Function, Net, Snapshot, check_no_tracer, wrap


class Planted(Exception):
    pass


def change_everything(x: jax.Array, model: Net) -> None:
    model.state += x
    model.first *= 2.0
    model.cleared.set(x)
    model.cache["u"] = 2 * model.cache["u"]
    model.cache["new"] = x
    model.table["z"].set("changed")
    model.table["a"].get()
    model.eval()
    model.first.frozen = True
    px.RKG(3)


def test_a_call_that_fails_writes_nothing() -> None:
    @pxf.jit
    def step(*, model: px.Param) -> None:
        model += 1.0
        raise Planted

    model = px.Param(jnp.array(0.0))
    with pytest.raises(Planted):
        step(model=model)
    assert float(model) == 0.0


@pytest.mark.parametrize("names", NESTINGS[1:], ids="-".join)
@pytest.mark.parametrize("point", ["before", "between", "after"])
def test_nothing_changes_when_the_function_raises(names: tuple[str, ...], point: str) -> None:
    model = Net()
    before = Snapshot(model)

    def step(x: jax.Array, *, model: Net) -> jax.Array:
        if point == "before":
            raise Planted
        change_everything(x, model)
        if point == "between":
            raise Planted
        model.state += 1.0
        raise Planted

    with pytest.raises(Planted):
        wrap(step, names)(jnp.array(3.0), model=model)
    before.check()


@pytest.mark.parametrize("outer", WRAPPERS)
@pytest.mark.parametrize("inner", WRAPPERS)
def test_nothing_changes_when_the_outer_function_raises_after_an_inner_call(outer: str, inner: str) -> None:
    model = Net()
    before = Snapshot(model)

    def step(x: jax.Array, *, model: Net) -> jax.Array:
        change_everything(x, model)
        return x

    def outer_step(x: jax.Array, *, model: Net) -> jax.Array:
        px.RKG()
        WRAPPERS[inner](step)(x, model=model)
        raise Planted

    with pytest.raises(Planted):
        WRAPPERS[outer](outer_step)(jnp.array(3.0), model=model)
    before.check()


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_caught_inner_failure_leaves_the_outer_copy_as_it_was(name: str) -> None:
    model = Net()

    def fails(x: jax.Array, *, model: Net) -> jax.Array:
        change_everything(x, model)
        raise Planted

    @pxf.jit
    def step(x: jax.Array, *, model: Net) -> None:
        model.state += 1.0
        key = px.RKG.key.get()
        with pytest.raises(Planted):
            WRAPPERS[name](fails)(x, model=model)
        assert px.RKG.key.get() is key
        assert model.mode() is None
        assert "new" not in model.cache

    step(jnp.array(3.0), model=model)
    assert model.state.tolist() == [2.0, 0.0]
    assert model.first.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert model.cleared.get() is None
    check_no_tracer()


def wrong_shape(fn: Function) -> Function:
    return pxf.value_and_grad({"model": True})(lambda x, *, model: jnp.stack([fn(x, model=model)] * 2))


def wrong_output(fn: Function) -> Function:
    return pxf.jit(lambda x, *, model: (fn(x, model=model), "no array"))


def wrong_axis(fn: Function) -> Function:
    return pxf.vmap({"model": None}, in_axes=0, out_axes=2)(lambda x, *, model: fn(x, model=model))


def per_lane(fn: Function) -> Function:
    def step(x: jax.Array, *, model: Net) -> jax.Array:
        y: jax.Array = fn(x, model=model)
        model.state.set(x)
        return y

    mapped = pxf.vmap({"model": None}, in_axes=0)(step)
    return lambda x, *, model: mapped(jnp.stack([x, 2 * x]), model=model)


def bare_array(fn: Function) -> Function:
    def step(x: jax.Array, *, model: Any) -> jax.Array:
        y: jax.Array = fn(x, model=model)
        model.table = {"a": x}
        return y

    return pxf.jit(step)


@pytest.mark.parametrize("spoil", [wrong_shape, wrong_output, wrong_axis, per_lane, bare_array])
def test_nothing_changes_when_the_transform_itself_refuses(spoil: Callable[[Function], Function]) -> None:
    model = Net()
    before = Snapshot(model)

    def step(x: jax.Array, *, model: Net) -> jax.Array:
        change_everything(jnp.array(1.0), model)
        return jnp.array(1.0)

    with pytest.raises((TypeError, ValueError)):
        spoil(step)(jnp.array(3.0), model=model)
    before.check()


def test_nothing_changes_when_the_compiled_program_fails() -> None:
    model = Net()
    before = Snapshot(model)

    @pxf.jit
    def step(x: jax.Array, *, model: Net) -> jax.Array:
        change_everything(x, model)
        return jnp.log(x)

    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        step(jnp.array(-1.0), model=model)
    before.check()


def test_the_next_call_works() -> None:
    model = Net()
    fail = [True]

    @pxf.jit
    def step(x: jax.Array, *, model: Net) -> jax.Array:
        model.state += x
        if fail[0]:
            raise Planted
        return model.state.sum()

    with pytest.raises(Planted):
        step(jnp.array(1.0), model=model)
    fail[0] = False
    assert float(step(jnp.array(1.0), model=model)) == 2.0
    assert model.state.tolist() == [2.0, 0.0]

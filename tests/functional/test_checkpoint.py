"""`checkpoint`: the same values, gradients, writes and draws as without it, in less memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.functional.support import Net, Snapshot, State, Traces, Weight, X, refused
from tests.oracles import close

WIDTH, DEPTH, BATCH = 32, 8, 256


class Block(px.Module):
    """Two layers with dropout between them, around which there is a residual connection."""

    def __init__(self, width: int = 4, p: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        self.up, self.down = pxnn.Linear(width, 4 * width, rkg=rkg), pxnn.Linear(4 * width, width, rkg=rkg)
        self.dropout = pxnn.Dropout(p)

    def __call__(self, x: Array) -> Array:
        return x + self.down(self.dropout(jnp.tanh(self.up(x)), key=px.RKG()))


class Blocks(pxc.EnergyModule):
    """Blocks, each with a value node behind it."""

    def __init__(self, width: int = 4, depth: int = 2, p: float = 0.5, nodes: bool = True) -> None:
        super().__init__()
        self.blocks = [Block(width, p, seed) for seed in range(depth)]
        self.vodes = [pxc.Vode() for _ in self.blocks] if nodes else []

    def __call__(self, x: Array, wrap: Callable[..., Any] = lambda fn: fn) -> Array:
        for number, block in enumerate(self.blocks):
            if self.vodes:
                x = wrap(lambda x, *, block, vode: vode(block(x)))(x, block=block, vode=self.vodes[number])
            else:
                x = wrap(lambda x, *, block: block(x))(x, block=block)
        return x


def test_a_gradient_that_is_computed_again() -> None:
    """Of sin(wx) with respect to w: x cos(wx)."""

    @pxf.grad({"w": True})
    @pxf.checkpoint
    def loss(x: Array, *, w: px.Param) -> Array:
        return jnp.sin(w * x)

    found = loss(jnp.array(3.0), w=px.Param(jnp.array(2.0)))["w"]
    np.testing.assert_allclose(float(found), 3.0 * np.cos(6.0), rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "wrap", [pxf.checkpoint, pxf.checkpoint(policy=jax.checkpoint_policies.dots_saveable, prevent_cse=False)]
)
def test_value_nodes_and_dropout_give_the_same_with_and_without(wrap: Any, compiled: bool) -> None:
    """Energies, states, gradients, and the key, in a training pass over a batch, and in one of inference."""
    batch = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
    mask = {"model": pxu.M(pxnn.LayerParam | pxc.VodeParam)}

    def run(wrap: Callable[..., Any]) -> Any:
        model = Blocks()
        model.train()
        px.RKG.seed(5)

        @pxf.vmap({"model": pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))})
        def start(x: Array, *, model: Blocks) -> Array:
            return model(x, wrap)

        @pxf.value_and_grad(mask)
        @pxf.vmap({"model": pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))}, out_axes=0)
        def energy(x: Array, *, model: Blocks) -> Array:
            model(x, wrap)
            return model.energy()

        def total(x: Array, *, model: Blocks) -> Any:
            return energy.fn(x, model=model).sum()

        both = pxf.value_and_grad(mask)(total)
        first, second = (pxf.jit(start), pxf.jit(both)) if compiled else (start, both)
        with pxu.step(model, pxc.STATUS.INIT):
            outputs = first(batch, model=model)
        model.vodes[0].h += 0.1
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            value, grads = second(batch, model=model)
        states = [vode.h.get() for vode in model.vodes]
        return outputs, value, jax.tree.leaves(grads), states, px.RKG.key.get()

    found, expected = run(wrap), run(lambda fn: fn)
    assert float(expected[1]) > 0
    np.testing.assert_array_equal(found[-1], expected[-1])
    close(found, expected)


def test_against_jax() -> None:
    weight, state = Weight(jnp.eye(2) * 0.5), State(X)

    def raw(w: Array, s: Array) -> Array:
        return jnp.sum(jnp.sin(w @ jnp.sin(w @ s)))

    fn = pxf.checkpoint(lambda *, weight, state: raw(weight.get(), state.get()))
    found = pxf.value_and_grad({("weight", "state"): True})(fn)(weight=weight, state=state)
    value, (by_w, by_s) = jax.value_and_grad(jax.checkpoint(raw), (0, 1))(weight.get(), state.get())
    close(found, (value, {"weight": Weight(by_w), "state": State(by_s)}))


def test_sharing_by_keyword_by_position_and_in_outputs() -> None:
    model = Net()

    @pxf.checkpoint
    def fn(param: px.Param, again: px.Param, *, model: Net) -> Any:
        assert param is again
        assert model.first is model.layers[0].weight
        model.first *= 2.0
        param += 1.0
        return [param, param], model.layers[0].weight

    p = px.Param(X)
    (one, other), weight = fn(p, p, model=model)
    assert one is other
    assert one is not p
    close((p.get(), one.get()), (X, X + 1))
    close((weight.get(), model.first.get()), (2 * jnp.array([[1.0, 2.0], [3.0, 4.0]]),) * 2)
    assert model.first is model.layers[0].weight


def test_nothing_changes_if_the_function_raises() -> None:
    model = Net()
    before = Snapshot(model)

    @pxf.checkpoint
    def fn(*, model: Net) -> Array:
        model.state *= 2.0
        model.cache["u"] = model.state.get()
        px.RKG()
        raise KeyError("planted")

    for call in (fn, pxf.jit(fn), pxf.grad({})(fn)):
        with pytest.raises(KeyError, match="planted"):
            call(model=model)
    before.check()


def test_writes_are_made_once() -> None:
    p, count = px.Param(jnp.array(2.0)), px.Param(jnp.array(0))

    @pxf.checkpoint
    def fn(*, p: px.Param, count: px.Param) -> Any:
        count += 1
        p *= 3.0
        return jnp.sin(p.get())

    value, grads = pxf.value_and_grad({"p": True})(fn)(p=p, count=count)
    close((value, grads["p"].get(), p.get()), (jnp.sin(6.0), 3 * jnp.cos(6.0), jnp.array(6.0)))
    assert int(count) == 1


def test_a_compiled_gradient_traces_it_once() -> None:
    traces, model = Traces(), Net()

    @pxf.checkpoint
    def fn(x: Array, *, model: Net) -> Any:
        traces()
        return model(x)

    gradient = pxf.jit(pxf.grad({"model": pxu.M(Weight)})(lambda x, *, model: jnp.sum(fn(x, model=model))))
    for x in (X, 2 * X, 3 * X):
        gradient(x, model=model)
    assert traces.new() == 1
    model.train()
    gradient(X, model=model)
    assert traces.new() == 1


def test_what_changes_between_calls_is_seen() -> None:
    """The mode of a model, and a parameter that the function reads from around it."""
    block, scale, x = Block(), px.Param(jnp.array(1.0)), jnp.arange(4.0)
    run = pxf.checkpoint(lambda x, *, block: scale * block(x))
    block.eval()
    plain = run(x, block=block)
    close(plain, block(x))
    scale.set(jnp.array(2.0))
    close(run(x, block=block), 2 * block(x))
    block.train()
    px.RKG.seed(1)
    dropped = run(x, block=block)
    px.RKG.seed(1)
    close(dropped, 2 * block(x))
    assert not np.allclose(2 * plain, dropped)


def test_methods_and_modules() -> None:
    class Layer(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = px.Param(X)

        @pxf.checkpoint
        def apply(self, x: Array) -> Any:
            self.w += 1.0
            return self.w * x

        def __call__(self, x: Array) -> Any:
            return self.w * x

    layer = Layer()
    close(layer.apply(X), (X + 1) * X)
    close(pxf.checkpoint(layer)(X), (X + 1) * X)
    assert repr(pxf.jit(pxf.checkpoint(layer))) == "Jit(fn=Checkpoint(fn=Layer))"


def temporary(wrap: Callable[..., Any]) -> int:
    """The bytes that the gradient of a deep network needs besides its arguments and results."""
    model = Blocks(WIDTH, DEPTH, p=0.5, nodes=False)
    model.train()

    @pxf.vmap({"model": None})
    def step(x: Array, *, model: Blocks) -> Array:
        return model(x, wrap)

    def loss(x: Array, *, model: Blocks) -> Array:
        # A loop, because XLA's compiler for CPUs undoes a checkpoint in straight-line code.
        (x,), _ = pxf.scan(lambda _, x, *, model: (step(x, model=model), None), length=4)(x, model=model)
        return jnp.sum(x**2)

    gradient = pxf.jit(pxf.grad({"model": pxu.M(pxnn.LayerParam)})(loss))
    lowered = gradient.lower(jnp.ones((BATCH, WIDTH)), model=model)
    return int(lowered.compile().memory_analysis().temp_size_in_bytes)  # type: ignore[union-attr]  # where XLA tells


@pytest.mark.thorough
def test_it_takes_less_memory() -> None:
    """Without it, a block keeps what is around tanh and dropout, 4 times as wide as what is between blocks."""
    assert temporary(pxf.checkpoint) < 0.6 * temporary(lambda fn: fn)


def test_mistakes() -> None:
    with refused("unexpected keyword argument 'static_argnum'", TypeError):
        pxf.checkpoint(static_argnum=1)(lambda x: x)  # type: ignore[call-overload]
    model = Net()
    with refused("assigned a bare array|was created inside a transform"):
        pxf.checkpoint(lambda *, model: setattr(model, "extra", px.Param(X)))(model=model)

"""Shared parameters in every transform, against raw JAX, where a weight is one array, used twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.oracles import close

RNG = np.random.default_rng(1)
X = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)  # a batch of samples, or a sequence of inputs
WEIGHTS = pxu.M(pxnn.LayerParam)


class Cell(px.Module):
    """h ← tanh(W [x, h] + b), and a count of how often it was called."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = pxnn.Linear(5, 2, rkg=px.RandomKeyGenerator(seed))
        self.calls = px.Param(jnp.array(0.0))

    def __call__(self, x: Array, h: Array) -> Array:
        self.calls += 1
        return jnp.tanh(self.linear(jnp.concatenate([x, h])))


def raw_cell(weight: Array, bias: Array, x: Array, h: Array) -> Array:
    return jnp.tanh(weight @ jnp.concatenate([x, h]) + bias)


def values(cell: Cell) -> tuple[Array, Array]:
    assert cell.linear.nn.bias is not None
    return cell.linear.nn.weight.get(), cell.linear.nn.bias.get()


def raw_scan(weight: Array, bias: Array) -> Array:
    return jax.lax.scan(lambda h, x: (raw_cell(weight, bias, x, h), None), jnp.ones(2), X)[0].sum()


def one(x: Array, h: Array, *, cell: Cell) -> tuple[Array, None]:
    return cell(x, h), None


@pxf.jit
@pxf.value_and_grad({"cell": WEIGHTS})
def scanned(*, cell: Cell) -> Array:
    """One cell, carried through the steps of a scan."""
    (h,), _ = pxf.scan(one, X)(jnp.ones(2), cell=cell)
    return h.sum()


@pxf.jit
@pxf.value_and_grad({"cells": WEIGHTS})
def unrolled(*, cells: list[Cell]) -> Array:
    """A cell for each step, which share their parameters."""
    h = jnp.ones(2)
    for x, cell in zip(X, cells, strict=True):
        h = cell(x, h)
    return h.sum()


def test_scanned_and_unrolled_are_one_weight_used_in_every_step() -> None:
    cell = Cell()
    weight, bias = values(cell)
    expected, gradients = jax.jit(jax.value_and_grad(raw_scan, argnums=(0, 1)))(weight, bias)

    energy, grads = scanned(cell=cell)
    close((energy, values(grads["cell"])), (expected, gradients))
    assert float(cell.calls) == len(X)

    cells = [cell, *(pxnn.shared(cell) for _ in X[1:])]
    energy, grads = unrolled(cells=cells)
    close((energy, values(grads["cells"][0])), (expected, gradients))
    assert jax.tree.leaves(grads["cells"][1:]) == [], "all of the gradient is at the first occurrence"
    assert float(cells[-1].calls) == 2 * len(X)
    assert all(a is b for other in cells for a, b in zip(px.tree_extract(other), px.tree_extract(cell), strict=True))


def test_a_cell_and_its_twin_in_one_scan() -> None:
    """What one writes the other reads, in every step."""
    cell = Cell()
    weight, bias = values(cell)
    twin = pxnn.shared(cell, pxnn.LayerParam)  # with a count of its own

    def both(x: Array, h: Array, *, cell: Cell, twin: Cell) -> tuple[Array, Array]:
        cell.linear.nn.weight *= 0.5
        h = twin(x, h)
        twin.calls += 1
        return h, h

    def by_hand(carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        weight, h = carry
        h = raw_cell(weight * 0.5, bias, x, h)
        return (weight * 0.5, h), h

    found, history = pxf.scan(both, X)(jnp.ones(2), cell=cell, twin=twin)
    (weight, h), expected = jax.lax.scan(by_hand, (weight, jnp.ones(2)), X)
    close((found, history), ((h,), expected))
    close(twin.linear.nn.weight.get(), weight)
    assert twin.linear.nn.weight is cell.linear.nn.weight
    assert (float(cell.calls), float(twin.calls)) == (0, 8)


def test_gradients_of_each_sample() -> None:
    """`vmap` over samples: a shared weight gets, in each lane, the sum over its uses in that lane."""
    cell = Cell()
    weight, bias = values(cell)

    @pxf.jit
    @pxf.vmap({("first", "second"): None})
    @pxf.value_and_grad({("first", "second"): WEIGHTS})
    def each(x: Array, *, first: Cell, second: Cell) -> Array:
        return second(x, first(x, jnp.ones(2))).sum()

    def by_hand(weight: Array, bias: Array, x: Array) -> Array:
        return raw_cell(weight, bias, x, raw_cell(weight, bias, x, jnp.ones(2))).sum()

    twin = pxnn.shared(cell, pxnn.LayerParam | pxnn.LayerState)
    found, grads = each(X, first=cell, second=twin)
    raw = jax.jit(jax.vmap(jax.value_and_grad(by_hand, argnums=(0, 1)), (None, None, 0)))
    expected, gradients = raw(weight, bias, X)
    close((found, values(grads["first"])), (expected, gradients))
    assert jax.tree.leaves(grads["second"]) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_ensemble(axis: int) -> None:
    """Each lane has its own weight, which two layers of it share; it is mapped, and written, once."""
    first = pxnn.Linear(3, 3, bias=False)
    second = pxnn.shared(first)
    weights = RNG.normal(size=(4, 3, 3)).astype(np.float32)
    first.nn.weight.set(jnp.moveaxis(jnp.asarray(weights), 0, axis))

    @pxf.vmap({("first", "second"): pxu.M(pxnn.LayerParam).to((None, axis))})
    def twice(x: Array, *, first: pxnn.Linear, second: pxnn.Linear) -> Array:
        first.nn.weight *= 2
        return second(first(x))

    expected = np.stack([4 * w @ w @ x for w, x in zip(weights, X, strict=True)])
    close(twice(X, first=first, second=second), expected, 1e-5)
    close(second.nn.weight.get(), np.moveaxis(2 * weights, 0, axis))


@pytest.mark.parametrize("pred", [True, False])
def test_cond_chooses_between_two_modules_that_share(pred: bool) -> None:
    a, b = pxnn.Linear(3, 3), pxnn.Linear(3, 3)
    b.nn.weight = a.nn.weight
    weight, biases = a.nn.weight.get(), [px.get(a.nn.bias), px.get(b.nn.bias)]

    def use_a(x: Array, *, a: pxnn.Linear, b: pxnn.Linear) -> Array:
        a.nn.weight *= 2
        return a(x)

    def use_b(x: Array, *, a: pxnn.Linear, b: pxnn.Linear) -> Array:
        return b(x)

    @pxf.jit
    @pxf.value_and_grad({("a", "b"): WEIGHTS})
    def chosen(pred: Array, x: Array, *, a: pxnn.Linear, b: pxnn.Linear) -> Array:
        y: Array = pxf.cond(use_a, use_b)(pred, x, a=a, b=b)
        return (b(a(y)) ** 2).sum()

    def by_hand(weight: Array, biases: list[Array]) -> tuple[Array, Array]:
        new = 2 * weight if pred else weight
        y = new @ X[0] + biases[0 if pred else 1]
        return ((new @ (new @ y + biases[0]) + biases[1]) ** 2).sum(), new

    value, grads = chosen(jnp.array(pred), X[0], a=a, b=b)
    raw = jax.jit(jax.value_and_grad(by_hand, argnums=(0, 1), has_aux=True))
    (expected, new), (weight_grad, bias_grads) = raw(weight, biases)
    found = grads["a"].nn.weight, [grads[name].nn.bias for name in "ab"]
    close(
        jax.tree.map(px.get, (value, found), is_leaf=lambda node: isinstance(node, px.Param)),
        (expected, (weight_grad, bias_grads)),
        1e-5,
    )
    assert grads["b"].nn.weight is None
    close(b.nn.weight.get(), new)
    assert b.nn.weight is a.nn.weight

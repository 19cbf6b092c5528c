"""Breaking a tie, tying again, and ties that cannot be."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.nn.oracles import normal
from tests.oracles import close

X = normal(0, (3,))
WEIGHTS = pxu.M(pxnn.LayerParam)
Make = Callable[[], Any]
traces: list[None] = []
loss: Any  # see _compiled_anew


class Pair(px.Module):
    """y = W₂ (W₁ x), where W₂ is W₁, or W₁ᵀ."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.first = pxnn.Linear(3, 3, bias=False, rkg=px.RandomKeyGenerator(0))
        second: Any = pxnn.Transposed(self.first, use_bias=False) if transposed else pxnn.shared(self.first)
        self.second: pxnn.Linear | pxnn.Transposed = second
        self.transposed = px.static(transposed)

    def by_hand(self, first: Array, second: Array) -> Array:
        return (((second.T if self.transposed.get() else second) @ first @ X) ** 2).sum()


@pytest.fixture(autouse=True)
def _compiled_anew() -> None:
    """Tests ask what is traced again, in whatever order they run: none uses what another has compiled."""
    global loss

    def value(*, pair: Pair) -> Array:
        traces.append(None)
        return (pair.second(pair.first(X)) ** 2).sum()

    loss = pxf.jit(pxf.value_and_grad({"pair": WEIGHTS})(value))


def check(pair: Pair) -> tuple[Any, bool]:
    """Compares the loss and its gradients with raw JAX; returns the gradients, and whether it was traced anew."""
    traces.clear()
    value, grads = loss(pair=pair)
    traced = bool(traces)
    first, second = pair.first.nn.weight, pair.second.nn.weight
    expected, (one, two) = jax.value_and_grad(pair.by_hand, argnums=(0, 1))(first.get(), second.get())
    close(value, expected)
    tied = first is second
    close(grads["pair"].first.nn.weight.get(), one + two if tied else one, 1e-5)
    if tied:
        assert grads["pair"].second.nn.weight is None
    else:
        close(grads["pair"].second.nn.weight.get(), two, 1e-5)
    return grads["pair"], traced


@pytest.mark.parametrize("transposed", [False, True])
def test_breaking_a_tie_and_tying_again(transposed: bool) -> None:
    pair = Pair(transposed)
    tied = pair.first.nn.weight
    assert check(pair)[1]

    pair.second.nn.weight = pxnn.LayerParam(tied.get())
    assert pair.first.nn.weight is tied
    assert pxnn.shared_params(pair) == {}
    assert check(pair)[1], "who shares with whom is structure"
    pair.first.nn.weight *= 2
    close(pair.second.nn.weight.get(), tied.get() / 2, 0)
    assert not check(pair)[1]

    pair.second.nn.weight = pair.first.nn.weight
    assert pxnn.shared_params(pair) == {".first.nn.weight": [".second.nn.weight"]}
    assert not check(pair)[1], "as before"
    pair.second.nn.weight += 1
    assert pair.first.nn.weight is pair.second.nn.weight is tied
    check(pair)

    # The other way round: the first takes another weight, and the second follows when it is tied again.
    pair.first.nn.weight = pxnn.LayerParam(jnp.eye(3))
    assert pair.second.nn.weight is tied
    pair.second.nn.weight = pair.first.nn.weight
    assert check(pair)[0].second.nn.weight is None


def test_an_optimiser_goes_by_what_init_was_given() -> None:
    pair = Pair(False)
    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9), WEIGHTS(pair))
    pair.second.nn.weight = pxnn.LayerParam(pair.first.nn.weight.get())
    before = pair.first.nn.weight.get(), pair.second.nn.weight.get()
    grads = check(pair)[0]
    optim.step(pair, grads)  # the new one it was not given
    close(pair.first.nn.weight.get(), before[0] - 0.1 * grads.first.nn.weight)
    close(pair.second.nn.weight.get(), before[1], 0)

    optim.init(WEIGHTS(pair))
    grads = check(pair)[0]
    optim.step(pair, grads)
    close(pair.second.nn.weight.get(), before[1] - 0.1 * grads.second.nn.weight)

    pair.second.nn.weight = pair.first.nn.weight
    grads, now = check(pair)[0], pair.first.nn.weight.get()
    with pytest.raises(ValueError, match=r"it has no parameter \.second\.nn\.weight"):
        optim.step(pair, grads)
    close(pair.first.nn.weight.get(), now, 0)


LINEAR = (lambda: pxnn.Linear(3, 2), lambda: pxnn.Linear(2, 3))
SHAPES: dict[str, tuple[Make, Make, str]] = {
    "linear": (*LINEAR, "LayerParam([2,3], float32), found LayerParam([3,2], float32)"),
    "conv": (
        lambda: pxnn.Conv1d(4, 2, 3, groups=2),
        lambda: pxnn.Conv1d(4, 2, 3),
        "LayerParam([2,2,3], float32), found LayerParam([2,4,3], float32)",
    ),
    "transposed": (
        lambda: pxnn.Transposed(pxnn.Linear(3, 2)),
        lambda: pxnn.Linear(2, 3),  # of the same sizes, but the transposed layer holds its weight as the other has it
        "LayerParam([2,3], float32), found LayerParam([3,2], float32)",
    ),
    "norm": (lambda: pxnn.LayerNorm(2), lambda: pxnn.LayerNorm(3), "LayerParam([2], float32), found LayerParam([3]"),
}


@pytest.mark.parametrize(("make", "other", "words"), SHAPES.values(), ids=SHAPES)
def test_parameters_of_different_shapes_are_not_tied(make: Make, other: Make, words: str) -> None:
    layer = make()
    before = layer.nn.weight
    with pytest.raises(ValueError, match=re.escape(f".weight expected a parameter of the shape of {words}")):
        layer.nn.weight = other().nn.weight
    assert layer.nn.weight is before


def test_a_cleared_parameter_is_tied_to_any() -> None:
    layer, cleared = pxnn.Linear(3, 2), pxnn.LayerParam(None)
    weight = layer.nn.weight
    layer.nn.weight = cleared
    layer.nn.weight = weight
    assert layer.nn.weight is weight


def broken(pair: Pair) -> None:
    pair.second.nn.weight = pxnn.LayerParam(pair.first.nn.weight.get())


def tied(pair: Pair) -> None:
    pair.second.nn.weight = pair.first.nn.weight


def tied_wrongly(pair: Pair) -> None:
    pair.second.nn.weight = pxnn.Linear(4, 4).nn.weight


def inside(change: Callable[[Pair], None]) -> dict[str, Callable[[Pair], object]]:
    def function(x: Array, *, pair: Pair) -> Array:
        change(pair)
        return (pair.second(pair.first(x)) ** 2).sum()

    def step(x: Array, *, pair: Pair) -> tuple[tuple[()], Array]:
        return (), function(x, pair=pair)

    def fine(x: Array, *, pair: Pair) -> Array:
        return x.sum()

    return {
        "jit": lambda pair: pxf.jit(function)(X, pair=pair),
        "vmap": lambda pair: pxf.vmap({"pair": None})(function)(X[None], pair=pair),
        "grad": lambda pair: pxf.grad({"pair": WEIGHTS})(function)(X, pair=pair),
        "scan": lambda pair: pxf.scan(step, X[None])(pair=pair),
        "cond": lambda pair: pxf.cond(fine, function)(True, X, pair=pair),
        "nested": lambda pair: pxf.jit(lambda *, pair: pxf.scan(step, X[None])(pair=pair))(pair=pair),
    }


@pytest.mark.parametrize("transform", inside(tied))
def test_ties_are_not_changed_inside_a_transform(transform: str) -> None:
    shared, separate = Pair(False), Pair(False)
    broken(separate)
    cases = (shared, broken, "was replaced"), (separate, tied, "was replaced"), (separate, tied_wrongly, "the shape of")
    for pair, change, words in cases:
        params = px.tree_extract(pair)
        values, listed = [param.get() for param in params], pxnn.shared_params(pair)
        with pytest.raises(ValueError, match=words):
            inside(change)[transform](pair)
        assert all(one is other for one, other in zip(px.tree_extract(pair), params, strict=True))
        assert all(param.get() is value for param, value in zip(params, values, strict=True))
        assert pxnn.shared_params(pair) == listed
    inside(tied)[transform](shared)  # what is tied already stays tied
    check(shared)

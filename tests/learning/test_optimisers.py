"""The optimiser is given exactly the weights that are meant to learn; parameters that look like weights are named."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, train
from tests.oracles import changed

RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32), jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
ALL = [pxl.PC(2), pxl.IPC(2), pxl.Nudging(0.5, 2), pxl.ZIL(), pxl.EPC(2), pxl.Backprop()]


def chain() -> Chain:
    return Chain([4, 4, 4, 3])


FREEZE = "model.layers[0].nn.weight.frozen = True"
ADD_A_BIAS = "model.layers[1].nn.bias = pxnn.LayerParam(jnp.zeros(4))"
TIE = "model.layers[1].nn.weight = model.layers[0].nn.weight"


def insert_a_layer(model: Chain) -> None:
    """All later ones then stand at other places, and the last has none in the optimiser."""
    model.layers.insert(1, pxnn.Linear(4, 4, bias=False))
    model.vodes.insert(1, jax.tree.map(lambda value: value, model.vodes[0]))


# What is done to a model before and after the optimiser is given its weights.
CHANGES: list[tuple[str, str, str]] = [
    (FREEZE, "model.layers[0].nn.weight.frozen = False", r"\.layers\[0\]\.nn\.weight would not learn"),
    ("", ADD_A_BIAS, r"\.layers\[1\]\.nn\.bias would not learn"),
    ("", "insert_a_layer(model)", r"\.layers\[3\]\.nn\.weight would not learn"),
    (TIE, "model.layers[1].nn.weight = pxnn.LayerParam(model.layers[1].nn.weight.get())",
     r"\.layers\[1\]\.nn\.weight would not learn"),
    ("", TIE, r"\.layers\[1\]\.nn\.weight is not in the model any more|\.layers\[1\]\.nn\.weight is frozen or"),
    ("", FREEZE, r"\.layers\[0\]\.nn\.weight is frozen or not a LayerParam, but the optimiser was given it"),
]  # fmt: skip


@pytest.mark.parametrize("algorithm", [*ALL, None], ids=repr)
@pytest.mark.parametrize(("before", "change", "words"), CHANGES)
def test_weights_that_the_optimiser_was_not_given(
    before: str, change: str, words: str, algorithm: pxl.Algorithm | None
) -> None:
    model = changed(chain(), before, globals())
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1, 0.9), pxl.WEIGHTS(model))
    changed(model, change, globals())
    then = model.weights
    name = "optim" if algorithm is None else "weights"
    advice = rf"call {name}\.retarget\(WEIGHTS\(model\)\), .* or {name}\.init\(WEIGHTS\(model\)\)"
    with pytest.raises(ValueError, match=rf"{name} expected an optimiser of what .*{words}.*{advice}"):
        if algorithm is None:
            pxl.initialise(X, Y, model=model)
            pxl.learn(X, model=model, optim=weights)
        else:
            algorithm(X, Y, model=model, nodes=nodes, weights=weights)
    assert all(one is other for one, other in zip(then, model.weights, strict=True))
    if not isinstance(algorithm, pxl.PC):  # what follows is seen once
        return
    weights.init(pxl.WEIGHTS(model))
    pxl.PC(4)(X, Y, model=model, nodes=nodes, weights=weights)
    learned = [not np.array_equal(one, other) for one, other in zip(then, model.weights, strict=True)]
    assert learned == [layer.nn.weight.frozen is False for layer in model.layers]


def test_a_part_of_the_weights_by_freezing_the_others() -> None:
    model = changed(chain(), FREEZE, globals())
    then = model.weights
    train(pxl.PC(2), model, X, Y)
    assert [one is other for one, other in zip(then, model.weights, strict=True)] == [True, False, False]


def test_two_models_with_one_encoder() -> None:
    one, other = chain(), chain()
    other.layers[0] = pxnn.shared(one.layers[0])
    nodes, both = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS({"a": one, "b": other}))
    words = r"optimiser of this model's weights, found one of \['a'\]\.layers\[0\].* an optimiser of its own: Optim\("
    with pytest.raises(ValueError, match=words):
        pxl.PC(2)(X, Y, model=one, nodes=nodes, weights=both)
    for model in (one, other):
        then = one.weights[0]
        train(pxl.PC(2), model, X, Y)
        assert one.layers[0].nn.weight is other.layers[0].nn.weight
        assert not np.array_equal(then, one.weights[0])


@pytest.mark.parametrize("algorithm", ALL, ids=repr)
def test_optimisers_that_are_swapped_or_of_nothing(algorithm: pxl.Algorithm) -> None:
    model = chain()
    empty, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    for optims, words in (
        ((weights, empty), r"nodes expected the optimiser of the states, found that of weights \(\.layers.* swapped\?"),
        ((weights, weights), r"nodes and weights are the same optimiser, .* give each its own"),
        ((empty, pxu.Optim(optax.sgd(0.1))), r"weights expected an optimiser initialised .*_fn, WEIGHTS\(model\)\)"),
    ):
        with pytest.raises(ValueError, match=words):
            algorithm(X, Y, model=model, nodes=optims[0], weights=optims[1])


def test_an_optimiser_of_nodes_that_continues_is_accepted() -> None:
    model = chain()
    nodes, weights = pxu.Optim(optax.sgd(0.1, 0.9)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    for _ in range(2):
        pxl.PC(2, reset=False)(X, Y, model=model, nodes=nodes, weights=weights)


def test_an_optimiser_for_each_layer_learns() -> None:
    model = chain()
    pxl.initialise(X, Y, model=model)
    optim: Any = pxu.OptimTree(optax.sgd(0.1), lambda node: isinstance(node, pxnn.Linear), pxl.WEIGHTS(model))
    pxl.learn(X, model=model, optim=optim)
    changed(model, ADD_A_BIAS, globals())
    with pytest.raises(ValueError, match=r"\.layers\[1\]\.nn\.bias would not learn"):
        pxl.learn(X, model=model, optim=optim)


class With(Chain):
    """A chain that multiplies by what it is given."""

    def __init__(self, factor: Any) -> None:
        super().__init__([4, 4, 4, 3])
        self.factor = factor

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        factor = px.get(self.factor)
        return super().__call__(x * jnp.asarray(factor, x.dtype), y)


def frozen(param: px.Param) -> px.Param:
    param.frozen = True
    return param


@pytest.mark.parametrize("algorithm", ALL, ids=repr)
@pytest.mark.parametrize(("factor", "what"), [(px.Param(jnp.ones(4)), "plain Param"), (jnp.ones(4), "bare array")])
def test_parameters_that_only_look_like_weights_are_named(algorithm: pxl.Algorithm, factor: Any, what: str) -> None:
    words = rf"^\.factor takes part in the prediction, but is a {what}, .* make it a LayerParam .*, or a LayerState"
    with pytest.warns(UserWarning, match=words):
        gradients(algorithm, With(factor), X, Y)


QUIET: list[Callable[[], Any]] = [
    lambda: pxnn.LayerParam(jnp.ones(4)),
    lambda: pxnn.LayerState(jnp.ones(4)),
    lambda: frozen(px.Param(jnp.ones(4))),
    lambda: frozen(pxnn.LayerParam(jnp.ones(4))),
    lambda: jnp.arange(4) < 2,  # a mask
    lambda: 2.0,
    lambda: px.static(3.0),
    lambda: px.Param(jnp.arange(4)),
]


@pytest.mark.parametrize("number", range(len(QUIET)))
def test_other_parameters_are_not_named(number: int) -> None:
    gradients(pxl.PC(2), With(QUIET[number]()), X, Y)


def test_parameters_that_take_no_part_are_not_named() -> None:
    model: Any = chain()
    model.rates, model.history = px.Param(jnp.ones(4)), jnp.ones(4)
    model.layer = jnp.ones(4)  # whose name is how that of the layers begins
    gradients(pxl.PC(2), model, X, Y)

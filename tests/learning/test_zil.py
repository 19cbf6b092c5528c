"""Z-IL against backpropagation by `jax.grad` on the plain network."""

import copy
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, relative_difference
from tests.oracles import enable_x64

RNG = np.random.default_rng(0)


def by_backpropagation(weights: list[Array], x: Array, y: Array) -> dict[str, Array]:
    def loss(weights: list[Array]) -> Array:
        h = x
        for w in weights[:-1]:
            h = jnp.tanh(h @ w.T)
        return 0.5 * ((y - h @ weights[-1].T) ** 2).sum() / len(x)

    return {f".layers[{number}].nn.weight": grad for number, grad in enumerate(jax.jit(jax.grad(loss))(weights))}


def test_four_layers_in_float32() -> None:
    model = Chain([10, 20, 18, 16, 5])
    x, y = jnp.asarray(RNG.normal(size=(8, 10)), jnp.float32), jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32)
    found, report = gradients(pxl.ZIL(), model, x, y)
    assert relative_difference(found, by_backpropagation(model.weights, x, y)) < 1e-5
    assert report.energies.shape == (4,)
    np.testing.assert_allclose(report.loss, 0.5 * ((report.predictions - y) ** 2).sum(1).mean(), rtol=1e-6)


@pytest.mark.thorough
def test_twenty_layers_in_float64() -> None:
    with enable_x64(True):
        model = Chain([6] * 21).orthogonal()
        x, y = jnp.asarray(RNG.normal(size=(4, 6))), jnp.asarray(RNG.normal(size=(4, 6)))
        assert x.dtype == model.weights[0].dtype == jnp.float64
        found, _ = gradients(pxl.ZIL(), model, x, y)
        assert relative_difference(found, by_backpropagation(model.weights, x, y)) < 1e-9


@pytest.mark.thorough
def test_float32_loses_the_digits_of_a_deep_network() -> None:
    """What the documentation says of 20 layers: not exact, but not far off."""
    model = Chain([6] * 21)
    x, y = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32), jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
    found, _ = gradients(pxl.ZIL(), model, x, y)
    assert 1e-5 < relative_difference(found, by_backpropagation(model.weights, x, y)) < 0.1


class Convolutional(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(5)
        channels = [1, 4, 4, 4]
        self.convolutions = [pxnn.Conv2d(a, b, 3, padding=1, rkg=rkg) for a, b in pairwise(channels)]
        self.pool = pxnn.AvgPool2d(2, 2)
        self.linear = pxnn.Linear(4 * 4 * 4, 3, rkg=rkg)
        self.vodes = [pxc.Vode() for _ in range(3)]
        self.output = pxc.Vode(pxc.ce_energy)
        self.output.h.frozen = True

    def plain(self, x: Array) -> Array:
        for number, convolution in enumerate(self.convolutions):
            x = jnp.tanh(convolution(x))
            x = self.pool(x) if number == 1 else x
        return self.linear(x.ravel())

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for number, (convolution, vode) in enumerate(zip(self.convolutions, self.vodes, strict=True)):
            x = jnp.tanh(convolution(x))
            x = vode(self.pool(x) if number == 1 else x)
        prediction: Array = self.output(self.linear(x.ravel()), output="u")
        if y is not None:
            self.output.set("h", y)
        return prediction


@pytest.mark.thorough
def test_a_convolutional_network_with_cross_entropy() -> None:
    model = Convolutional()
    x = jnp.asarray(RNG.normal(size=(5, 1, 8, 8)), jnp.float32)
    y = jax.nn.one_hot(jnp.arange(5) % 3, 3)

    def loss(values: list[Array]) -> Array:
        twin = copy.deepcopy(model)
        px.tree_inject(pxl.WEIGHTS(twin), values=values)
        return -(y * jax.nn.log_softmax(jax.vmap(twin.plain)(x))).sum(1).mean()

    expected = jax.grad(loss)([param.get() for param in px.tree_extract(pxl.WEIGHTS(model))])
    found, _ = gradients(pxl.ZIL(), model, x, y)
    assert relative_difference(found, dict(zip(found, expected, strict=True))) < 1e-5


def test_a_tied_weight_learns_from_both_uses() -> None:
    model = Chain([5, 7, 7, 7, 3])
    model.layers[2].nn.weight = model.layers[1].nn.weight
    x, y = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    found, _ = gradients(pxl.ZIL(), model, x, y)
    expected = by_backpropagation(model.weights, x, y)
    expected[".layers[1].nn.weight"] += expected.pop(".layers[2].nn.weight")
    assert relative_difference(found, expected) < 1e-5


def test_it_trains_as_backpropagation_does() -> None:
    model = Chain([5, 7, 6, 3])
    x, y = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
    raw, weights = model.weights, pxu.Optim(optax.sgd(0.5), pxl.WEIGHTS(model))
    for _ in range(3):
        pxl.ZIL()(x, y, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights)
        raw = [w - 0.5 * grad for w, grad in zip(raw, by_backpropagation(raw, x, y).values(), strict=True)]
    for found, expected in zip(model.weights, raw, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


class Wired(Chain):
    """Three layers, wired as `wiring` says."""

    def __init__(self, wiring: str) -> None:
        super().__init__([5, 5, 5, 5])
        self.wiring = px.static(wiring)
        if wiring == "another order":
            self.vodes[0], self.vodes[1] = self.vodes[1], self.vodes[0]
        if wiring == "an observed node in the middle":
            self.vodes[1].h.frozen = True
        if wiring == "one state for two":
            self.vodes[1].h = self.vodes[0].h

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        first, second, last = self.vodes if self.wiring != "another order" else [self.vodes[i] for i in (1, 0, 2)]
        own = first.get("h") if self.wiring == "its own state" and first.status is None else 0
        precision = 3.0 if self.wiring == "precision" else None
        h = first(jnp.tanh(self.layers[0](x)) + own, precision=precision)
        u = self.layers[1](h) + (h if self.wiring == "residual" else x)
        g = second(jax.nn.relu(u) if self.wiring != "parallel" else jnp.tanh(self.layers[1](x)))
        u = self.layers[2](g if self.wiring != "parallel" else h + g)
        prediction: Array = last(u + h if self.wiring == "past a node" else u, output="u")
        if y is not None:
            last.set("h", y)
        return prediction


@pytest.mark.parametrize(
    ("wiring", "words"),
    [
        ("past a node", r"the energy of \.vodes\[2\] depends on the state of \.vodes\[0\]: assign"),
        ("another order", r"the energy of \.vodes\[0\] depends on the state of \.vodes\[1\]"),
        ("parallel", r"the energy of \.vodes\[1\] does not depend on the state of \.vodes\[0\]"),
        ("an observed node in the middle", r"\.vodes\[1\] is observed"),
        ("one state for two", r"the energy of \.vodes\[0\]"),
        ("its own state", r"the prediction of \.vodes\[0\] depends on the state of \.vodes\[0\]"),
        ("residual", None),
        ("input", None),
    ],
)
def test_a_model_that_is_not_a_chain(wiring: str, words: str | None) -> None:
    model = Wired(wiring)
    x, y = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32), jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)
    if words is None:
        expected, _ = gradients(pxl.Backprop(), Wired(wiring), x, y)
        assert relative_difference(gradients(pxl.ZIL(), model, x, y)[0], expected) < 1e-5
    else:
        with pytest.raises(ValueError, match=f"ZIL expected a chain, .* found that {words}"):
            gradients(pxl.ZIL(), model, x, y)


def test_a_precision_that_is_given_in_the_call_is_refused() -> None:
    x = jnp.ones((4, 5))
    with pytest.raises(ValueError, match=r"ZIL expected nodes without a precision, found one in \.vodes\[0\]: use PC"):
        gradients(pxl.ZIL(), Wired("precision"), x, x)

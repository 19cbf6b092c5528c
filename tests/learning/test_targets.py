"""Targets arrive, whichever order a model sets them and calls its nodes in; those that do not are refused by path."""

from collections.abc import Callable
from functools import partial
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
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, relative_difference

RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
ALL = [pxl.PC(2), pxl.IPC(2), pxl.Nudging(0.5, 2), pxl.ZIL(), pxl.EPC(2), pxl.Backprop()]


class Net(Chain):
    """u, v = the last layer and node."""

    def __init__(self) -> None:
        super().__init__([5, 4, 3])

    def hidden(self, x: Array) -> tuple[Array, pxc.Vode[pxc.VodeParam]]:
        return self.layers[1](self.vodes[0](self.act_fn(self.layers[0](x)))), self.vodes[1]


class SetFirst(Net):
    def __call__(self, x: Array, y: Array | None = None) -> Array:
        if y is not None:
            self.vodes[1].set("h", y)
        u, node = self.hidden(x)
        return node(u, output="u")


class Told(Net):
    """Goes on from its hidden layers as it is told: from u, the last node, and y."""

    def __init__(self, go_on: Callable[..., Array], energy_fn: Callable[..., Array] = pxc.se_energy) -> None:
        super().__init__()
        self.go_on = px.static(go_on)
        self.vodes[1].energy_fn = energy_fn

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return self.go_on(*self.hidden(x), y)


def told(*how: Callable[..., Any]) -> Callable[[], Net]:
    return partial(Told, *how)


def set_between(u: Array, node: Any, y: Array | None) -> Any:
    if y is not None:
        node.set("h", 2 * y / 2)
    return node(u, output=None).get("u")


class Tied(Net):
    """The target is set through another node, which has the same state and no energy."""

    def __init__(self) -> None:
        super().__init__()
        self.label = pxc.Vode(None)
        self.label.h = self.vodes[1].h

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        if y is not None:
            self.label.set("h", y)
        u, node = self.hidden(x)
        return node(u, output="u")


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", ALL, ids=repr)
def test_whichever_comes_first(algorithm: pxl.Algorithm) -> None:
    expected, report = gradients(algorithm, Chain([5, 4, 3]), X, Y)
    # To Z-IL, the tied nodes are no chain.
    for model in [SetFirst(), Told(set_between), Tied()][: 2 if isinstance(algorithm, pxl.ZIL) else 3]:
        found, other = gradients(algorithm, model, X, Y)
        assert relative_difference(found, expected) < 1e-6
        np.testing.assert_allclose(other.loss, report.loss, rtol=1e-6)
        np.testing.assert_allclose(other.predictions, report.predictions, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [pxl.initialise, pxl.start])
def test_initialising_with_the_target_first(start: Callable[..., Any]) -> None:
    model = SetFirst()
    start(X, Y, model=model)
    np.testing.assert_array_equal(model.vodes[1].h, Y)
    start(X, None, model=model)  # a target of before is gone
    np.testing.assert_allclose(model.vodes[1].h, pxl.predict(X, model), rtol=1e-6)


def never(u: Array, node: Any, y: Array | None) -> Any:
    return node(u, output="u")


def by_another_name(u: Array, node: Any, y: Array | None) -> Any:
    if y is not None:
        node.set("target", y)
    return node(u, output="u")


def set_outside(u: Array, node: Any, y: Array | None) -> Any:
    """The parameter itself is set, and then predicted."""
    if y is not None:
        node.h.set(y)
    return node(u, output="u")


def returns_state(u: Array, node: Any, y: Array | None) -> Any:
    node(u)
    if y is not None:
        node.set("h", y)
    return node.get("h")


def returns_from_state(u: Array, node: Any, y: Array | None) -> Any:
    return jax.nn.softmax(returns_state(u, node, y))


def also_returns_state(u: Array, node: Any, y: Array | None) -> Any:
    """Beside the prediction, for plots."""
    return u, returns_state(u, node, y), y


def misspelt(u: Array, node: Any, y: Array | None) -> Any:
    if y is not None:
        node.set("h", y)
    return node(u, prec=jnp.full(3, 2.0), output=None).get("u")


def from_the_entry(vode: pxc.Vode[Any]) -> Array:
    """An energy that reads what is stored instead of the state."""
    error: Array = vode.get("target", vode.get("h")) - vode.get("u")
    return error**2


def with_weights_of_targets(u: Array, node: Any, y: Array | None) -> Any:
    """The weights of the outputs are there when there are targets only."""
    if y is not None:
        node.set("h", y).set("weight", jnp.abs(y))
    return node(u, output="u")


def weighted(vode: pxc.Vode[Any]) -> Array:
    weight: Array = vode.get("weight", jnp.ones(()))
    return pxc.se_energy(vode) * weight


class OtherNode(Net):
    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u, node = self.hidden(x)
        node(u)
        if y is not None:
            self.vodes[0].set("h", jnp.concatenate([y, y[:1]]))
        return u


class ReturnsCall(Net):
    """Set first, so that the call of the node gives the target."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        if y is not None:
            self.vodes[1].set("h", y)
        u, node = self.hidden(x)
        return node(u)


class Spare(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = pxc.Vode()


class SpareObserved(Spare):
    def __init__(self) -> None:
        super().__init__()
        self.spare.h.frozen = True


class Twice(Net):
    """One node for two layers."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        self.vodes[0](jnp.zeros(4))
        return super().__call__(x, y)


class OverTime(Net):
    """The output is predicted at each of three times."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for _ in range(3):
            u, node = self.hidden(x)
            node(u)
        if y is not None:
            node.set("h", y)
        return u


class TwoOutputs(Net):
    """The second of two outputs has no target."""

    def __init__(self) -> None:
        super().__init__()
        self.second = pxc.Vode()
        self.second.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u, node = self.hidden(x)
        if isinstance(y, dict):
            node.set("h", y["first"])
        elif y is not None:
            node.set("h", y)
        self.second(2 * u)
        return node(u, output="u")


def test_a_part_of_the_targets_that_does_not_arrive() -> None:
    for y in ({"first": Y, "second": Y}, {"first": Y, "b": (None, Y)}):
        with pytest.raises(ValueError, match=r"the target y\['(second|b)'\](\[1\])? reaches no observed node"):
            gradients(pxl.PC(2), TwoOutputs(), X, y)  # type: ignore[arg-type]  # a dict


class FromLabels(Net):
    """Labels become targets in the model."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return super().__call__(x, None if y is None else jax.nn.one_hot(y, 3))


class Forced(Net):
    """The target of before is an input as well."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return super().__call__(x if y is None else x + jnp.concatenate([y, y[:2]]), y)


@pytest.mark.parametrize("make", [told(also_returns_state), FromLabels, Forced])
def test_models_that_are_right(make: Callable[[], Net]) -> None:
    y = jnp.arange(6) % 3 if make is FromLabels else Y
    expected, _ = gradients(pxl.PC(2), Chain([5, 4, 3]), X, jax.nn.one_hot(y, 3) if make is FromLabels else Y)
    found, _ = gradients(pxl.PC(2), make(), X, y)
    assert make is Forced or relative_difference(found, expected) < 1e-6


REFUSED: list[tuple[Callable[[], Net], str]] = [
    (told(never),
     r"reaches no observed node .*, of which the model has \.vodes\[1\]; write `if y is not None: node\.set"),
    (OtherNode, r"it is set in \.vodes\[0\], which is inferred: set h\.frozen = True there"),
    (told(by_another_name), r"it is stored in \.vodes\[1\]\.target, which is not the state"),
    (told(by_another_name, from_the_entry),
     r"energy of \.vodes\[1\] reads 'target', .* only when it is given targets"),
    (told(set_outside), r"the target y reaches no observed node"),
    (told(returns_state),
     r"the model returns the state of \.vodes\[1\], which is clamped .* return node\(u, output=\"u\"\)"),
    (told(returns_from_state), r"the model returns the state of \.vodes\[1\]"),
    (ReturnsCall, r"the model returns the state of \.vodes\[1\]"),
    (Spare, r"does not reach the node \.spare, .* call it with a prediction, or remove it"),
    (SpareObserved, r"does not reach the node \.spare"),
    (Twice, r"in \.vodes\[0\], a node was given 2 predictions .* use a node for each"),
    (OverTime, r"in \.vodes\[0\], a node was given 3 predictions"),
    (told(misspelt),
     r"\.vodes\[1\] is given 'prec', which nothing reads, but its energy reads 'precision': is the name misspelt"),
    (told(with_weights_of_targets, weighted),
     r"energy of \.vodes\[1\] reads 'weight', .* only when it is given targets, .* \(sample, weight\)"),
]  # fmt: skip


@pytest.mark.parametrize("algorithm", [*ALL, None], ids=repr)
@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_targets_and_entries_that_do_not_arrive(
    make: Callable[[], Net], words: str, algorithm: pxl.Algorithm | None
) -> None:
    model = make()
    before = model.weights
    with pytest.raises(ValueError, match=words):
        if algorithm is None:
            pxl.initialise(X, Y, model=model)
        else:
            gradients(algorithm, model, X, Y)
    assert all(vode.h.get() is None and vode.cache.get() is None for vode in model.vodes)
    assert all(one is other for one, other in zip(before, model.weights, strict=True))


@pytest.mark.parametrize("energies", [pxl.energies, pxl.infer, pxl.learn])
def test_two_predictions_are_refused_by_the_parts_as_well(energies: Any) -> None:
    model, twice = Net(), Twice()
    pxl.initialise(X, Y, model=model)
    for vode, other in zip(twice.vodes, model.vodes, strict=True):
        vode.h.set(other.h)
    optim = {"optim": pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(twice) if energies is pxl.learn else None)}
    optim = {} if energies is pxl.energies else optim
    args = (X, 2) if energies is pxl.infer else (X,)
    with pytest.raises(ValueError, match=r"in \.vodes\[0\], a node was given 2 predictions in one pass"):
        energies(*args, model=twice, **optim)


class Masked(Net):
    """Half of the outputs count, by an entry that is set in every call, or by a state that is set once."""

    def __init__(self, entry: bool) -> None:
        super().__init__()
        self.vodes[1].energy_fn = lambda vode: pxc.se_energy(vode) * vode.get("weight")
        if not entry:
            node: Any = self.vodes[1]
            node.weight = pxc.VodeParam()
            node.weight.frozen = True

    def __call__(self, x: Any, y: Any = None) -> Array:
        x, mask = x if isinstance(x, tuple) else (x, None)
        u, node = self.hidden(x)
        if mask is not None:
            node.set("weight", mask)
        if y is not None and mask is None:
            y, mask = y
            node.set("weight", mask)
        if y is not None:
            node.set("h", y)
        return node(u, output="u")


@pytest.mark.parametrize("algorithm", [a for a in ALL if not isinstance(a, pxl.Nudging)], ids=repr)
def test_masks_that_energies_read(algorithm: pxl.Algorithm) -> None:
    """An output that does not count has no target: as where its target is what is predicted, when nothing has moved."""
    mask = jnp.tile(jnp.array([1.0, 0.0, 1.0]), (6, 1))
    by_entry, report = gradients(algorithm, Masked(entry=True), (X, mask), Y)  # type: ignore[arg-type]  # a pair
    by_state, other = gradients(algorithm, Masked(entry=False), X, (Y, mask))  # type: ignore[arg-type]  # a pair
    expected = 0.5 * ((report.predictions - Y) ** 2 * mask).sum(1).mean()
    for found in (report, other):
        np.testing.assert_allclose([found.loss, found.energies[0]], expected, rtol=1e-5)
    assert relative_difference(by_state, by_entry) < 1e-6
    assert not by_entry[".layers[1].nn.weight"][1].any()
    assert by_entry[".layers[1].nn.weight"][0].any()


class Pair(pxc.EnergyModule):
    """One state h with two predictions, u = A x and v = B x; o, observed, is predicted by C h."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(5, 4, bias=False), pxnn.Linear(5, 4, bias=False), pxnn.Linear(4, 3, bias=False)]
        self.first, self.second, self.output = pxc.Vode(), pxc.Vode(), pxc.Vode()
        self.second.h = self.first.h
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        self.first(self.layers[0](x))
        self.second(self.layers[1](x))
        u: Array = self.output(self.layers[2](self.second.get("h")), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


@pytest.mark.parametrize("algorithm", [pxl.PC(2000), pxl.IPC(1), pxl.EPC(2000), pxl.Nudging(1.0, 2000)], ids=repr)
def test_two_nodes_with_one_state(algorithm: pxl.Algorithm) -> None:
    """The state minimises ½|h − u|² + ½|h − v|² + ½|y − C h|²: h = (2 + CᵀC)⁻¹ (u + v + Cᵀy)."""
    model = Pair()
    a, b, c = (np.asarray(layer.nn.weight.get(), np.float64) for layer in model.layers)
    x, y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    u, v = x @ a.T, x @ b.T
    h = np.linalg.solve(2 * np.eye(4) + c.T @ c, (u + v + y @ c).T).T
    rate = 0.1
    if isinstance(algorithm, pxl.IPC):  # one step, from the forward pass, in which the later prediction is the state
        h = v
    grads, _ = gradients(algorithm, model, X, Y, optax.sgd(rate))
    expected = [(u - h).T @ x / 6, (v - h).T @ x / 6, (h @ c.T - y).T @ h / 6]
    for number, gradient in enumerate(expected):
        np.testing.assert_allclose(grads[f".layers[{number}].nn.weight"], gradient, rtol=1e-3, atol=1e-4)


# No minimum, no inference


def with_cross_entropy(place: int, frozen: bool = True, rules: Any = None) -> Chain:
    model = Chain([5, 4, 3])
    model.vodes[place] = pxc.Vode(pxc.ce_energy, *(rules or ()))
    model.vodes[1].h.frozen = frozen
    return model


@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.PC(2, tolerance=0.1), pxl.IPC(2), pxl.Nudging(0.5, 2)], ids=repr)
def test_an_inferred_node_whose_energy_has_no_minimum(algorithm: pxl.Algorithm) -> None:
    words = r"energy with a minimum, found ce_energy in \.vodes\[0\], .* \.vodes\[0\]\.h\.frozen = True"
    with pytest.raises(ValueError, match=words):
        gradients(algorithm, with_cross_entropy(0), X, Y)


@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.IPC(2)], ids=repr)
def test_an_output_without_targets_is_inferred(algorithm: pxl.Algorithm) -> None:
    with pytest.raises(ValueError, match=r"found ce_energy in \.vodes\[1\]"):
        gradients(algorithm, with_cross_entropy(1, frozen=False), X, None)  # type: ignore[arg-type]  # no targets


def test_inference_by_hand_needs_a_minimum() -> None:
    model = with_cross_entropy(0)
    pxl.initialise(X, Y, model=model)
    with pytest.raises(ValueError, match=r"found ce_energy in \.vodes\[0\]"):
        pxl.infer(X, 2, model=model, optim=pxu.Optim(optax.sgd(0.1)))


@pytest.mark.thorough
def test_cross_entropy_of_a_transformed_state_is_bounded() -> None:
    """−softmax(h)·log softmax(u)."""
    rules = {pxc.STATUS.ALL: ("h -> h:softmax",)}, {"softmax": lambda vode, key, h, rkg: jax.nn.softmax(h)}
    _, report = gradients(pxl.PC(3), with_cross_entropy(0, rules=rules), X, Y)
    assert report.check() is report

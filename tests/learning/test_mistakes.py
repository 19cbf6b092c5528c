"""Models and arguments that an algorithm can not serve: what it says of them, and that it leaves all as it was."""

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
X, Y = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), jax.nn.one_hot(jnp.arange(6) % 3, 3)


def chain() -> Chain:
    return Chain([5, 4, 4, 3])


def without_an_observed_node() -> Chain:
    model = chain()
    model.vodes[-1].h.frozen = False
    return model


def with_rules() -> Chain:
    model = chain()
    model.vodes[1] = pxc.Vode(ruleset={pxc.STATUS.ALL: ("h <- u",)})
    return model


def with_an_inner_cross_entropy() -> Chain:
    model = chain()
    model.vodes[1] = pxc.Vode(pxc.ce_energy)
    return model


def with_another_output_energy() -> Chain:
    model = chain()
    model.vodes[-1].energy_fn = pxc.zero_energy
    return model


def with_a_precision() -> Chain:
    model = chain()
    model.vodes[1].precision = pxnn.LayerParam(jnp.full(4, 3.0))
    return model


class WithoutNodes(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(5, 3)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return self.layer(x)


MODELS: list[tuple[pxl.Algorithm, Callable[[], Any], str]] = [
    *((algorithm, without_an_observed_node, r"set h\.frozen = True of its output node")
      for algorithm in (pxl.PC(1), pxl.Backprop(), pxl.Nudging(0.5, 1), pxl.EPC(1), pxl.IPC(1), pxl.ZIL())),
    (pxl.ZIL(), with_an_inner_cross_entropy, r"ZIL expected .* se_energy .* found others in \.vodes\[1\]: use PC"),
    (pxl.ZIL(), with_rules, r"ZIL expected .* built-in rules, found others in \.vodes\[1\]: use PC"),
    (pxl.ZIL(), with_a_precision, r"ZIL expected nodes without a precision, found one in \.vodes\[1\]: use PC"),
    (pxl.EPC(1), with_rules, r"EPC expected .* built-in rules, found others in \.vodes\[1\]: use PC"),
    (pxl.Nudging(0.5, 1), with_another_output_energy, r"se_energy or ce_energy in the observed node \.vodes\[2\]"),
]  # fmt: skip


@pytest.mark.parametrize(("algorithm", "make", "words"), MODELS)
def test_a_model_that_an_algorithm_can_not_serve(algorithm: pxl.Algorithm, make: Callable[[], Any], words: str) -> None:
    model = make()
    before = [param.get() for param in px.tree_extract(model)]
    with pytest.raises(ValueError, match=words):
        gradients(algorithm, model, X, Y)
    assert all(one is other.get() for one, other in zip(before, px.tree_extract(model), strict=True))


def test_backpropagation_without_targets_and_an_observed_node() -> None:
    model = without_an_observed_node()
    optim = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    with pytest.raises(ValueError, match="Backprop expected a model with an observed node, found none"):
        pxl.Backprop()(X, None, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=optim)


def test_a_model_without_nodes() -> None:
    with pytest.raises(ValueError, match="expected a model with value nodes, found none: put a Vode after each layer"):
        pxl.energies(X, model=WithoutNodes())


@pytest.mark.parametrize("make", [pxl.PC, pxl.IPC, pxl.EPC, partial(pxl.Nudging, 0.5)])
@pytest.mark.parametrize("steps", [0, -1, 8.0])
def test_what_is_no_number_of_steps(make: Callable[[Any], Any], steps: Any) -> None:
    with pytest.raises(ValueError, match=f"steps expected a positive int, found {steps}"):
        make(steps)


def test_an_optimiser_that_is_none() -> None:
    model = chain()
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    with pytest.raises(TypeError, match=r"nodes expected an Optim, found a \w+: write Optim\(optax.sgd\(...\)\)"):
        pxl.PC(1)(X, Y, model=model, nodes=optax.sgd(0.1), weights=weights)  # type: ignore[arg-type]  # what is tested


def test_learning_before_there_are_states() -> None:
    model = chain()
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    words = r"states of all nodes, but that of \.vodes\[0\], .* is cleared: call initialise\(x, y, model=model\) first"
    with pytest.raises(ValueError, match=words):
        pxl.learn(X, model=model, optim=weights)


def test_a_model_called_before_there_are_states() -> None:
    with pytest.raises(TypeError, match=r"Linear expected an array, found None: .* initialise the nodes first"):
        chain()(X[0])


def test_labels_that_are_no_numbers_of_classes() -> None:
    words = r"number of its class for each sample, of shape \(3,\), found labels of shape \(3, 3\)"
    with pytest.raises(ValueError, match=words):
        pxl.accuracy(X[:3], Y[:3], chain())
    with pytest.raises(ValueError, match=words):
        pxl.Report(pxl.History(jnp.ones((1, 1)), ("",)), jnp.array(1.0), X[:3, :3]).accuracy(Y[:3])


def test_histories_of_many_batches_are_checked_together() -> None:
    energies = jnp.zeros((4, 3, 2)).at[2, 1, 0].set(jnp.inf)
    with pytest.raises(FloatingPointError, match="the energy of the model is inf at step 2 of 3"):
        pxl.History(energies, ("", ".vode")).check()


def test_a_prediction_writes_nothing_also_when_the_model_is_named() -> None:
    model = chain()
    pxl.initialise(X, Y, model=model)
    before = [vode.h.get() for vode in model.vodes]
    pxl.predict(X[:2], model=model)
    pxl.accuracy(X, jnp.arange(6) % 3, model=model)
    assert all(vode.h.get() is h and vode.cache.get() is None for vode, h in zip(model.vodes, before, strict=True))


def test_the_loss_is_that_of_the_observed_nodes() -> None:
    """Whatever the energy of the others at their forward values."""
    losses = []
    for algorithm in (pxl.PC(1), pxl.IPC(1), pxl.Backprop(), pxl.Nudging(0.5, 1), pxl.EPC(1), pxl.ZIL()):
        model = chain()
        for vode in model.vodes[:-1]:
            vode.energy_fn = partial(pxc.se_energy, log_normaliser=True)
        _, report = gradients(algorithm, model, X, Y)
        expected = 0.5 * ((report.predictions - Y) ** 2).sum(1).mean()
        losses.append(float(report.loss) / float(expected))
    np.testing.assert_allclose(losses, 1, rtol=1e-5)


class Labelled(pxc.EnergyModule):
    """From a clamped label, a node without energy, to an observed image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(2, 3, rkg=px.RandomKeyGenerator(0))
        self.label, self.image = pxc.Vode(None), pxc.Vode()
        self.label.h.frozen = self.image.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.image(self.layer(self.label(x)), output="u")
        if y is not None:
            self.image.set("h", y)
        return u


class Forgetful(Labelled):
    """Sets the observed node whether there is a target or not."""

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.image(self.layer(self.label(x)), output="u")
        self.image.set("h", u if y is None else y)
        return u


@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.IPC(2), pxl.Nudging(0.5, 2), pxl.ZIL()])
def test_a_model_that_forgets_its_target(algorithm: pxl.Algorithm) -> None:
    model = Forgetful()
    model.label, model.image = pxc.Vode(), pxc.Vode()
    model.image.h.frozen = True
    with pytest.raises(ValueError, match=r"set the observed node \.image to its prediction .* `if y is not None"):
        gradients(algorithm, model, jnp.ones((4, 2)), jnp.ones((4, 3)))


def test_nudging_with_cross_entropy_goes_from_the_softmax() -> None:
    """As β vanishes and inference settles, its gradients are those of backpropagation (equilibrium propagation)."""

    def with_cross_entropy() -> Chain:
        model = chain()
        model.vodes[-1].energy_fn = pxc.ce_energy
        return model

    expected, _ = gradients(pxl.Backprop(), with_cross_entropy(), X, Y)
    found, _ = gradients(pxl.Nudging(0.01, 400), with_cross_entropy(), X, Y, optax.sgd(0.2))
    last = ".layers[2].nn.weight"
    # Without inference the output's weights see softmax(u) − h = β (softmax(u) − y), divided by β.
    exact, _ = gradients(pxl.Nudging(0.01, 1), with_cross_entropy(), X, Y, optax.sgd(0.0))
    assert relative_difference({last: exact[last]}, {last: expected[last]}) < 1e-3
    assert relative_difference(found, expected) < 0.5


def test_a_schedule_of_the_noise() -> None:
    with pytest.raises(TypeError, match=r"found a schedule: use optax\.inject_hyperparams"):
        pxl.langevin(lambda count: 0.1)  # type: ignore[arg-type]  # what is tested
    nodes = pxu.Optim(optax.inject_hyperparams(pxl.langevin)(learning_rate=0.1))
    _, report = gradients(pxl.PC(2), chain(), X, Y, optax.inject_hyperparams(pxl.langevin)(learning_rate=0.1))
    assert nodes.state.get() is None
    assert report.check() is report

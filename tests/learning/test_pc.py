"""Training against the same steps written by hand: raw JAX with `lax.scan`, and optax."""

import gc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.oracles import Network, close, linears

SIZES = [5, 8, 8, 8, 3]
BATCH, STEPS = 6, 7
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(4, BATCH, SIZES[0])).astype(np.float32)
LABELS = RNG.integers(SIZES[-1], size=(4, BATCH))
YS = np.eye(SIZES[-1], dtype=np.float32)[LABELS]
Raw = dict[str, Any]
Optax = optax.GradientTransformation


pytestmark = pytest.mark.usefixtures("standard_promotion")


class Planted(Exception):
    """Raised on purpose."""


class Model(Network):
    """The hidden layers 2 and 3 are one, if tied."""

    countdown: int | None = None  # how many calls until one raises
    calls = 0

    def __init__(self, tied: bool = True) -> None:
        super().__init__(linears(SIZES, seed=3))
        if tied:
            self.layers[2] = pxnn.shared(self.layers[1])
        self.tag = px.static(0)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        Model.calls += 1
        if Model.countdown is not None:
            Model.countdown -= 1
        prediction = super().__call__(x, y)
        if Model.countdown == 0:
            px.RKG()
            self.layers[0].nn.weight += 1
            self.vodes[0].h.frozen = True
            raise Planted
        return prediction

    def raw(self, tied: bool = True) -> Raw:
        definitions = [layer.nn for layer in self.layers]
        return {
            str(number): (nn.weight.get(), px.get(nn.bias))
            for number, nn in enumerate(definitions)
            if not (tied and number == 2)
        }

    def states(self) -> list[Any]:
        return [vode.h.get() for vode in self.vodes]


# The same in raw JAX.


def layers(weights: Raw) -> list[tuple[Array, Array]]:
    return [weights[str(number)] if str(number) in weights else weights["1"] for number in range(4)]


def raw_predictions(weights: Raw, x: Array, h: list[Array]) -> list[Array]:
    a = [below @ w.T + b[None] for below, (w, b) in zip([x, *h], layers(weights), strict=False)]
    return [*(jnp.tanh(each) for each in a[:3]), *a[3:]]


def raw_initial(weights: Raw, x: Array) -> list[Array]:
    h: list[Array] = []
    for number in range(4):
        h.append(raw_predictions(weights, x, h)[number])
    return h


def raw_energy(weights: Raw, hidden: list[Array], x: Array, y: Array) -> Array:
    """Of each sample."""
    pairs = zip([*hidden, y], raw_predictions(weights, x, hidden), strict=True)
    return jnp.stack([0.5 * ((h - u) ** 2).sum(1) for h, u in pairs]).sum(0)


def raw_infer(
    weights: Raw, hidden: list[Array], x: Array, y: Array, steps: int, optim: Optax
) -> tuple[list[Array], Array]:
    def relax(carry: Any, _: None) -> Any:
        h, state = carry
        energy = raw_energy(weights, h, x, y).mean()
        grads = jax.grad(lambda h: raw_energy(weights, h, x, y).sum())(h)
        updates, state = optim.update(grads, state, h)
        return (optax.apply_updates(h, updates), state), energy

    (hidden, _), history = jax.lax.scan(relax, (hidden, optim.init(hidden)), length=steps)
    return hidden, history


def raw_train(weights: Raw, state: Any, x: Array, y: Array, nodes: Optax, optim: Optax) -> tuple[Raw, Any, Array]:
    hidden, history = raw_infer(weights, raw_initial(weights, x)[:3], x, y, STEPS, nodes)
    grads = jax.grad(lambda weights: raw_energy(weights, hidden, x, y).mean())(weights)
    updates, state = optim.update(grads, state, weights)
    return optax.apply_updates(weights, updates), state, history


NODE_OPTIMISERS: dict[str, Callable[[], Optax]] = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.05, momentum=0.5),
}
WEIGHT_OPTIMISERS: dict[str, Callable[[], Optax]] = {
    "sgd": lambda: optax.sgd(0.1),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
}


@pytest.mark.thorough
@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize(("nodes", "weights"), [("sgd", "adamw"), ("momentum", "sgd")])
def test_training_equals_the_same_by_hand(nodes: str, weights: str, tied: bool) -> None:
    model = Model(tied)
    raw = model.raw(tied)
    optims = NODE_OPTIMISERS[nodes](), WEIGHT_OPTIMISERS[weights]()
    state = optims[1].init(raw)
    by_hand = jax.jit(raw_train, static_argnums=(4, 5))
    algorithm = pxl.PC(STEPS)
    node_optim, weight_optim = pxu.Optim(optims[0]), pxu.Optim(optims[1], pxl.WEIGHTS(model))
    for x, y in zip(XS, YS, strict=True):
        before = raw
        raw, state, expected = by_hand(raw, state, x, y, *optims)
        predictions = raw_initial(before, jnp.asarray(x))[-1]
        report = algorithm(x, y, model=model, nodes=node_optim, weights=weight_optim).check()
        assert report.energies.shape == (STEPS,)
        close((report.energies, report.loss, report.predictions), (expected, expected[0], predictions))
        close(model.raw(tied), raw)
        assert model.states() == [None] * 4
        assert all(vode.cache.get() is None for vode in model.vodes)
        assert node_optim.state.get() is None
    assert model.status is None


@pytest.mark.thorough
def test_its_parts_on_their_own() -> None:
    model = Model()
    raw, x, y = model.raw(), jnp.asarray(XS[0]), jnp.asarray(YS[0])
    node_optim, weight_optim = optax.sgd(0.1, momentum=0.5), optax.sgd(0.2)
    optim = pxu.Optim(weight_optim, pxl.WEIGHTS(model))

    pxl.initialise(x, y, model=model)
    hidden = raw_initial(raw, x)[:3]
    close(model.states(), [*hidden, y])
    assert all(vode.cache.get() is None and vode.status is None for vode in model.vodes)

    history = pxl.infer(x, STEPS, model=model, optim=pxu.Optim(node_optim))
    hidden, expected = jax.jit(raw_infer, static_argnums=(4, 5))(raw, hidden, x, y, STEPS, node_optim)
    close(history, expected)
    close(model.states(), [*hidden, y])
    close(model.raw(), raw)
    close(pxl.energies(x, model=model), raw_energy(raw, hidden, x, y))

    energy = pxl.learn(x, model=model, optim=optim)
    value, grads = jax.jit(jax.value_and_grad(lambda weights: raw_energy(weights, hidden, x, y).mean()))(raw)
    close(energy, value)
    updates, _ = weight_optim.update(grads, weight_optim.init(raw), raw)
    raw = optax.apply_updates(raw, updates)
    close(model.raw(), raw)
    close(model.states(), [*hidden, y])
    close(pxl.energies(x, model=model), raw_energy(raw, hidden, x, y))


def test_without_targets_the_output_is_its_prediction() -> None:
    model = Model()
    pxl.initialise(XS[0], model=model)
    close(model.states(), raw_initial(model.raw(), jnp.asarray(XS[0])))
    close(pxl.energies(XS[0], model=model), jnp.zeros(BATCH))


@pytest.mark.thorough
def test_tied_layers() -> None:
    """The gradient is the sum of the two uses, the optimiser steps once, and it is one parameter all along."""
    model, x, y = Model(), jnp.asarray(XS[0]), jnp.asarray(YS[0])
    weight, bias = model.layers[1].nn.weight, model.layers[1].nn.bias
    pxl.initialise(x, y, model=model)
    pxl.infer(x, STEPS, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    untied = {**model.raw(), "2": model.raw()["1"]}
    uses = jax.jit(jax.grad(lambda weights: raw_energy(weights, model.states()[:3], x, y).mean()))(untied)

    @pxf.jit
    @pxf.grad({"model": pxl.WEIGHTS})
    def energy(*, model: Model) -> Array:
        return pxl.energies(x, model=model).mean()

    grads = energy(model=model)["model"]
    for found, first, second in zip(
        (grads.layers[1].nn.weight, grads.layers[1].nn.bias), uses["1"], uses["2"], strict=True
    ):
        assert jnp.abs(first).max() > 1e-3
        assert jnp.abs(second).max() > 1e-3
        close(found.get(), first + second)
    assert grads.layers[2].nn.weight is None

    before = weight.get()
    optim = pxu.Optim(optax.adam(0.01), pxl.WEIGHTS(model))
    for batch, targets in zip(XS, YS, strict=True):
        pxl.PC(STEPS)(batch, targets, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=optim)
    assert model.layers[1].nn.weight is model.layers[2].nn.weight is weight
    assert model.layers[1].nn.bias is model.layers[2].nn.bias is bias
    assert bool((weight.get() != before).any())
    assert int(optim.state.get()[0].count) == len(XS)
    assert len(optim.state.get()[0].mu) == 6


def test_frozen_weights_are_not_learned() -> None:
    model = Model()
    model.layers[0].nn.weight.frozen = True
    frozen, free = model.layers[0].nn.weight.get(), model.layers[1].nn.weight.get()
    optim = pxu.Optim(optax.adamw(0.1), pxl.WEIGHTS(model))
    pxl.PC(2)(XS[0], YS[0], model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=optim)
    assert model.layers[0].nn.weight.get() is frozen
    assert bool((model.layers[1].nn.weight.get() != free).any())


def calls_of(run: Callable[[], object]) -> int:
    before = Model.calls
    run()
    return Model.calls - before


def test_how_often_it_is_traced_does_not_depend_on_the_number_of_steps() -> None:
    counts = []
    for steps in (1, 4, 64):
        model = Model()
        nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))

        def train(number: int, steps: int = steps, model: Model = model, optims: Any = (nodes, weights)) -> None:
            pxl.PC(steps)(XS[number], YS[number], model=model, nodes=optims[0], weights=optims[1])

        counts.append(calls_of(lambda train=train: train(0)))  # type: ignore[misc]  # mypy does not infer it
        assert [calls_of(lambda train=train, n=n: train(n)) for n in (1, 2, 3)] == [0, 0, 0]  # type: ignore[misc]
    assert counts[0] == counts[1] == counts[2] > 0


def snapshot(model: Model, *others: Any) -> tuple[Any, ...]:
    """Every parameter, its value and attributes; every status; and the global key."""
    params = px.tree_extract((model, *others, px.RKG), filter_fn=lambda param: True)
    leaves = jax.tree.leaves([param.get() for param in params if isinstance(param, px.DynamicParam)])
    return (
        [id(param) for param in params],
        [id(leaf) for leaf in leaves],
        [np.asarray(leaf).tolist() for leaf in leaves],
        [dict(vars(param)) for param in params],
        [module.status for module in (model, *model.vodes)],
        [type(param.get()) for param in params],
    )


@pytest.mark.thorough
@pytest.mark.usefixtures("small_heap")
def test_an_exception_during_training_leaves_all_as_it_was() -> None:
    model = Model()
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.adam(0.1), pxl.WEIGHTS(model))

    def train() -> None:
        pxl.PC(3)(XS[0], YS[0], model=model, nodes=nodes, weights=weights)

    calls = 0
    with jax.checking_leaks():
        for countdown in range(1, 100):
            model.tag.set(countdown)  # another structure, so that everything is traced again
            before = snapshot(model, nodes, weights)
            Model.countdown = countdown
            try:
                train()
            except Planted:
                assert snapshot(model, nodes, weights) == before
                calls += 1
                gc.collect()
            else:
                break
            finally:
                Model.countdown = None
    assert calls >= 3  # in initialisation, inference and learning
    fresh = Model()
    pxl.PC(3)(XS[0], YS[0], model=fresh, nodes=nodes, weights=pxu.Optim(optax.adam(0.1), pxl.WEIGHTS(fresh)))
    close(model.raw(), fresh.raw())


@pytest.mark.parametrize("filled", [None, BATCH, 2])
def test_predictions_write_nothing(filled: int | None) -> None:
    model = Model()
    if filled is not None:
        pxl.initialise(XS[1][:filled], YS[1][:filled], model=model)
        model.vodes[0].cache["u"] = jnp.ones((filled, 1))
    before = snapshot(model)
    predictions = pxl.predict(XS[0], model)
    expected = raw_initial(model.raw(), jnp.asarray(XS[0]))[-1]
    close(predictions, expected)
    accuracy = pxl.accuracy(XS[0], LABELS[0], model)
    assert isinstance(accuracy, float)
    assert accuracy == pytest.approx(float((np.argmax(np.asarray(expected), 1) == LABELS[0]).mean()))
    assert snapshot(model) == before


@pytest.mark.thorough
def test_initialisation_for_a_batch_of_another_size() -> None:
    model = Model()
    for size in (BATCH, 2, BATCH, 3):
        pxl.initialise(XS[0][:size], YS[0][:size], model=model)
        close(model.states()[:3], raw_initial(model.raw(), jnp.asarray(XS[0][:size]))[:3])
        history = pxl.infer(XS[0][:size], 2, model=model, optim=pxu.Optim(optax.sgd(0.1)))
        assert history.shape == (2,)


def test_algorithms_of_the_same_settings_are_the_same() -> None:
    assert pxl.PC(3) == pxl.PC(3) != pxl.PC(4)
    assert pxl.PC() == pxl.PC(8)

"""Amortised inference against the same by hand in raw JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

GUESSED: dict[str | None, tuple[str, ...]] = {pxc.STATUS.INIT: ("u <- u",)}
RATE, STEPS, BATCH = 0.1, 5, 6
Weights = dict[str, Array]


class Hybrid(pxc.EnergyModule):
    """Label, hidden and image, each of which predicts the next; the guesses go the other way."""

    def __init__(self) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(1)
        self.down = [pxnn.Linear(2, 3, rkg=rkg), pxnn.Linear(3, 4, rkg=rkg)]
        up = [pxnn.Linear(3, 2, rkg=rkg), pxnn.Linear(4, 3, rkg=rkg)]
        self.label, self.hidden, self.image = pxc.Vode(ruleset=GUESSED), pxc.Vode(ruleset=GUESSED), pxc.Vode()
        self.guesses = [pxc.Amortised(self.label, up[0]), pxc.Amortised(self.hidden, up[1])]
        self.image.h.frozen = True

    def __call__(self, image: Array, label: Array | None = None) -> Array:
        self.image.set("h", image)
        if label is not None:
            self.label.set("h", label)
        self.guesses[0](jnp.tanh(self.guesses[1](image)))
        z = self.label(jnp.zeros(2))
        z = self.hidden(self.down[0](z))
        self.image(self.down[1](jnp.tanh(z)))
        prediction: Array = self.guesses[0].guess.get("u")
        return prediction


def weights_of(model: Hybrid) -> Weights:
    layers = {"W1": model.down[0], "W2": model.down[1], "V1": model.guesses[0].network, "V2": model.guesses[1].network}
    found: Weights = {}
    for name, layer in layers.items():
        assert isinstance(layer, pxnn.Linear)
        assert layer.nn.bias is not None
        found |= {name: layer.nn.weight.get(), f"{name} bias": layer.nn.bias.get()}
    return found


def apply(name: str, w: Weights, x: Array) -> Array:
    return x @ w[name].T + w[f"{name} bias"][None]


def start(w: Weights, x: Array) -> tuple[Array, Array]:
    hidden = apply("V2", w, x)
    return apply("V1", w, jnp.tanh(hidden)), hidden


def generative(states: tuple[Array, Array], w: Weights, x: Array) -> Array:
    """The energy of each sample."""
    label, hidden = states
    errors = label, hidden - apply("W1", w, label), x - apply("W2", w, jnp.tanh(hidden))
    return sum((0.5 * (error**2).sum(1) for error in errors), start=jnp.zeros(len(x)))


def amortised(states: tuple[Array, Array], w: Weights, x: Array) -> Array:
    label, hidden = states
    errors = label - apply("V1", w, jnp.tanh(hidden)), hidden - apply("V2", w, x)
    return sum((0.5 * (error**2).sum(1) for error in errors), start=jnp.zeros(len(x)))


def relaxed(w: Weights, x: Array, frozen_label: Array | None = None) -> tuple[tuple[Array, Array], Array]:
    states = start(w, x)
    if frozen_label is not None:
        states = frozen_label, states[1]
    energies = []
    for _ in range(STEPS):
        energies.append(generative(states, w, x).mean())
        moves = jax.grad(lambda states: generative(states, w, x).sum())(states)
        label = states[0] - RATE * moves[0] if frozen_label is None else frozen_label
        states = label, states[1] - RATE * moves[1]
    return states, jnp.stack(energies)


def learned(states: tuple[Array, Array], w: Weights, x: Array) -> Weights:
    """After one step of rate 1."""
    moves = jax.grad(lambda w: (generative(states, w, x) + amortised(states, w, x)).mean())(w)
    return {name: w[name] - moves[name] for name in w}


@pytest.fixture
def x() -> Array:
    return jax.random.normal(jax.random.key(0), (BATCH, 4))


def nodes() -> pxu.Optim:
    return pxu.Optim(optax.sgd(RATE))


def assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_states_start_at_the_guess(x: Array) -> None:
    model = Hybrid()
    prediction = pxl.initialise(x, model=model)
    assert_close((model.label.h.get(), model.hidden.h.get()), start(weights_of(model), x))
    assert_close(prediction, model.label.h.get())


@pytest.mark.thorough
def test_inference_is_that_of_the_generative_network(x: Array) -> None:
    model = Hybrid()
    pxl.initialise(x, model=model)
    energies = pxl.infer(x, STEPS, model=model, optim=nodes())
    states, expected = relaxed(weights_of(model), x)
    assert_close((model.label.h.get(), model.hidden.h.get()), states)
    assert_close(energies, expected)
    assert_close(pxl.energies(x, model=model), generative(states, weights_of(model), x))


@pytest.mark.thorough
@pytest.mark.parametrize("clamped", [False, True])
def test_both_networks_learn_from_where_inference_ends(x: Array, clamped: bool) -> None:
    model = Hybrid()
    before = weights_of(model)
    label = jnp.eye(2)[jnp.arange(BATCH) % 2] if clamped else None
    model.label.h.frozen = clamped
    weights = pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    pxl.PC(STEPS)(x, label, model=model, nodes=nodes(), weights=weights)
    states, _ = relaxed(before, x, label)
    expected = learned(states, before, x)
    assert_close(weights_of(model), expected)
    assert all(not jnp.allclose(expected[name], before[name]) for name in before)


@pytest.mark.thorough
def test_incremental_predictive_coding(x: Array) -> None:
    model = Hybrid()
    w = weights_of(model)
    pxl.IPC(STEPS)(x, None, model=model, nodes=nodes(), weights=pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model)))
    states = start(w, x)
    for _ in range(STEPS):
        moves = jax.grad(lambda states, w=w: generative(states, w, x).sum())(states)
        w, states = learned(states, w, x), jax.tree.map(lambda state, move: state - RATE * move, states, moves)
    assert_close(weights_of(model), w)


def test_backpropagation_learns_the_guesses_through_the_start(x: Array) -> None:
    model = Hybrid()
    before = weights_of(model)

    def loss(w: Weights) -> Array:
        hidden = start(w, x)[1]
        return (0.5 * (x - apply("W2", w, jnp.tanh(hidden))) ** 2).sum(1).mean()

    weights = pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    report = pxl.Backprop()(x, None, model=model, nodes=nodes(), weights=weights)
    assert_close(report.loss, loss(before))
    expected = jax.tree.map(lambda weight, move: weight - move, before, jax.grad(loss)(before))
    assert_close(weights_of(model), expected)


def test_what_is_not_a_node_and_a_network_is_refused() -> None:
    node = pxc.Vode(ruleset={pxc.STATUS.INIT: ("u <- u",)})
    with pytest.raises(TypeError, match="expected a Vode and a network, found a Vode and a str"):
        pxc.Amortised(node, "network")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="expected a Vode and a network, found a Linear and a Linear"):
        pxc.Amortised(pxnn.Linear(2, 2), pxnn.Linear(2, 2))  # type: ignore[arg-type]  # what is tested


def test_a_node_that_starts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Amortised expected a node that does not start itself.*u <- u"):
        pxc.Amortised(pxc.Vode(), pxnn.Linear(2, 2))


@pytest.mark.parametrize("algorithm", [pxl.EPC(), pxl.ZIL()])
def test_algorithms_that_do_not_fit_say_so(x: Array, algorithm: pxl.Algorithm) -> None:
    model = Hybrid()
    weights = pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    with pytest.raises(ValueError, match=r"se_energy and the built-in rules, found others in .*: use PC"):
        algorithm(x, None, model=model, nodes=nodes(), weights=weights)


class Three(px.Module):
    """Guesses the states of three layers of a stack at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(4, 6)

    def __call__(self, x: Array) -> Array:
        guess: Array = self.layer(x).reshape(3, 2)
        return guess


class Stacked(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.stack = pxc.Stack(lambda: pxnn.Linear(2, 2), 3, ruleset=GUESSED)
        self.layer, self.image = pxnn.Linear(2, 4), pxc.Vode()
        self.network = Three()
        self.guess = pxc.Amortised(self.stack.vodes, pxnn.shared(self.network))
        self.image.h.frozen = True

    def __call__(self, image: Array, _: None = None) -> Array:
        self.image.set("h", image)
        self.guess(image)
        prediction: Array = self.image(self.layer(self.stack(jnp.ones(2))), output="u")
        return prediction


@pytest.mark.thorough
def test_the_states_of_a_stack_are_guessed_at_once(x: Array) -> None:
    model = Stacked()
    blocks, out = model.stack.blocks.nn, model.layer.nn
    assert blocks.bias is not None and out.bias is not None
    w = jax.tree.map(jnp.asarray, (blocks.weight.get(), blocks.bias.get(), out.weight.get(), out.bias.get()))
    states = jax.vmap(model.network)(x)
    pxl.initialise(x, model=model)
    assert_close(model.stack.vodes.h.get(), states)

    def energy(states: Array, w: tuple[Array, ...]) -> Array:
        below = jnp.concatenate([jnp.ones((BATCH, 1, 2)), states[:, :-1]], axis=1)
        hidden = states - (jnp.einsum("lij,blj->bli", w[0], below) + w[1][None])
        image = x - (states[:, -1] @ w[2].T + w[3][None])
        return 0.5 * (hidden**2).sum() + 0.5 * (image**2).sum()

    energies = pxl.infer(x, STEPS, model=model, optim=nodes())
    for found in energies:
        assert_close(found, energy(states, w) / BATCH)
        states = states - RATE * jax.grad(energy)(states, w)
    assert_close(model.stack.vodes.h.get(), states)
    before = jax.tree.leaves(pxl.WEIGHTS(model.network))
    pxl.learn(x, model=model, optim=pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model)))
    errors = states.reshape(BATCH, 6) - (x @ before[0].T + before[1][None])
    assert_close(model.network.layer.nn.weight.get(), before[0] + errors.T @ x / BATCH)

"""What all algorithms share: immutable settings, one compiled step, a report; and the options of inference."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.utils as pxu
from tests.learning.chains import Chain, gradients, relative_difference

RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32), jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
ALL = [pxl.Backprop(), pxl.PC(2), pxl.PC(2, tolerance=0.1), pxl.Nudging(0.5, 2), pxl.IPC(2), pxl.ZIL(), pxl.EPC(2)]


class Counted(Chain):
    calls = 0

    def __init__(self) -> None:
        super().__init__([5, 4, 4, 3])

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        Counted.calls += 1
        return super().__call__(x, y)


@dataclass(frozen=True)
class Noted(pxl.Algorithm):
    """Backpropagation with a rate of its own, which notes how often it is traced."""

    rate: float
    times: int
    traced = 0

    def train(self, x: Any, y: Any, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        Noted.traced += 1
        predictions = pxl.initialise(x, y, model=model)
        for _ in range(self.times):
            pxl.learn(x, self.rate, model=model, optim=weights)
        history = pxl.relax(x, 1, model=model, optim=nodes)
        return pxl.Report(history, history.total[0], predictions)


@pytest.mark.parametrize("algorithm", ALL, ids=repr)
def test_each_is_immutable_and_compiled_once_and_leaves_nothing_behind(algorithm: pxl.Algorithm) -> None:
    with pytest.raises(FrozenInstanceError):
        algorithm.steps = 3  # type: ignore[attr-defined]  # what is tested
    assert replace(algorithm) == algorithm
    model = Counted()
    nodes, weights = pxu.Optim(optax.sgd(0.1, 0.9)), pxu.Optim(optax.sgd(0.01, 0.9), pxl.WEIGHTS(model))
    before = model.weights
    report = algorithm(X, Y, model=model, nodes=nodes, weights=weights)
    calls = Counted.calls
    algorithm(X, Y, model=model, nodes=nodes, weights=weights)
    assert Counted.calls == calls
    assert all(not jnp.array_equal(*pair) for pair in zip(model.weights[-1:], before[-1:], strict=True))
    assert all(vode.h.get() is None and vode.cache.get() is None for vode in model.vodes)
    assert model.status is None
    assert nodes.state.get() is None
    # The report: finite, the loss of the forward pass, and accuracy by the largest output.
    predictions = jnp.tanh(jnp.tanh(X @ before[0].T) @ before[1].T) @ before[2].T
    np.testing.assert_allclose(report.predictions, predictions, atol=1e-6)
    np.testing.assert_allclose(report.loss, 0.5 * ((predictions - Y) ** 2).sum(1).mean(), rtol=1e-5)
    assert report.check() is report
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    assert report.accuracy(labels) == pytest.approx(np.mean(np.argmax(np.asarray(predictions), 1) == labels))


def test_floats_are_traced_and_the_rest_is_structure() -> None:
    model = Chain([5, 3])
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    Noted.traced = 0
    for rate, times, traced in [(0.1, 1, 1), (0.2, 1, 1), (0.3, 2, 2), (0.1, 2, 2), (0.1, 1, 2)]:
        expected = model.weights[0]
        for _ in range(times):
            expected -= rate * (X @ expected.T - Y).T @ X / len(X)
        Noted(rate, times)(X, Y, model=model, nodes=nodes, weights=weights)
        np.testing.assert_allclose(model.weights[0], expected, atol=1e-5)
        assert Noted.traced == traced


class InContainers(pxl.Algorithm):
    rates: dict[str, Any]
    times: list[Any]

    def train(self, x: Any, y: Any, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        return Noted(self.rates["weights"], self.times[0]).train(x, y, model=model, nodes=nodes, weights=weights)


def test_containers_of_floats_and_arrays_are_traced_and_others_may_be_changed() -> None:
    model = Chain([5, 3])
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    changing = InContainers({"weights": 0.1}, [1])
    Noted.traced = 0
    for rate, times, traced in [(0.1, 1, 1), (0.2, 1, 1), (0.2, 2, 2), (0.3, 2, 2), (0.1, 1, 2)]:
        changing.rates["weights"], changing.times[0] = rate, times
        for algorithm in (changing, InContainers({"weights": rate}, [times])):
            expected = model.weights[0]
            for _ in range(times):
                expected -= rate * (X @ expected.T - Y).T @ X / len(X)
            algorithm(X, Y, model=model, nodes=nodes, weights=weights)
            np.testing.assert_allclose(model.weights[0], expected, atol=1e-5)
            assert Noted.traced == traced
    changing.times[1:] = [jnp.ones(2)]
    words = r"InContainers\.times expected a container of floats and arrays alone, .* found \[1, Array"
    with pytest.raises(TypeError, match=words):
        changing(X, Y, model=model, nodes=nodes, weights=weights)


class Plain(pxl.Algorithm):
    """Backpropagation with a rate of its own, as a plain class."""

    rate: float = 0.5
    times: int = 1
    kind: str = "once"

    def train(self, x: Any, y: Any, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        return Noted(self.rate, self.times).train(x, y, model=model, nodes=nodes, weights=weights)


class Long(pxl.PC):
    steps: int = 64


class Longer(Long):
    steps = 65


class Schedule(pxl.Nudging):
    beta: float = 0.25
    extra: int = 1


@dataclass(frozen=True, kw_only=True)
class Decorated(Plain):
    more: tuple[int, ...] = field(default_factory=tuple)
    times = 7


class WithConstructor(pxl.Algorithm):
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def train(self, x: Any, y: Any, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        return Noted(self.rate, 1).train(x, y, model=model, nodes=nodes, weights=weights)


def test_a_subclass_needs_no_decorator() -> None:
    assert (Long().steps, Long(3).steps, Long(unroll=2).unroll) == (64, 3, 2)
    unannotated: Any = Longer, Decorated  # which a type checker would not let go
    assert (unannotated[0]().steps, unannotated[0](steps=9).steps) == (65, 9)
    assert (unannotated[1](more=(1,)).more, unannotated[1]().times, unannotated[1]().rate) == ((1,), 7, 0.5)
    assert (Plain(0.1), Plain(times=5).times, Plain(0.1, 2, "x").kind) == (Plain(rate=0.1), 5, "x")
    assert Plain(0.1) != Plain(0.2)
    assert (Schedule().beta, Schedule(extra=3).steps, Schedule(0.75, extra=2).extra) == (0.25, 8, 2)
    for twin in (pickle.loads(pickle.dumps(Long(5))), copy.deepcopy(Long(5)), replace(Long(), steps=5)):
        assert (twin, repr(twin)) == (Long(5), "Long(steps=5, unroll=1, tolerance=None, reset=True, record=False)")
    with pytest.raises(FrozenInstanceError):
        Long().steps = 3  # type: ignore[misc]  # what is tested
    with pytest.raises(TypeError, match="unexpected keyword argument 'rounds'"):
        Plain(rounds=3)  # type: ignore[call-arg]  # what is tested
    with pytest.raises(ValueError, match="steps expected a positive int, found 0"):
        Long(0)


@pytest.mark.parametrize("make", [Plain, Decorated, WithConstructor])
def test_a_plain_class_trains_with_its_hyperparameters(make: Any) -> None:
    """And those that are floats are traced."""
    model = Chain([5, 3])
    optims = {"nodes": pxu.Optim(optax.sgd(0.1)), "weights": pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))}
    Noted.traced = 0
    for rate in (0.1, 0.2, 0.3):
        algorithm = make(rate=rate) if make is not Decorated else make(rate=rate, more=(1,))
        expected = model.weights[0]
        for _ in range(getattr(algorithm, "times", 1)):
            expected -= rate * (X @ expected.T - Y).T @ X / len(X)
        algorithm(X, Y, model=model, **optims)
        np.testing.assert_allclose(model.weights[0], expected, atol=1e-5)
    assert Noted.traced == 1


class Choosing(Plain):
    def train(self, x: Any, y: Any, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        if self.kind == "branch" and self.rate > 0.1:
            pass
        for _ in range(int(self.rate) if self.kind == "count" else 1):
            np.arange(3) * np.asarray(self.rate if self.kind == "numpy" else 1.0)
        return super().train(x, y, model=model, nodes=nodes, weights=weights)


@pytest.mark.parametrize("kind", ["branch", "count", "numpy"])
def test_a_choice_by_a_traced_hyperparameter(kind: str) -> None:
    words = r"Choosing\.train needs to know its hyperparameter rate while it is compiled, .* jnp\.where"
    with pytest.raises(TypeError, match=words):
        gradients(Choosing(kind=kind), Chain([5, 3]), X, Y)
    gradients(Choosing(), Chain([5, 3]), X, Y)


def test_an_algorithm_without_a_training_step_is_refused() -> None:
    with pytest.raises(TypeError, match="abstract"):
        pxl.Algorithm()  # type: ignore[abstract]  # what is tested


@pytest.mark.thorough
def test_the_history_is_that_of_every_node_in_order() -> None:
    model = Chain([3] * 12)  # as strings, .vodes[10] comes before .vodes[2]
    x, y = X[:, :3], Y
    _, report = gradients(pxl.PC(2), model, x, y)
    assert report.history.nodes == tuple(f".vodes[{number}]" for number in range(11))
    energies = report.history.energies
    np.testing.assert_allclose(energies[0, :-1], 0, atol=1e-10)  # forward values
    assert energies[1, -2] > 0
    np.testing.assert_allclose(energies[1, :-2], 0, atol=1e-10)  # which the error has not reached
    np.testing.assert_allclose(report.energies, energies.sum(1))


@pytest.mark.parametrize("algorithm", ALL, ids=repr)
def test_an_energy_that_is_not_finite_is_named(algorithm: pxl.Algorithm) -> None:
    _, report = gradients(algorithm, Chain([5, 4, 4, 3]), X, Y.at[0, 0].set(jnp.nan))
    words = (
        r"the energy of \.vodes\[2\] is nan at step 1 of \d: lower .* an energy that is defined where inference starts"
    )
    with pytest.raises(FloatingPointError, match=words):
        report.check()


def test_a_diverging_inference_names_its_step() -> None:
    _, report = gradients(pxl.PC(60), Chain([5, 4, 4, 3]), X, Y, optax.sgd(10.0))
    energies = np.asarray(report.history.energies)
    step, node = np.argwhere(~np.isfinite(energies))[0]
    assert step > 2
    with pytest.raises(FloatingPointError, match=rf"\.vodes\[{node}\] is (inf|nan) at step {step + 1} of 60"):
        report.check()


def test_inference_ends_when_the_energy_settles() -> None:
    tolerance = 0.02

    def infer(*options: Any) -> tuple[Array, Array]:
        model = Chain([5, 4, 3])
        pxl.initialise(X, Y, model=model)
        history = pxl.infer(X, *options, model=model, optim=pxu.Optim(optax.sgd(0.1)))
        return history, model.vodes[0].h.get()

    full, _ = infer(40)
    changes = np.abs(np.diff(full)) / full[:-1]
    settled = int(np.argmax(changes <= tolerance)) + 1  # the first step whose energy is close to the one before
    assert 3 < settled < 38
    history, h = infer(40, 1, tolerance)
    np.testing.assert_allclose(history[: settled + 1], full[: settled + 1], rtol=1e-6)
    np.testing.assert_array_equal(history[settled:], history[settled])
    np.testing.assert_allclose(h, infer(settled + 1)[1], atol=1e-6)


@pytest.mark.thorough
def test_the_optimiser_of_the_nodes_starts_anew_or_continues() -> None:
    def train(reset: bool) -> list[Array]:
        model, nodes = Chain([5, 4, 3]), pxu.Optim(optax.sgd(0.1, momentum=0.9))
        weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
        for _ in range(2):
            pxl.PC(3, reset=reset)(X, Y, model=model, nodes=nodes, weights=weights)
        assert (nodes.state.get() is None) is reset
        return model.weights

    def by_hand(reset: bool) -> list[Array]:
        w1, w2 = Chain([5, 4, 3]).weights
        velocity = jnp.zeros((6, 4))
        for _ in range(2):
            h = jnp.tanh(X @ w1.T)
            velocity = jnp.zeros((6, 4)) if reset else velocity

            def energy(h: Array, w1: Array, w2: Array) -> Array:
                return 0.5 * ((h - jnp.tanh(X @ w1.T)) ** 2).sum() + 0.5 * ((Y - h @ w2.T) ** 2).sum()

            for _ in range(3):
                velocity = jax.grad(energy)(h, w1, w2) + 0.9 * velocity
                h = h - 0.1 * velocity
            g1, g2 = jax.grad(energy, argnums=(1, 2))(h, w1, w2)
            w1, w2 = w1 - 0.1 * g1 / 6, w2 - 0.1 * g2 / 6
        return [w1, w2]

    for reset in (True, False):
        for found, expected in zip(train(reset), by_hand(reset), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    model = Chain([5, 40, 40, 3])
    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9))
    pxl.initialise(X, Y, model=model)

    def memory(steps: int) -> int:
        def infer(*, model: Chain, optim: pxu.Optim) -> Array:
            return pxl.infer(X, steps, model=model, optim=optim)

        analysis = pxf.jit(infer).lower(model=model, optim=optim).compile().memory_analysis()
        assert analysis is not None
        return int(analysis.temp_size_in_bytes)

    # In bytes, of three nodes for every sample and step; the states would be 27 times as much.
    energies = 4 * 3 * len(X) * (256 - 8)
    assert memory(256) - memory(8) <= 3 * energies


def test_plain_inference_is_the_total_of_the_history() -> None:
    model = Chain([5, 4, 3])
    pxl.initialise(X, Y, model=model)
    history = pxf.jit(static_argnums=1)(pxl.relax)(X, 3, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    pxl.initialise(X, Y, model=model)
    np.testing.assert_allclose(history.total, pxl.infer(X, 3, model=model, optim=pxu.Optim(optax.sgd(0.1))), rtol=1e-6)


def test_one_step_of_incremental_learning_is_that_of_pc_at_the_forward_values() -> None:
    """With T = 1 both see the same gradient, taken before any state has moved: that of the output's weights alone."""
    found, _ = gradients(pxl.IPC(1), Chain([5, 4, 3]), X, Y)
    expected, _ = gradients(pxl.PC(1), Chain([5, 4, 3]), X, Y, optax.sgd(0.0))
    np.testing.assert_array_equal(found[".layers[0].nn.weight"], 0)
    assert relative_difference(*({".": grads[".layers[1].nn.weight"]} for grads in (found, expected))) < 1e-6


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.usefixtures("standard_promotion")
def test_a_tolerance_of_the_gradient_keeps_the_dtype_of_states(per_sample: bool) -> None:
    """As optax does, whatever the updates are; here, the rate of float32 makes them float32."""
    found = []
    for tolerance in (None, pxl.GradientTolerance(0.0, per_sample)):
        model = Chain([5, 4, 3])
        for layer in model.layers:
            layer.nn.weight.set(layer.nn.weight.get().astype(jnp.bfloat16))
        pxl.initialise(X.astype(jnp.bfloat16), Y.astype(jnp.bfloat16), model=model)
        optim = pxu.Optim(optax.sgd(jnp.float32(0.1)))
        pxl.infer(X.astype(jnp.bfloat16), 3, tolerance=tolerance, model=model, optim=optim)
        found.append(model.vodes[0].h.get())
    assert found[0].dtype == found[1].dtype == jnp.bfloat16
    np.testing.assert_array_equal(*found)

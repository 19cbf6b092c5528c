"""Solvers, tolerances and starts, against the flow of a linear network in closed form and loops by hand in raw JAX."""

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
from tests.oracles import Network, close, enable_x64, linears

diffrax = pytest.importorskip("diffrax")
pytestmark = pytest.mark.usefixtures("standard_promotion")

SIZES, BATCH = [4, 5, 6, 3], 7
RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(BATCH, size)).astype(np.float32) for size in (SIZES[0], SIZES[-1]))
RESTING = optax.sgd(0.0)  # for weights that do not move
States = list[Any]


def made(act_fn: Any = jnp.tanh) -> Network:
    return Network(linears(SIZES, seed=2), act_fn)


def identity(x: Array) -> Array:
    return x


def layers(model: Network) -> list[tuple[Array, Array]]:
    return [(layer.nn.weight.get(), layer.nn.bias.get()) for layer in model.layers]


def forward(model: Network, x: Any, act_fn: Any = jnp.tanh) -> States:
    states: States = []
    for weight, bias in layers(model)[:-1]:
        x = act_fn(x @ weight.T + bias[None])
        states.append(x)
    return states


def energy(model: Network, states: States, x: Any, y: Any, act_fn: Any = jnp.tanh) -> Array:
    """The sum over nodes and samples."""
    total = jnp.array(0.0)
    for number, (weight, bias) in enumerate(layers(model)):
        below = x if number == 0 else states[number - 1]
        u = below @ weight.T + bias[None]
        u = u if number == len(states) else act_fn(u)
        total += 0.5 * jnp.square((y if number == len(states) else states[number]) - u).sum()
    return total


def settle(model: Network, nodes: Any, x: Any = X, y: Any = Y, steps: int = 30, **options: Any) -> pxl.History:
    """Infers from a forward start, and leaves the states in the model."""
    pxl.initialise(x, y, model=model)
    history: pxl.History = pxl.relax(x, steps, model=model, optim=nodes, **options)
    return history


def states_of(model: Network) -> States:
    return [vode.h.get() for vode in model.vodes[:-1]]


def gradient(model: Network, x: Any = X, y: Any = Y) -> States:
    slopes: States = jax.grad(lambda states: energy(model, states, x, y))(states_of(model))
    return slopes


def norms(model: Network, x: Any = X, y: Any = Y) -> Any:
    return np.sqrt(sum(np.square(each).sum(axis=1) for each in gradient(model, x, y)))


def test_a_solver_takes_the_place_of_the_optimiser() -> None:
    model = made()
    weights = pxu.Optim(RESTING, pxl.WEIGHTS(model))
    report = pxl.PC(steps=30)(X, Y, model=model, nodes=pxl.LBFGS(), weights=weights)
    assert report.energies.shape == (30,)
    assert float(report.energies[-1]) < float(report.energies[0])


@pytest.mark.thorough
@pytest.mark.parametrize("nodes", [pxl.LBFGS(), pxu.Optim(optax.lbfgs()), pxl.GradientFlow(time=200.0)])
def test_they_end_at_the_equilibrium(nodes: Any) -> None:
    model = made()
    history = settle(model, nodes, steps=150)
    assert norms(model).max() < 1e-2
    close(float(history.total[0] * BATCH), float(energy(model, forward(model, X), X, Y)), 1e-5)
    close(float(history.total[-1] * BATCH), float(energy(model, states_of(model), X, Y)), 1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("nodes", [pxl.LBFGS(), pxl.GradientFlow(time=50.0), pxu.Optim(optax.lbfgs())])
def test_errors_can_be_solved_for_as_well(nodes: Any) -> None:
    settled = {}
    for algorithm in (pxl.PC(400), pxl.EPC(100)):
        model = made()
        weights = pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
        optim = nodes if isinstance(algorithm, pxl.EPC) else pxu.Optim(optax.sgd(0.2))
        algorithm(X, Y, model=model, nodes=optim, weights=weights)
        settled[type(algorithm)] = layers(model)
    close(settled[pxl.EPC], settled[pxl.PC], 1e-3)


# The flow of a linear network: dh/dt = −(A h − b), so that h(t) = h* + exp(−A t) (h(0) − h*), for each sample.


@pytest.mark.thorough
def test_the_flow_is_that_of_a_linear_network() -> None:
    time = 1.5
    with enable_x64(True):
        model = made(identity)
        for layer in model.layers:
            layer.nn.weight.set(layer.nn.weight.get().astype(float))
            layer.nn.bias.set(layer.nn.bias.get().astype(float))
        x, y = X.astype(float), Y.astype(float)
        start = forward(model, x, identity)
        flat, shaped = jax.flatten_util.ravel_pytree(start)
        slope = jax.grad(lambda flat: energy(model, shaped(flat), x, y, identity))
        hessian = np.asarray(jax.jacobian(slope)(flat))
        values, vectors = np.linalg.eigh(hessian)
        best = np.linalg.solve(hessian, hessian @ flat - slope(flat))
        exact = best + vectors @ (np.exp(-values * time) * (vectors.T @ (np.asarray(flat) - best)))
        for tolerance in (1e-3, 1e-7):
            controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
            settle(model, pxl.GradientFlow(time, controller=controller), x, y, 2000)
            found = jax.flatten_util.ravel_pytree(states_of(model))[0]
            close(np.asarray(found), exact, 5 * tolerance)


@pytest.mark.thorough
def test_constant_steps_are_those_of_heun() -> None:
    model, dt, steps = made(), 0.1, 12
    history = settle(model, pxl.GradientFlow(dt * steps, dt, controller=diffrax.ConstantStepSize()), steps=steps)

    def slope(states: States) -> States:
        slopes: States = jax.grad(lambda states: energy(model, states, X, Y))(states)
        return slopes

    states, energies = forward(model, X), []
    for _ in range(steps):
        energies.append(float(energy(model, states, X, Y)))
        first = slope(states)
        second = slope([h - dt * k for h, k in zip(states, first, strict=True)])
        states = [h - 0.5 * dt * (one + two) for h, one, two in zip(states, first, second, strict=True)]
    close(states_of(model), states, 1e-5)
    close(np.asarray(history.total) * BATCH, np.asarray(energies), 1e-5)
    assert int(history.gradients) == 2 * steps


CALLS: list[int] = []


@jax.custom_vjp
def tapped(x: Array) -> Array:
    return x


def _backwards(_: None, change: Array) -> tuple[Array]:
    jax.debug.callback(lambda _: CALLS.append(1), change)
    return (change,)


tapped.defvjp(lambda x: (x, None), _backwards)


@pytest.mark.thorough
@pytest.mark.parametrize("tolerance", [pytest.param(None, marks=pytest.mark.slow), pxl.GradientTolerance(0.01)])
@pytest.mark.parametrize(
    "nodes",
    [
        pxl.LBFGS(),
        pxl.GradientFlow(dt=0.5),
        pxl.GradientFlow(dt=0.5, method=diffrax.Tsit5()),
        pxl.GradientFlow(dt=0.5, method=diffrax.Euler(), controller=diffrax.ConstantStepSize()),
        optax.sgd(0.2),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5, store_grad=True)),
    ],
)
def test_gradients_are_counted(nodes: Any, tolerance: Any) -> None:
    model = made()
    model.vodes[-1].energy_fn = lambda vode: tapped(pxc.se_energy(vode))
    nodes = nodes if isinstance(nodes, pxl.Solver) else pxu.Optim(nodes)
    CALLS.clear()
    history = settle(model, nodes, X[:1], 3 * Y[:1], 25, tolerance=tolerance)
    jax.effects_barrier()  # type: ignore[no-untyped-call]  # jax
    assert len(CALLS) == int(history.gradients)


@pytest.mark.parametrize("tolerance", [None, pxl.GradientTolerance(0.01), pxl.GradientTolerance(0.01, per_sample=True)])
@pytest.mark.parametrize("nodes", [optax.sgd(0.2), optax.lbfgs(), pxl.LBFGS(), pxl.GradientFlow()])
def test_nothing_is_inferred(nodes: Any, tolerance: Any) -> None:
    """All nodes are observed: their energy is that of a linear regression, and stays."""
    model = Network(linears([4, 3]))
    history = settle(model, nodes if isinstance(nodes, pxl.Solver) else pxu.Optim(nodes), tolerance=tolerance)
    close(np.asarray(history.total) * BATCH, np.full(30, float(energy(model, [], X, Y))), 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "each", "first"), [(diffrax.Euler(), 1, 0), (diffrax.Tsit5(), 6, 1), (diffrax.Midpoint(), 2, 0)]
)
def test_gradients_of_other_methods_are_counted(method: Any, each: int, first: int) -> None:
    flow = pxl.GradientFlow(1.0, 0.125, method, diffrax.ConstantStepSize())
    assert int(settle(made(), flow, steps=8).gradients) == 8 * each + first


# Tolerances.


@pytest.mark.thorough
@pytest.mark.parametrize("nodes", [optax.sgd(0.2), optax.sgd(0.1, momentum=0.5), pxl.LBFGS(), pxl.GradientFlow(99.0)])
def test_inference_stops_where_the_gradient_is_small(nodes: Any) -> None:
    nodes = nodes if isinstance(nodes, pxl.Solver) else pxu.Optim(nodes)
    model, most = made(), 0.02
    history = settle(model, nodes, steps=200, tolerance=pxl.GradientTolerance(most), record=True)
    assert np.sqrt(np.square(norms(model)).mean()) <= most
    states = [np.asarray(history.states[f".vodes[{number}].h"]) for number in (0, 1)]  # type: ignore[index]  # recorded
    moved = [float(np.abs(np.diff(each, axis=0)).max()) for each in states]
    last = int(np.flatnonzero(np.abs(np.diff(states[0], axis=0)).max(axis=(1, 2)))[-1])
    assert min(moved) > 0
    assert 0 < last < 190
    for each, final in zip(states, states_of(model), strict=True):
        close(each[-1], final, 1e-6)
        assert (each[last + 1 :] == each[-1]).all()
    if isinstance(nodes, pxu.Optim):
        assert int(history.gradients) == last + 2  # those of the steps that moved, and of where they ended


@pytest.mark.thorough
@pytest.mark.parametrize(
    "nodes", [optax.sgd(0.2), pxl.LBFGS(), pytest.param(pxl.GradientFlow(99.0), marks=pytest.mark.slow)]
)
def test_each_sample_stops_on_its_own(nodes: Any) -> None:
    nodes = nodes if isinstance(nodes, pxl.Solver) else pxu.Optim(nodes)
    model, tolerance = made(), pxl.GradientTolerance(0.02, per_sample=True)
    history = settle(model, nodes, steps=120, tolerance=tolerance, record=True)
    assert (norms(model) <= 0.02).all()
    assert history.gradients.shape == (BATCH,)  # type: ignore[union-attr]  # an array
    assert history.states is not None
    assert history.states[".vodes[0].h"].shape == (120, BATCH, SIZES[1])
    for sample in range(2):
        alone = made()
        x, y = X[sample : sample + 1], Y[sample : sample + 1]
        of_one = settle(alone, nodes, x, y, 120, tolerance=pxl.GradientTolerance(0.02))
        close([each[:1] for each in states_of(alone)], [each[sample : sample + 1] for each in states_of(model)], 1e-4)
        assert int(of_one.gradients) == int(history.gradients[sample])  # type: ignore[index]  # an array


def test_a_tolerance_is_traced() -> None:
    model = made()
    calls = 0

    class Counted(Network):
        def __call__(self, x: Array, y: Array | None = None) -> Array:
            nonlocal calls
            calls += 1
            return super().__call__(x, y)

    model = Counted(linears(SIZES, seed=2))
    weights, nodes = pxu.Optim(RESTING, pxl.WEIGHTS(model)), pxu.Optim(optax.sgd(0.2))
    for number, most in enumerate((0.1, 0.02, 0.003)):
        pxl.PC(9, tolerance=pxl.GradientTolerance(most))(X, Y, model=model, nodes=nodes, weights=weights)
        if number == 0:
            traced = calls
    assert calls == traced


@pytest.mark.thorough
def test_states_along_the_way() -> None:
    model = made()
    history = settle(model, pxu.Optim(optax.sgd(0.1)), steps=4, record=True)
    assert history.states is not None
    for steps in (1, 3):
        shorter = made()
        settle(shorter, pxu.Optim(optax.sgd(0.1)), steps=steps)
        recorded = [history.states[f".vodes[{number}].h"][steps] for number in (0, 1)]
        close(recorded, states_of(shorter), 1e-6)
    report = pxl.PC(4, record=True)(
        X, Y, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=pxu.Optim(RESTING, pxl.WEIGHTS(model))
    )
    close(report.history.states, history.states, 1e-6)


# Starts.


def test_random_starts() -> None:
    model = made()
    px.RKG.seed(3)
    predictions, _ = pxl.RandomStart(0.5)(X, Y, model=model)
    close(predictions, forward(model, X)[-1] @ layers(model)[-1][0].T + layers(model)[-1][1][None], 1e-5)
    close(model.vodes[-1].h.get(), jnp.asarray(Y))
    first, second = states_of(model)
    assert 0.3 < float(jnp.concatenate([first.ravel(), second.ravel()]).std()) < 0.7
    algorithm, nodes = pxl.PC(2, start=pxl.RandomStart(0.5), record=True), pxu.Optim(optax.sgd(0.1))
    report = algorithm(X, Y, model=model, nodes=nodes, weights=pxu.Optim(RESTING, pxl.WEIGHTS(model)))
    assert report.history.states is not None
    assert 0.2 < float(report.history.states[".vodes[0].h"][0].std()) < 0.8
    close(report.predictions, predictions, 1e-6)


@pytest.mark.thorough
def test_states_that_are_there_continue() -> None:
    model = made()
    weights, nodes = pxu.Optim(RESTING, pxl.WEIGHTS(model)), pxu.Optim(optax.sgd(0.1))
    algorithm = pxl.PC(3, start=pxl.start_from_present)
    energies = [algorithm(X, Y, model=model, nodes=nodes, weights=weights).energies for _ in range(2)]
    at_once = pxl.PC(6)(X, Y, model=made(), nodes=nodes, weights=pxu.Optim(RESTING, pxl.WEIGHTS(made())))
    close(jnp.concatenate(energies), at_once.energies, 1e-6)
    other = algorithm(X[:3], Y[:3], model=model, nodes=nodes, weights=weights)  # other samples, which start anew
    alone = pxl.PC(3)(X[:3], Y[:3], model=made(), nodes=nodes, weights=pxu.Optim(RESTING, pxl.WEIGHTS(made())))
    close(other.energies, alone.energies, 1e-6)


# Weights.


@pytest.mark.thorough
def test_weights_learn_by_lbfgs() -> None:
    """With states at their predictions, the energy is the loss, and the only layer is a linear regression."""
    target = X @ RNG.normal(size=(4, 3)).astype(np.float32) + 0.5
    for algorithm in (pxl.PC(1), pxl.Backprop()):
        model = Network(linears([4, 3]))
        weights, nodes = pxu.Optim(optax.lbfgs(), pxl.WEIGHTS(model)), pxu.Optim(optax.sgd(0.1))
        for _ in range(20):
            report = algorithm(X, target, model=model, nodes=nodes, weights=weights)
        assert float(report.loss) < 1e-5


@pytest.mark.thorough
def test_dropout_is_the_same_for_the_gradient_and_the_search() -> None:
    class Noisy(Network):
        def apply_layer(self, number: int, x: Array) -> Any:
            return super().apply_layer(number, pxnn.Dropout(0.5)(x, key=px.RKG()))

    model = Noisy(linears(SIZES, seed=2))
    history = settle(model, pxl.LBFGS(), steps=60)
    energies = np.asarray(history.total)
    assert (np.diff(energies) <= 1e-5).all()  # a descent of one function


class Drawing(Network):
    """Draws noise from a generator of its own."""

    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__(linears(SIZES, seed=2))
        self.rkg = rkg

    def apply_layer(self, number: int, x: Array) -> Any:
        u = super().apply_layer(number, x)
        return u + 0.3 * jax.random.normal(self.rkg(), u.shape)


class Remembering(pxu.Optim):
    """Keeps what it was given to look further, at the very point where it was."""

    def step(self, module: Any, *args: Any, value: Any = None, value_fn: Any = None, **options: Any) -> Any:
        if value_fn is not None:
            jax.debug.callback(
                lambda *pair: SEEN.append(pair), value, value_fn(jax.tree.map(lambda leaf: leaf, module))
            )
        return super().step(module, *args, value=value, value_fn=value_fn, **options)


SEEN: list[Any] = []


@pytest.mark.thorough
@pytest.mark.parametrize("rkg", [px.RandomKeyGenerator(5), pytest.param(px.RKG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", [pxl.PC(2), pxl.Backprop(), pxl.EPC(2, gradient="global")])
def test_searches_draw_what_the_gradient_drew(algorithm: pxl.Algorithm, rkg: px.RandomKeyGenerator) -> None:
    SEEN.clear()
    model = Drawing(rkg)
    weights, nodes = Remembering(optax.lbfgs(), pxl.WEIGHTS(model)), Remembering(optax.lbfgs())
    algorithm(X, Y, model=model, nodes=nodes, weights=weights)
    jax.effects_barrier()  # type: ignore[no-untyped-call]  # jax
    assert len(SEEN) == (1 if isinstance(algorithm, pxl.Backprop) else 3)
    for value, found in SEEN:
        close(float(value), float(found), 1e-5)


# Mistakes.


class Wrong(pxl.Solver):
    """Returns what is asked for, except for one thing."""

    wrong: str

    def solve(self, problem: pxl.Problem, steps: int) -> Any:
        snapshot = problem.snapshot(problem.states)
        repeated = jax.tree.map(lambda array: jnp.stack([array] * steps), snapshot)
        if self.wrong == "states":
            return pxl.Solution({}, repeated, jnp.array(1))
        if self.wrong == "dtype":
            states = jax.tree.map(lambda state: state.astype(jnp.float16), problem.states)
            return pxl.Solution(states, repeated, jnp.array(1))
        if self.wrong == "energy":
            problem.energy({})
        if self.wrong == "gradients":
            return pxl.Solution(problem.states, repeated, jnp.ones(3))
        if self.wrong == "snapshots":
            return pxl.Solution(problem.states, snapshot, jnp.array(1))
        return problem.states


@pytest.mark.parametrize(
    ("nodes", "options", "error", "words"),
    [
        (pxl.LBFGS(), {"tolerance": 0.1}, TypeError, r"a solver expected tolerance=GradientTolerance"),
        (pxl.GradientFlow(method=diffrax.Kvaerno3()), {}, TypeError, r"explicit Runge–Kutta.*Kvaerno3"),
        (pxl.GradientFlow(method=diffrax.KenCarp3()), {}, TypeError, r"explicit Runge–Kutta.*KenCarp3"),
        (Wrong("states"), {}, ValueError, r"Wrong.solve expected to return states of shapes .*\.vodes\[0\]\.h"),
        (Wrong("dtype"), {}, ValueError, r"Wrong.solve.*states of shapes .*float32\[7, 5\].*found .*float16\[7, 5\]"),
        (Wrong("energy"), {}, ValueError, r"the states of all inferred nodes, \['\.vodes\[0\]\.h', .*found \[\]"),
        (Wrong("gradients"), {}, ValueError, r"Wrong.solve expected to return how many gradients it took"),
        (pxl.GradientFlow(controller=1e-3), {}, TypeError, r"GradientFlow expected a step size controller of diffrax"),
        (Wrong("snapshots"), {}, ValueError, r"Wrong.solve expected to return problem.snapshot.* each of 30 steps"),
        (Wrong("type"), {}, TypeError, r"Wrong.solve expected to return Solution\(states, snapshots, gradients\)"),
        (pxl.LBFGS(), {"steps": 0}, ValueError, r"steps expected a positive int, found 0"),
    ],
)
def test_mistakes_of_solvers(nodes: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    model = made()
    pxl.initialise(X, Y, model=model)
    before = states_of(model)
    with pytest.raises(error, match=words):
        pxl.relax(X, **{"steps": 30, **options}, model=model, optim=nodes)
    assert all(one is other for one, other in zip(before, states_of(model), strict=True))


@pytest.mark.thorough
def test_samples_that_see_each_other_are_not_solved_for_alone() -> None:
    class Centred(Network):
        def apply_layer(self, number: int, x: Array) -> Any:
            return super().apply_layer(number, x - jax.lax.pmean(x, "batch"))  # type: ignore[no-untyped-call]  # jax

    model, words = Centred(linears(SIZES, seed=2)), "expected samples that do not see each other, found a layer"
    settle(model, pxl.LBFGS(), steps=40, tolerance=pxl.GradientTolerance(0.1))
    with pytest.raises(ValueError, match=rf"GradientTolerance\(per_sample=True\) with a solver {words}.*batch"):
        pxl.relax(X, 3, tolerance=pxl.GradientTolerance(0.1, per_sample=True), model=model, optim=pxl.LBFGS())
    with pytest.raises(ValueError, match=f"state_hessian {words}"):
        pxl.state_hessian(X, model=model)


def test_incremental_inference_takes_no_solver() -> None:
    model, words = made(), r"IPC moves states step by step, which takes an optimiser.*LBFGS: use PC or EPC with it"
    with pytest.raises(TypeError, match=words):
        pxl.IPC(2)(X, Y, model=model, nodes=pxl.LBFGS(), weights=pxu.Optim(RESTING, pxl.WEIGHTS(model)))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: pxl.LBFGS(0), ValueError, r"LBFGS expected memory to be a positive int, found 0"),
        (lambda: pxl.LBFGS(2.5), ValueError, r"LBFGS expected memory to be a positive int, found 2.5"),  # type: ignore[arg-type]  # the mistake
        (lambda: pxl.PC(start="random"), TypeError, r"PC expected a start, such as RandomStart.*found 'random'"),  # type: ignore[arg-type]  # the mistake
    ],
)
def test_mistakes_of_settings(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_weights_are_not_solved_for() -> None:
    with pytest.raises(TypeError, match=r"weights expected an Optim, found an LBFGS"):
        pxl.PC(2)(X, Y, model=made(), nodes=pxl.LBFGS(), weights=pxl.LBFGS())  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("value", [-1.0, np.float32(-1), jnp.array(-1.0), float("nan"), "1", True, jnp.ones(5)])
def test_numbers_out_of_range(value: Any) -> None:
    with pytest.raises(ValueError, match=r"GradientTolerance expected most to be a number of at least 0, found"):
        pxl.GradientTolerance(value)
    with pytest.raises(ValueError, match=r"RandomStart expected scale to be a number of at least 0, found"):
        pxl.RandomStart(value)
    with pytest.raises(ValueError, match=r"GradientFlow expected time to be a number of at least 0, found"):
        pxl.GradientFlow(value)
    with pytest.raises(ValueError, match=r"GradientFlow expected dt to be a number of at least 0, found"):
        pxl.GradientFlow(1.0, value)


@pytest.mark.thorough
@pytest.mark.parametrize("nodes", [optax.sgd(0.1), optax.lbfgs(), pxl.LBFGS(), pxl.GradientFlow(1.0)])
def test_states_keep_their_precision(nodes: Any) -> None:
    model = made()
    for param in px.tree_extract(model):
        param.set(None if param.get() is None else param.get().astype(jnp.bfloat16))
    x, y = (array.astype(jnp.bfloat16) for array in (X, Y))
    settle(model, nodes if isinstance(nodes, pxl.Solver) else pxu.Optim(nodes), x, y, 5)
    assert {state.dtype for state in states_of(model)} == {jnp.dtype(jnp.bfloat16)}

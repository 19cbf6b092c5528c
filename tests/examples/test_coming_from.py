"""The page for those who come from other libraries: its lines run, and its numbers differ as it says.

jpc's formulas are written out here, from its paper (Innocenti et al., JPC, arXiv 2412.03676): with a batch of B,
F(z, W) = 1/B Σ_samples Σ_l ½ |z_l − f(W_l z_{l−1} + b_l)|², which both the states and the weights descend.
"""

import inspect
import re
import warnings
from pathlib import Path
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
from tests.learning.chains import gradients, relative_difference
from tests.oracles import Network, linears

PAGE = (Path(__file__).parents[2] / "examples" / "coming_from.md").read_text()
B, SIZES = 4, [3, 5, 6, 2]
X, Y = jax.random.normal(jax.random.PRNGKey(0), (B, 3)), jax.random.normal(jax.random.PRNGKey(1), (B, 2))


HEADINGS = ["there", "here", "what differs in the numbers", "what is not here"]
LIBRARIES = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    headings, _, *found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert headings == HEADINGS
    assert all(len(row) == 4 for row in found)
    return found


def test_it_is_for_those_who_come_from_five_libraries() -> None:
    assert [*LIBRARIES] == ["pcx", "jpc", "equinox", "flax nnx", "PyTorch"]
    assert sum(len(rows(text)) + 2 for text in LIBRARIES.values()) == PAGE.count("\n|")


@pytest.mark.thorough
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_line_of_the_page_runs(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffrax")
    monkeypatch.chdir(tmp_path)  # where it saves
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    with (
        jax.numpy_rank_promotion("allow"),  # it is run by people without our strict settings
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
    ):
        exec(compile(program, "coming_from.md", "exec"), names)
        for _, here, *_ in rows(LIBRARIES[library]):
            lines = re.findall(r"`(.+?)`", here)
            assert lines, f"{here} has a line of code"
            for line in lines:
                exec(compile(line, line, "exec"), names)
                if "energies_of_steps" in line:
                    states = [vode.h.get() for vode in names["model"].vodes]
                    assert all(jnp.isfinite(state).all() for state in states)
                    assert names["energies_of_steps"][-1] < names["energies_of_steps"][0]
    if library == "jpc":
        assert names["report"].energies.shape == (20,)
        assert names["best"] > 0
    if "grads" in names:
        assert jnp.isfinite(names["value"])


def test_a_layer_of_other_libraries_is_wrapped() -> None:
    equinox: Any = pytest.importorskip("equinox")
    (line,) = re.findall(r"`(pxnn\.Layer\(eqx.+?)`", PAGE)
    cell = eval(line, {"pxnn": pxnn, "px": px, "eqx": equinox})
    assert cell(jnp.ones(3), jnp.zeros(4)).shape == (4,)


def test_a_layer_starts_from_the_key_as_the_page_says() -> None:
    layer = pxnn.Linear(8, 3, rkg=px.RandomKeyGenerator(0))
    for_weight, for_bias = jax.random.split(jax.random.split(jax.random.PRNGKey(0), 2)[1], 2)
    limit = 1 / 8**0.5
    weight = jax.random.uniform(for_weight, (3, 8), minval=-limit, maxval=limit)
    np.testing.assert_allclose(layer.nn.weight.get(), weight, rtol=1e-6)
    bias = jax.random.uniform(for_bias, (3,), minval=-limit, maxval=limit)
    np.testing.assert_allclose(px.get(layer.nn.bias), bias, rtol=1e-6)


def test_the_defaults_are_those_of_the_page() -> None:
    assert pxnn.BatchNorm(4, "batch").momentum == 0.99
    assert inspect.signature(optax.adamw).parameters["weight_decay"].default == 1e-4


class Jpc:
    """Its energy, of a network with f = tanh and no f at the end."""

    def __init__(self, model: Network) -> None:
        self.params = [(layer.nn.weight.get(), px.get(layer.nn.bias)) for layer in model.layers]

    def forward(self, params: Any, errors: list[Array] | None = None) -> list[Array]:
        z, states = X, []
        for number, (w, b) in enumerate(params[:-1]):
            z = jnp.tanh(z @ w.T + b[None]) + (jnp.array(0.0) if errors is None else errors[number])
            states.append(z)
        return states

    def energy(self, states: list[Array], params: Any) -> Array:
        below, total = [X, *states], jnp.array(0.0)
        for number, (w, b) in enumerate(params):
            u = below[number] @ w.T + b[None]
            u = u if number == len(states) else jnp.tanh(u)
            total += 0.5 * jnp.sum(([*states, Y][number] - u) ** 2)
        return total / B

    def energy_of_errors(self, errors: list[Array], params: Any) -> Array:
        return self.energy(self.forward(params, errors), params)


def check_states(model: Network, expected: list[Array], tolerance: float) -> None:
    for vode, state in zip(model.vodes[:-1], expected, strict=True):
        np.testing.assert_allclose(vode.h.get(), state, atol=tolerance)


@pytest.mark.thorough
def test_a_rate_of_states_is_divided_by_the_batch() -> None:
    model = Network(linears(SIZES), jnp.tanh)
    jpc = Jpc(model)
    states, rate = jpc.forward(jpc.params), 0.5
    pxl.initialise(X, Y, model=model)
    history = pxl.infer(X, 5, model=model, optim=pxu.Optim(optax.sgd(rate / B)))
    for found in history:
        np.testing.assert_allclose(found, jpc.energy(states, jpc.params), rtol=1e-5)
        states = [z - rate * g for z, g in zip(states, jax.grad(jpc.energy)(states, jpc.params), strict=True)]
    check_states(model, states, 1e-6)
    pxl.learn(X, model=model, optim=pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model)))
    for layer, (w, b), (dw, db) in zip(
        model.layers, jpc.params, jax.grad(jpc.energy, 1)(states, jpc.params), strict=True
    ):
        np.testing.assert_allclose(layer.nn.weight.get(), w - dw, atol=1e-6)
        np.testing.assert_allclose(px.get(layer.nn.bias), b - db, atol=1e-6)


def test_adam_keeps_its_rate() -> None:
    model = Network(linears(SIZES), jnp.tanh)
    jpc = Jpc(model)
    states, optim = jpc.forward(jpc.params), optax.adam(0.05, eps=1e-12)
    kept = optim.init(states)
    pxl.initialise(X, Y, model=model)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises floats to powers of int32
        pxl.infer(X, 10, model=model, optim=pxu.Optim(optax.adam(0.05, eps=1e-12)))
        for _ in range(10):
            updates, kept = optim.update(jax.grad(jpc.energy)(states, jpc.params), kept)
            states = [z + update for z, update in zip(states, updates, strict=True)]
    check_states(model, states, 1e-3)


@pytest.mark.thorough
def test_a_time_of_integration_is_divided_by_the_batch() -> None:
    diffrax: Any = pytest.importorskip("diffrax")
    model = Network(linears(SIZES), jnp.tanh)
    jpc = Jpc(model)

    def field(t: Any, states: Any, args: Any) -> Any:
        return jax.tree.map(jnp.negative, jax.grad(jpc.energy)(states, jpc.params))

    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    start = jpc.forward(jpc.params)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Heun(), 0, 20, None, start, stepsize_controller=controller
    )
    pxl.initialise(X, Y, model=model)
    pxl.infer(X, 500, model=model, optim=pxl.GradientFlow(time=20 / B))
    # Within the solver's tolerance: the length that diffrax chooses for the first step does not scale with the field.
    check_states(model, [array[0] for array in solution.ys], 1e-4)
    assert max(float(jnp.abs(a[0] - b).max()) for a, b in zip(solution.ys, start, strict=True)) > 0.1


def test_error_based_learning_is_global_there() -> None:
    model, rate = Network(linears(SIZES), jnp.tanh), 0.2
    jpc = Jpc(model)
    found, _ = gradients(pxl.EPC(5, gradient="global"), model, X, Y, optax.sgd(rate / B))
    errors = [jnp.zeros((B, size)) for size in SIZES[1:-1]]
    for _ in range(5):
        slopes = jax.grad(jpc.energy_of_errors)(errors, jpc.params)
        errors = [e - rate * slope for e, slope in zip(errors, slopes, strict=True)]
    expected = jax.grad(jpc.energy_of_errors, 1)(errors, jpc.params)
    by_path = {
        f".layers[{number}].nn.{name}": array
        for number, pair in enumerate(expected)
        for name, array in zip(("weight", "bias"), pair, strict=True)
    }
    assert relative_difference(found, {path: by_path[path] for path in found}) < 1e-4

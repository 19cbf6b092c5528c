"""The trained parameters change in the middle of training, against optax on a dict of all parameters that ever occur.

There, one that is not trained yet has zero gradients, and so zero moments; one that is not trained any more is ignored.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu

Weight = pxnn.LayerParam
WEIGHTS = pxu.M(Weight).hasnot(frozen=True)
Build = Callable[[], Any]


pytestmark = pytest.mark.usefixtures("standard_promotion")


OPTIMISERS: dict[str, Build] = {
    "adam": lambda: optax.adam(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "a schedule in a chain": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(optax.linear_schedule(0.1, 0.01, 9))
    ),
    "injected hyperparameters": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "masked": lambda: optax.masked(optax.adam(0.1), lambda params: dict.fromkeys(params, True)),
    "labels": lambda: optax.multi_transform(
        {"fast": optax.sgd(0.5), "slow": optax.adam(0.1)}, lambda params: dict.fromkeys(params, "slow")
    ),
    "several steps": lambda: optax.MultiSteps(optax.adam(0.1), 3),
    "a function": lambda: lambda: optax.adam(0.1),
}
# The parameters that are trained, phase by phase, in the order of the model; _ is a frozen one. All have one shape.
PHASES: dict[str, list[str]] = {
    "freezing the first": ["ab", "_b"],
    "freezing the last": ["abc", "ab_"],
    "unfreezing one by one": ["__c", "_bc", "abc"],
    "added": ["ab", "abc"],
    "inserted": ["ab", "cab", "cadb"],
    "removed": ["abc", "bc"],
    "a new head": ["ab", "ac"],
    "another order": ["abc", "cab"],
    "others altogether": ["a_", "_b"],
    "the same": ["ab", "ab"],
}


@cache
def by_optax(optimiser: str) -> tuple[Any, Any]:
    """The init and the update of optax."""
    direct = OPTIMISERS[optimiser]()
    direct = direct() if callable(direct) else direct
    return direct.init, jax.jit(direct.update)


class Run:
    """Parameters by name, trained by an `Optim` on lists of them, and by optax on one dict."""

    def __init__(self, optimiser: str, compiled: bool = False) -> None:
        init, self.update = by_optax(optimiser)
        self.params = {name: Weight(jnp.full(2, float(index))) for index, name in enumerate("abcd")}
        self.values = {name: param.get() for name, param in self.params.items()}
        self.state = init(self.values)
        self.optim = pxu.Optim(OPTIMISERS[optimiser]())
        self.random = np.random.default_rng(0)

        def step(grads: Any, *, model: Any, optim: pxu.Optim) -> None:
            optim.step(model, grads)

        self.step = pxf.jit(step) if compiled else step

    def model(self, names: str) -> list[Any]:
        return [None if name == "_" else self.params[name] for name in names]

    def train(self, names: str, steps: int = 2) -> None:
        for _ in range(steps):
            grads = {name: jnp.asarray(self.random.normal(size=2), jnp.float32) for name in self.params}
            given = [None if name == "_" else Weight(grads[name]) for name in names]
            self.step(given, model=self.model(names), optim=self.optim)
            grads = {name: grad if name in names else jnp.zeros(2) for name, grad in grads.items()}
            updates, self.state = self.update(grads, self.state, self.values)
            self.values = optax.apply_updates(self.values, updates)
            for name in names.replace("_", ""):
                np.testing.assert_allclose(self.params[name].get(), self.values[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("phases", PHASES.values(), ids=PHASES)
def test_known_parameters_continue_and_new_ones_start(optimiser: str, phases: list[str]) -> None:
    run = Run(optimiser)
    for names in phases:
        run.optim.retarget(run.model(names))  # the first time, this is init
        run.train(names)


@pytest.mark.parametrize("phases", [["ab", "cab", "_cab", "_c_b"], ["__c", "abc"]])
def test_between_compiled_steps(phases: list[str]) -> None:
    run = Run("adam", compiled=True)
    for names in phases:
        run.optim.retarget(run.model(names))
        run.train(names)


def test_inside_a_transform_paths_tell_them_apart() -> None:
    run = Run("adam")
    run.optim.init(run.model("abc"))
    run.train("abc")
    model = run.model("_bc")
    pxf.jit(lambda *, optim, model: optim.retarget(model))(optim=run.optim, model=model)
    run.train("_bc")
    run.optim.retarget(run.model("_bc"))
    run.train("_bc")


def test_an_optimiser_that_was_initialised_again_inside_a_transform() -> None:
    """It forgets the parameters with which it was initialised outside before."""
    run = Run("adam")
    run.optim.init(run.model("ab"))
    pxf.jit(lambda *, optim, model: optim.init(model))(optim=run.optim, model=run.model("abc"))
    run.train("abc")
    run.optim.retarget(run.model("_bc"))
    run.train("_bc")


def test_a_copy_of_the_optimiser_with_a_copy_of_the_model() -> None:
    run = Run("adam")
    run.optim.init(run.model("abc"))
    run.train("abc")
    run.params, run.optim = copy.deepcopy((run.params, run.optim))
    run.optim.retarget(run.model("_bc"))
    run.train("_bc")


def test_a_parameter_that_left_starts_anew_when_it_comes_back() -> None:
    """Momentum, by hand: the second velocity of a is its gradient alone."""
    a, b = Weight(jnp.zeros(1)), Weight(jnp.zeros(1))
    grads = [Weight(jnp.ones(1)), Weight(jnp.ones(1))]
    optim = pxu.Optim(optax.sgd(1.0, momentum=0.5), [a, b])
    for model in ([a, b], [None, b], [a, b]):
        optim.retarget(model)
        optim.step([a, b], grads)
    assert float(a[0]) == -(1 + 1)
    assert float(b[0]) == -(1 + 1.5 + 1.75)


class Net(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(2, 2)]
        self.layers.append(pxnn.shared(self.layers[0]))

    def grads(self) -> Any:
        @pxf.grad({"model": pxu.M(Weight)})
        def loss(*, model: Net) -> Array:
            x = jnp.ones(2)
            for layer in model.layers:
                x = layer(x)
            return x.sum()

        return loss(model=self)["model"]


def test_untying() -> None:
    """The parameter that stays keeps its velocity, and the one that replaces it starts without."""
    model = Net()
    optim = pxu.Optim(optax.sgd(0.0, momentum=0.5), WEIGHTS(model))
    first = model.grads()
    optim.step(model, first)
    model.layers[1].nn.weight = Weight(model.layers[0].nn.weight.get())
    optim.retarget(WEIGHTS(model))
    second = model.grads()
    optim.step(model, second)
    trace = optim.state.get()[0].trace
    kept, new = (f".layers[{index}].nn.weight" for index in range(2))
    expected = 0.5 * first.layers[0].nn.weight.get() + second.layers[0].nn.weight.get()
    np.testing.assert_allclose(trace[kept], expected, atol=1e-6)
    np.testing.assert_allclose(trace[new], second.layers[1].nn.weight.get(), atol=1e-6)


def test_another_label_or_shape_starts_anew() -> None:
    labels = {"[0]": "x", "[1]": "y"}
    build = optax.multi_transform({"x": optax.adam(0.1), "y": optax.adam(0.2)}, lambda params: dict(labels))
    a, b = Weight(jnp.zeros(1)), Weight(jnp.zeros(1))
    optim = pxu.Optim(build, [a, b])
    optim.step([a, b], [Weight(jnp.ones(1)), Weight(jnp.ones(1))])
    labels["[0]"] = "y"
    b.set(jnp.zeros(3))
    optim.retarget([a, b])
    inner = optim.state.get().inner_states
    assert inner["y"].inner_state[0].mu["[0]"].tolist() == [0]
    assert inner["y"].inner_state[0].mu["[1]"].tolist() == [0, 0, 0]
    assert inner["y"].inner_state[0].count == 1


def test_hyperparameters_that_were_changed_stay() -> None:
    a, b = Weight(jnp.zeros(1)), Weight(jnp.zeros(1))
    optim = pxu.Optim(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), [a])
    optim.state.get().hyperparams["learning_rate"] = jnp.array(0.5)
    optim.retarget([a, b])
    optim.step([a, b], [Weight(jnp.ones(1)), Weight(jnp.ones(1))])
    assert [a.tolist(), b.tolist()] == [[-0.5], [-0.5]]


def refused() -> dict[str, tuple[Any, Any, Any, str]]:
    a, b, adam = Weight(jnp.zeros(2)), Weight(jnp.zeros(2)), optax.adam(0.1)
    return {
        "a copy": (adam, [a, b], copy.deepcopy([a, b]), r"found others under their paths, \[0\], \[1\].*init"),
        "flat": (optax.flatten(adam), [a], [a, b], r"kept for each parameter, but \.state.*mixes them.*init"),
        "a class": (adam, [a], Weight, r"Optim\.retarget expected a tree of parameters.*the class LayerParam"),
        "cleared": (adam, [a], [a, Weight(None)], r"Optim\.retarget expected \[1\] to have a value"),
    }


@pytest.mark.parametrize(("build", "before", "after", "message"), refused().values(), ids=refused())
def test_refusals_change_nothing(build: Any, before: Any, after: Any, message: str) -> None:
    optim = pxu.Optim(build, before)
    state = optim.state.get()
    with pytest.raises((TypeError, ValueError), match=message.replace(r"\.state", "")):
        optim.retarget(after)
    assert optim.state.get() is state
    optim.retarget(before)


@pytest.mark.parametrize("phases", PHASES.values(), ids=PHASES)
def test_of_each_node(phases: list[str]) -> None:
    run = Run("momentum")
    tree = pxu.OptimTree(OPTIMISERS["momentum"](), Weight)

    def step(grads: Any, *, model: Any, optim: pxu.Optim) -> None:
        tree.step(model, grads)

    run.step = step
    for names in phases:
        tree.retarget(run.model(names))
        run.train(names)

"""Optimisers against optax driven directly, on plain dicts of arrays."""

import copy
import pickle
import re
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
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from minipcax.core.tree import is_param
from tests.oracles import changed

Weight = pxnn.LayerParam


pytestmark = pytest.mark.usefixtures("standard_promotion")


class Model(px.Module):
    frozen: Weight

    def __init__(self) -> None:
        super().__init__()
        self.b = Weight(jnp.array([0.5, -2.0]))
        self.a = Weight(jnp.arange(6.0).reshape(2, 3) / 7)
        self.frozen = Weight(jnp.ones(2))
        self.frozen.frozen = True
        self.count = px.Param(jnp.array(3))


def values_of(tree: Any) -> dict[str, Array]:
    """The values of a and b, of a model or of its gradients or updates."""
    return {name: getattr(tree, name).get() for name in ("a", "b")}


WEIGHTS = pxu.M(Weight).hasnot(frozen=True)


@pxf.value_and_grad({"model": pxu.M(Weight)})
def loss(x: Array, *, model: Model) -> Array:
    return ((model.a @ x - model.b) ** 2).sum() + model.frozen.sum()


def raw_loss(values: dict[str, Array], x: Array) -> Array:
    return ((values["a"] @ x - values["b"]) ** 2).sum()


@partial(jax.jit, static_argnums=0)
def raw_step(direct: Any, values: dict[str, Array], state: Any, x: Array) -> tuple[dict[str, Array], Any, Any]:
    """The values and the state after a step of optax, and the updates."""
    updates, state = direct.update(jax.grad(raw_loss)(values, x), state, values)
    return optax.apply_updates(values, updates), state, updates


def check(tree: Any, expected: dict[str, Array], atol: float = 1e-6) -> None:
    found = values_of(tree)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=atol, rtol=atol, err_msg=name)


Build = Callable[[], Any]  # of an optimiser, or an optax.MultiSteps
OPTIMISERS: dict[str, Build] = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw": lambda: optax.adamw(0.05, weight_decay=0.3),
    "a schedule": lambda: optax.sgd(optax.linear_schedule(0.1, 0.0, 3)),
    "a chain": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
    "injected hyperparameters": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "several steps": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "one for each": lambda: optax.multi_transform(
        {"fast": optax.sgd(0.5), "slow": optax.adam(1e-3)},
        lambda params: {path: "fast" if path.endswith("b") else "slow" for path in params},
    ),
}
XS = [jnp.array([1.0, -1.0, 0.5]), jnp.array([0.0, 2.0, 0.1]), jnp.array([3.0, 0.2, -0.7]), jnp.array([1.0, 1.0, 1.0])]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("build", OPTIMISERS.values(), ids=OPTIMISERS)
def test_steps_are_optax_steps(build: Build, compiled: bool) -> None:
    model, direct = Model(), build()
    optim = pxu.Optim(direct, WEIGHTS(model))
    values = values_of(model)
    state = direct.init(values)

    def train(x: Array, *, model: Model, optim: pxu.Optim) -> Any:
        _, grads = loss(x, model=model)
        return optim.step(model, grads["model"])

    step = pxf.jit(train) if compiled else train
    for x in XS:
        values, state, expected = raw_step(direct, values, state, x)
        updates = step(x, model=model, optim=optim)
        check(updates, expected)
        check(model, values)
    assert type(optim.state) is px.Param
    found, wanted = jax.tree.leaves(optim.state), jax.tree.leaves(state)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-5)


def test_parameters_that_init_was_not_given_are_left_alone() -> None:
    model = Model()
    frozen, count = model.frozen.get(), model.count.get()
    optim = pxu.Optim(optax.sgd(1.0), WEIGHTS(model))
    updates = optim.step(model, loss(XS[0], model=model)[1]["model"])
    assert model.frozen.get() is frozen
    assert model.count.get() is count
    assert updates.frozen is None
    assert updates.count is None
    assert type(updates) is Model
    assert type(updates.a) is Weight


def test_a_function_that_returns_an_optimiser() -> None:
    model, other = Model(), Model()
    optims = [pxu.Optim(optax.adam(0.1), WEIGHTS(model)), pxu.Optim(lambda: optax.adam(0.1), WEIGHTS(other))]
    for x in XS:
        for each, optim in zip((model, other), optims, strict=True):
            optim.step(each, loss(x, model=each)[1]["model"])
    check(other, values_of(model), atol=0)


def test_the_state_never_holds_the_models_parameters() -> None:
    model = Model()
    optim = pxu.Optim(optax.adam(0.1), WEIGHTS(model))
    optim.step(model, loss(XS[0], model=model)[1]["model"])
    nodes = jax.tree.leaves(optim.state.get(), is_leaf=lambda node: isinstance(node, px.BaseParam))
    assert not any(isinstance(node, px.BaseParam) for node in nodes)
    assert isinstance(optim, px.BaseModule)
    assert px.tree_extract(optim) == (optim.state,)


@pytest.mark.parametrize("scale_by", [0.5, jnp.array(0.5), np.float32(0.5), np.float64(0.5), np.array(0.5)])
def test_scale_by_scales_the_gradients_and_not_the_callers(scale_by: Any) -> None:
    model = Model()
    values = values_of(model)
    direct = optax.sgd(0.1, momentum=0.9)
    optim = pxu.Optim(direct, WEIGHTS(model))
    _, grads = loss(XS[0], model=model)
    before = values_of(grads["model"])
    optim.step(model, grads["model"], scale_by)
    assert all(values_of(grads["model"])[name] is value for name, value in before.items())
    scaled = {name: 0.5 * value for name, value in before.items()}
    check(model, optax.apply_updates(values, direct.update(scaled, direct.init(values), values)[0]))


def test_a_scale_of_another_dtype_leaves_the_state_as_it_is() -> None:
    p = px.Param(jnp.ones(2, jnp.bfloat16))
    optim = pxu.Optim(optax.adam(0.1), [p])
    before = jax.tree.map(lambda array: array.dtype, optim.state.get())
    optim.step([p], [px.Param(jnp.ones(2, jnp.bfloat16))], scale_by=jnp.float32(0.5))
    assert jax.tree.map(lambda array: array.dtype, optim.state.get()) == before
    assert p.dtype == jnp.bfloat16


def test_updates_without_applying_them() -> None:
    model = Model()
    values = values_of(model)
    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9), WEIGHTS(model))
    _, grads = loss(XS[0], model=model)
    updates = optim.step(model, grads["model"], apply_updates=False)
    assert all(values_of(model)[name] is value for name, value in values.items())
    check(updates, {name: -0.1 * grad for name, grad in values_of(grads["model"]).items()})
    # The state has moved all the same, as optax's does.
    second = optim.step(model, grads["model"], apply_updates=False)
    check(second, {name: -0.1 * 1.9 * grad for name, grad in values_of(grads["model"]).items()})


def test_a_shared_parameter_is_stepped_once_with_the_sum_of_its_gradients() -> None:
    class Tied(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Weight(jnp.array(2.0))
            self.second = self.first

    @pxf.grad({"model": pxu.M(Weight)})
    def product(*, model: Tied) -> Array:
        return 3 * model.first + 4 * model.second

    model = Tied()
    param = model.first
    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9), pxu.M(Weight)(model))
    assert len(jax.tree.leaves(optim.state)) == 1
    for expected in (2 - 0.1 * 7, 2 - 0.1 * 7 - 0.1 * 1.9 * 7):
        optim.step(model, product(model=model)["model"])
        assert float(model.second) == pytest.approx(expected)
    assert model.first is model.second is param
    for shared_init in (model, [model, model.first]):
        optim.init(shared_init)
        assert len(jax.tree.leaves(optim.state)) == 1


def tied() -> tuple[list[Any], Any]:
    """Two layers with one weight, and their gradients with an entry for each use of it."""
    first = pxnn.Linear(2, 2)
    model = [first, pxnn.shared(first)]
    return model, [copy.deepcopy(layer) for layer in model]


@pytest.mark.parametrize("compiled", [False, True])
def test_two_gradients_of_one_parameter_are_refused(compiled: bool) -> None:
    """Each would be only a part of it: here those of a list of layers, as plain JAX makes them."""
    model, grads = tied()
    before = model[0].nn.weight.get()
    optim, each = pxu.Optim(optax.adam(1.0), WEIGHTS(model)), pxu.OptimTree(optax.adam(1.0), pxnn.Linear, model)
    words = r"expected one gradient for the parameter \[0\]\.nn\.weight, which is also \[1\]\.nn\.weight: .* one at "

    def step(grads: Any, *, optim: Any, model: Any) -> None:
        optim.step(model, grads)

    for optimiser in (optim, each):
        run = pxf.jit(step) if compiled else step
        with pytest.raises(ValueError, match=words + r"\[0\]\.nn\.weight and one at \[1\]\.nn\.weight"):
            run(grads, optim=optimiser, model=model)
        with pytest.raises(ValueError, match=words + r"\[1\]\.nn\.weight;"):
            run([None, grads[1]], optim=optimiser, model=model)
        assert model[0].nn.weight.get() is before
        run([grads[0], None], optim=optimiser, model=model)
        model[0].nn.weight.set(before)
    bias = pxu.Optim(optax.sgd(1.0), [model[0].nn.bias])  # it has two gradients as well, but another path at init
    with pytest.raises(ValueError, match=r"has no parameter \[0\]"):
        bias.step(model, grads)


def test_two_gradients_of_other_parameters_are_ignored() -> None:
    model, grads = tied()
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(lambda param: param is model[0].nn.bias)(model))
    model[1].nn.bias = Weight(jnp.ones(2))
    before = model[0].nn.bias.get()
    optim.step(model, grads)
    np.testing.assert_allclose(model[0].nn.bias.get(), before - grads[0].nn.bias.get(), atol=1e-6)


@pytest.mark.parametrize("statement", ["model.b = None", "model.b.set(None)"])
def test_a_missing_gradient(statement: str) -> None:
    model = Model()
    optim = pxu.Optim(optax.adam(0.1), WEIGHTS(model))
    _, grads = loss(XS[0], model=model)
    changed(grads["model"], statement, {})
    values, state = values_of(model), jax.tree.leaves(optim.state)
    with pytest.raises(ValueError, match=r"no gradient for \.b: expected one for every.*allow_none=True"):
        optim.step(model, grads["model"])
    assert optim.step(model, grads["model"], allow_none=True) is None
    assert all(values_of(model)[name] is value for name, value in values.items())
    assert all(one is other for one, other in zip(jax.tree.leaves(optim.state), state, strict=True))


def test_clear() -> None:
    model = Model()
    optim = pxu.Optim(optax.adam(0.1), WEIGHTS(model))
    optim.clear()
    assert optim.state.get() is None
    for not_ready in (optim, pxu.Optim(optax.adam(0.1))):
        with pytest.raises(ValueError, match=r"expected an initialised optimiser: call init"):
            not_ready.step(model, loss(XS[0], model=model)[1]["model"])
    optim.init(WEIGHTS(model))
    optim.step(model, loss(XS[0], model=model)[1]["model"])


NO_PARAMETERS: dict[str, Any] = {
    "arrays": {"w": jnp.ones(2), "b": np.ones(2)},
    "a mask": pxu.M(Weight),
    "axes": pxu.M(Weight).to((None, 0))(Model()),
    "an optimiser": optax.sgd(0.1),
    "the class Model": Model,
    "nothing": None,
}


@pytest.mark.parametrize("parameters", NO_PARAMETERS.values(), ids=NO_PARAMETERS)
def test_only_a_tree_of_parameters_is_accepted(parameters: Any) -> None:
    optim = pxu.Optim(optax.sgd(0.1))
    words = r"expected a tree of parameters, such as M\(LayerParam\)\(model\), found (an?|the|N)"
    with pytest.raises(TypeError, match=words):
        optim.init(parameters)
    with pytest.raises(TypeError, match="OptimTree expected a tree of parameters"):
        pxu.OptimTree(optax.sgd(0.1), pxnn.Linear).init(parameters)
    assert optim.state.get() is None


def test_bare_arrays_of_a_model_are_left_alone() -> None:
    class Scaled(Model):
        def __init__(self) -> None:
            super().__init__()
            self.scale = jnp.array(2.0)

    assert pxu.Optim(optax.sgd(0.1), Scaled()).state.get().targets == (".b", ".a", ".frozen", ".count")


@pytest.mark.parametrize("build", [pxu.Optim, lambda fn: pxu.OptimTree(fn, pxnn.Linear)], ids=["Optim", "OptimTree"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (0.1, r"found 0\.1: write optax\.sgd\(0\.1\), for example"),
        ("adam", r"found 'adam': write"),
        (optax.sgd, r"found sgd, missing a required argument: 'learning_rate': call it, as in optax\.sgd\(0\.1\)"),
        (optax.MultiSteps, r"found MultiSteps, missing a required argument: 'opt': call it"),
        (lambda rate: optax.sgd(rate), r"found <lambda>, missing a required argument: 'rate'"),
    ],
)
def test_only_an_optimiser_is_accepted(build: Any, wrong: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"expected an optax optimiser, or a function that returns one, {words}"):
        build(wrong)


MASKED_MODEL = WEIGHTS.to(("slow", "fast"))(Model())
BY_MODEL: dict[str, Any] = {
    "labels": lambda: optax.multi_transform({"fast": optax.sgd(0.5), "slow": optax.adam(0.1)}, MASKED_MODEL),
    "a mask for labels": lambda: optax.multi_transform({"fast": optax.sgd(0.5)}, WEIGHTS.to(("slow", "fast"))),
    "a masked model": lambda: optax.masked(optax.sgd(0.5), WEIGHTS.to((False, True))(Model())),
    "a mask": lambda: optax.masked(optax.sgd(0.5), WEIGHTS),
    "an unknown label": lambda: optax.multi_transform({"fast": optax.sgd(0.5)}, lambda p: dict.fromkeys(p, "")),
}


@pytest.mark.parametrize("build", BY_MODEL.values(), ids=BY_MODEL)
def test_labels_and_masks_are_by_path(build: Any) -> None:
    optim = pxu.Optim(build)
    words = (
        r"a dict from path to array, \{'\.b': .*labels and masks are by path.*write a function, such as lambda params:"
    )
    with pytest.raises(ValueError, match=words):
        optim.init(WEIGHTS(Model()))
    assert optim.state.get() is None


def test_repr() -> None:
    model = Model()
    optims: dict[str, Any] = {
        "Optim(ScaleByAdamState for 2 parameters)": pxu.Optim(optax.adam(0.1), WEIGHTS(model)),
        "Optim(no moments for 1 parameter)": pxu.Optim(optax.sgd(0.1), [model.a]),
        "Optim(MultiStepsState, TraceState for 1 parameter)": pxu.Optim(
            optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2), [model.a]
        ),
        "Optim(not initialised)": pxu.Optim(optax.sgd(0.1)),
        "OptimTree({'[0]': Optim(no moments for 1 parameter)})": pxu.OptimTree(optax.sgd(0.1), Weight, [model.a]),
        "OptimTree(not initialised)": pxu.OptimTree(optax.sgd(0.1), Weight),
    }
    assert [repr(optim) for optim in optims.values()] == list(optims)
    assert repr(optims["Optim(not initialised)"].state) == "Param(None)"


def test_the_right_optimiser() -> None:
    model = Model()
    grads = loss(XS[0], model=model)[1]
    with pytest.raises(ValueError, match=r"expected an initialised optimiser.*found gradients for \.b, \.a, \.frozen"):
        pxu.Optim(optax.sgd(0.1)).step(model, grads["model"])
    other = pxu.Optim(optax.sgd(0.1), pxu.M(lambda param: param is model.count)(model))
    with pytest.raises(ValueError, match=r"is for \.count, and was given the gradients of \.b, \.a.*is it the right"):
        other.step(model, grads["model"])
    a, b = Weight(jnp.ones(1)), Weight(jnp.ones(1))
    with pytest.raises(ValueError, match=r"no parameter \[1\]; found instead \[1\] is now \[0\]; .* call retarget"):
        pxu.Optim(optax.sgd(0.1), [None, b]).step([a, a], None)
    for optimiser in (pxu.Optim(optax.sgd(0.1), WEIGHTS(model)), pxu.OptimTree(optax.sgd(0.1), Weight, WEIGHTS(model))):
        with pytest.raises(ValueError, match=r"found those of all keywords: give it grads\['model'\]"):
            optimiser.step(model, grads)
        with pytest.raises(ValueError, match=r"found those of all keywords: give it grads\[1\]\['model'\]"):
            optimiser.step(model, (jnp.ones(()), grads))
        for bare in (jax.tree.map(px.get, grads["model"], is_leaf=is_param), [jnp.ones(2)], {"model": 0.5}):
            with pytest.raises(TypeError, match=r"expected gradients in parameters, .* as functional\.grad gives them"):
                optimiser.step(model, bare)


@pytest.mark.parametrize(
    ("scale_by", "found"),
    [
        (jnp.ones(2), r"shape \(2,\)"),
        (np.ones((1, 1)), r"shape \(1, 1\)"),
        ("0.5", "str"),
        ([0.5], "list"),
        (Model(), "Model"),
        (False, "bool"),  # in the place of apply_updates
    ],
)
def test_a_scale_is_one_number(scale_by: Any, found: str) -> None:
    model = Model()
    optim = pxu.Optim(optax.sgd(0.1), WEIGHTS(model))
    with pytest.raises(ValueError, match=f"expected scale_by to be one number, found .*{found}"):
        optim.step(model, loss(XS[0], model=model)[1]["model"], scale_by)


@pytest.mark.parametrize("wrong", [3, None, lambda: 3])
def test_only_a_function_that_returns_an_optimiser_is_accepted(wrong: Any) -> None:
    message = r"expected an optax optimiser, or a function that returns one, found (3|None)"
    with pytest.raises(TypeError, match=message):
        pxu.Optim(wrong, Model())
    with pytest.raises(TypeError, match=message):
        pxu.OptimTree(wrong, lambda node: isinstance(node, Weight), Model())


def test_init_names_a_cleared_parameter() -> None:
    model = Model()
    model.b.set(None)
    with pytest.raises(ValueError, match=r"Optim\.init expected \.b to have a value, but it is cleared"):
        pxu.Optim(optax.adam(0.1), WEIGHTS(model))


def test_initialised_inside_a_transform_and_stepped_outside() -> None:
    @pxf.jit
    def start(*, model: Model, optim: pxu.Optim) -> None:
        optim.init(WEIGHTS(model))

    model, other = Model(), Model()
    inside, outside = pxu.Optim(optax.adam(0.1)), pxu.Optim(optax.adam(0.1), WEIGHTS(other))
    start(model=model, optim=inside)
    for x in XS:
        inside.step(model, loss(x, model=model)[1]["model"])
        outside.step(other, loss(x, model=other)[1]["model"])
    check(model, values_of(other), atol=0)


def test_initialised_again_for_every_batch_inside_jit() -> None:
    traces: list[None] = []

    @pxf.jit
    def train(x: Array, *, model: Model, optim: pxu.Optim) -> None:
        traces.append(None)
        optim.init(WEIGHTS(model))
        for _ in range(2):
            optim.step(model, loss(x, model=model)[1]["model"])
        optim.clear()

    model, direct = Model(), optax.sgd(0.05, momentum=0.9)
    optim, values = pxu.Optim(direct), values_of(model)
    for x in XS:
        state = direct.init(values)
        for _ in range(2):
            values, state, _ = raw_step(direct, values, state, x)
        train(x, model=model, optim=optim)
        check(model, values)
        assert optim.state.get() is None
    assert len(traces) == 1


def test_in_a_scan_and_under_vmap() -> None:
    """One optimiser for each lane, over several steps, against the same by hand for each lane."""
    xs = jnp.stack(XS)

    @pxf.vmap({"model": pxu.M(Weight).to((None, 0)), "optim": 0})
    def train(x: Array, *, model: Model, optim: pxu.Optim) -> None:
        optim.init(WEIGHTS(model))

        def step(_: None, *, model: Model, optim: pxu.Optim) -> tuple[tuple[()], None]:
            optim.step(model, loss(x, model=model)[1]["model"])
            return (), None

        pxf.scan(step, length=3)(model=model, optim=optim)

    model, direct = Model(), optax.sgd(0.05, momentum=0.9)
    for param in (model.a, model.b, model.frozen):
        param.set(jnp.stack([param.get()] * 4))
    optim = pxu.Optim(direct)
    train(xs, model=model, optim=optim)
    for lane, x in enumerate(XS):
        values = values_of(Model())
        state = direct.init(values)
        for _ in range(3):
            values, state, _ = raw_step(direct, values, state, x)
        for name, value in values.items():
            np.testing.assert_allclose(values_of(model)[name][lane], value, atol=1e-6)
    # Momentum works element by element, so the states of all lanes are that of the whole.
    grads = Model()
    for param in (grads.a, grads.b):
        param.set(jnp.zeros((4, *param.shape)))
    optim.step(model, grads)


def test_hyperparameters_can_be_read_and_changed_between_steps() -> None:
    model = Model()
    optim = pxu.Optim(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), WEIGHTS(model))
    assert float(optim.state.get().hyperparams["learning_rate"]) == pytest.approx(0.1)

    @pxf.jit
    def train(x: Array, *, model: Model, optim: pxu.Optim) -> Any:
        return optim.step(model, loss(x, model=model)[1]["model"])

    for rate in (0.1, 0.5, 0.0):
        optim.state.get().hyperparams["learning_rate"] = jnp.array(rate)
        gradient = jax.grad(raw_loss)(values_of(model), XS[0])
        check(train(XS[0], model=model, optim=optim), {name: -rate * grad for name, grad in gradient.items()})


class Scheduled(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = px.Param(jnp.array(0.1))

    def schedule(self, count: Any) -> Array:
        rate: Array = self.rate.get()
        return rate


RATE, SCHEDULED = px.Param(jnp.array(0.1)), Scheduled()


@pytest.mark.parametrize(
    ("optax_fn", "name"),
    [
        (optax.sgd(lambda count: RATE.get()), "RATE"),
        (lambda: optax.sgd(float(RATE.get())), "RATE"),
        ((lambda rate: optax.adamw(lambda count: rate.get()))(RATE), "rate"),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(SCHEDULED.schedule)), r"\w+"),
        (optax.sgd(partial(lambda count, rate: rate.get(), rate=RATE)), r"\w+"),
        (optax.masked(optax.sgd(lambda count: SCHEDULED.rate.get()), True), "SCHEDULED"),
    ],
)
def test_a_rate_that_is_read_from_a_parameter_is_warned_of(optax_fn: Any, name: str) -> None:
    words = rf"the optimiser reads parameters from around it, in {name}, .* optax\.inject_hyperparams"
    for make in (lambda: pxu.Optim(optax_fn), lambda: pxu.OptimTree(optax_fn, px.Param)):
        with pytest.warns(UserWarning, match=words) as caught:
            make()
        assert caught[0].filename == __file__
    RATE.frozen = SCHEDULED.frozen = True
    try:
        pxu.Optim(optax_fn)  # and not warned of
    finally:
        RATE.frozen = SCHEDULED.frozen = False


def test_the_state_is_read_as_optax_gives_it() -> None:
    model = Model()
    optim = pxu.Optim(optax.adam(0.1), WEIGHTS(model))
    optim.step(model, loss(XS[0], model=model)[1]["model"])
    for state in (optim.state, copy.deepcopy(optim.state), pickle.loads(pickle.dumps(optim.state))):
        assert int(state.get()[0].count) == 1
        assert sorted(state.get()[0].mu) == [".a", ".b"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = optim.state.get().nothing


def test_parameters_that_hold_trees() -> None:
    p = px.Param({"x": jnp.ones(2), "y": jnp.array(2.0)})
    optim = pxu.Optim(optax.sgd(0.5), [p])
    optim.step([p], [px.Param({"x": jnp.ones(2), "y": jnp.array(4.0)})], scale_by=0.5)
    assert jax.tree.map(lambda x: x.tolist(), p.get()) == {"x": [0.75, 0.75], "y": 1.0}


class Other(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = Weight(jnp.ones((2, 3)))
        self.c = [Weight(jnp.ones(2))]


def test_another_structure_is_refused_with_the_paths_that_differ() -> None:
    optim = pxu.Optim(optax.adam(0.1), WEIGHTS(Model()))
    with pytest.raises(ValueError, match=r"has no parameter \.b; found instead \.c\[0\]"):
        optim.step(Other(), Other())
    with pytest.raises(ValueError, match=r"has no parameter \.b, \.a; found instead \['model'\]\.b"):
        optim.step({"model": Model()}, Model())
    with pytest.raises(ValueError, match=r"found those of all keywords: give it grads\['model'\]"):
        optim.step(Model(), {"other": None, "model": Model()})
    with pytest.raises(ValueError, match=r"no gradient for \.b: "):
        optim.step(Model(), Other())


def test_another_shape_is_refused_with_the_path_and_both_shapes() -> None:
    model, bigger = Model(), Model()
    bigger.a.set(jnp.ones((2, 5)))
    optim = pxu.Optim(optax.adam(0.1), WEIGHTS(model))
    with pytest.raises(ValueError, match=re.escape(".a (parameter (2, 3), gradient (2, 5))")):
        optim.step(model, bigger)
    state = jax.tree.leaves(optim.state)
    with pytest.raises(ValueError, match=re.escape("other shapes than init was given: .a (then (2, 3), now (2, 5))")):
        optim.step(bigger, bigger)
    assert all(one is other for one, other in zip(jax.tree.leaves(optim.state), state, strict=True))
    assert bool((bigger.b == Model().b).all())


def test_errors_of_optax_itself_come_through() -> None:
    def fails(updates: Any, state: Any, params: Any = None) -> Any:
        raise ValueError("of its own")

    model = Model()
    optim = pxu.Optim(optax.GradientTransformation(lambda params: (), fails), WEIGHTS(model))
    with pytest.raises(ValueError, match="of its own"):
        optim.step(model, model)


# OptimTree


class Layers(px.Module):
    def __init__(self) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(0)
        first = pxnn.Linear(2, 2, rkg=rkg)
        self.layers = [first, pxnn.shared(first), pxnn.Linear(2, 2, rkg=rkg), pxnn.Linear(2, 2, rkg=rkg)]
        self.layers[1].nn.bias = Weight(jnp.ones(2))
        for param in (self.layers[2].nn.weight, self.layers[2].nn.bias):
            assert param is not None
            param.frozen = True
        self.scale = Weight(jnp.array(1.0))

    def values(self) -> dict[str, Array]:
        """By path, a shared one at its first occurrence."""
        nodes = jax.tree_util.tree_leaves_with_path(px.tree_ref(self))
        return {jax.tree_util.keystr(path).removesuffix(".value"): value for path, value in nodes}


def is_linear(node: Any) -> bool:
    return isinstance(node, pxnn.Linear)


NODES = {
    ".layers[0]": [".layers[0].nn.weight", ".layers[0].nn.bias"],
    ".layers[1]": [".layers[1].nn.bias"],
    ".layers[3]": [".layers[3].nn.weight", ".layers[3].nn.bias"],
}


@pxf.grad({"model": pxu.M(Weight)})
def layers_loss(x: Array, *, model: Layers) -> Array:
    for layer in model.layers:
        x = jnp.tanh(layer(x))
    return (model.scale * x).sum()


@pytest.mark.thorough
@pytest.mark.parametrize("init_inside", [False, True], ids=["outside", "initialised inside jit"])
@pytest.mark.parametrize("step_inside", [False, True], ids=["", "stepped inside jit"])
def test_an_independent_optimiser_for_each_node(init_inside: bool, step_inside: bool) -> None:
    """Clipping by the norm of a node's own gradients tells whether the nodes are independent."""
    direct = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.1))
    model = Layers()
    optim = pxu.OptimTree(direct, is_linear)
    assert isinstance(optim, px.BaseModule)

    def init(*, model: Layers, optim: pxu.OptimTree) -> None:
        optim.init(WEIGHTS(model))

    def train(x: Array, *, model: Layers, optim: pxu.OptimTree) -> None:
        optim.step(model, layers_loss(x, model=model)["model"])

    (pxf.jit(init) if init_inside else init)(model=model, optim=optim)
    assert list(optim.state.get()) == list(NODES)
    expected = model.values()
    states = {node: direct.init({path: expected[path] for path in paths}) for node, paths in NODES.items()}
    for x in XS:
        grads = layers_loss(x[:2], model=model)["model"].values()
        (pxf.jit(train) if step_inside else train)(x[:2], model=model, optim=optim)
        for node, paths in NODES.items():
            values = {path: expected[path] for path in paths}
            updates, states[node] = direct.update({path: grads[path] for path in paths}, states[node], values)
            expected |= optax.apply_updates(values, updates)
        found = model.values()
        assert list(found) == list(expected)
        for path, value in expected.items():
            np.testing.assert_allclose(found[path], value, atol=1e-6, err_msg=path)
    assert model.layers[0].nn.weight is model.layers[1].nn.weight


def test_a_node_without_gradient_is_skipped() -> None:
    model = Layers()
    optim = pxu.OptimTree(optax.adam(0.1), is_linear, WEIGHTS(model))
    grads = layers_loss(XS[0][:2], model=model)["model"]
    grads.layers[0] = None
    before = model.values()
    optim.step(model, grads)
    moved = {path for path, value in model.values().items() if value is not before[path]}
    assert moved == {*NODES[".layers[1]"], *NODES[".layers[3]"]}
    counts = {path: int(each.state.get()[0].count) for path, each in optim.state.get().items()}
    assert counts == {".layers[0]": 0, ".layers[1]": 1, ".layers[3]": 1}
    optim.step(model, None)
    assert optim.state.get()[".layers[3]"].state.get()[0].count == 1


def test_a_node_with_gradients_of_some_targets_is_refused() -> None:
    model = Layers()
    optim = pxu.OptimTree(optax.adam(0.1), is_linear, WEIGHTS(model))
    grads = layers_loss(XS[0][:2], model=model)["model"]
    grads.layers[0].nn.bias.set(None)
    with pytest.raises(ValueError, match=r"no gradient for \.nn\.bias"):
        optim.step(model, grads)


def test_of_a_tree_scale_apply_and_clear() -> None:
    p, q = Weight(jnp.array(1.0)), Weight(jnp.array(2.0))
    optim = pxu.OptimTree(lambda: optax.sgd(0.5), lambda node: isinstance(node, Weight), [p, q])
    grads = [Weight(jnp.array(1.0)), Weight(jnp.array(1.0))]
    optim.step([p, q], grads, apply_updates=False)
    assert (float(p), float(q)) == (1.0, 2.0)
    optim.step([p, q], grads, 0.5)
    assert (float(p), float(q)) == (0.75, 1.75)
    optim.clear()
    assert optim.state.get() is None
    with pytest.raises(ValueError, match=r"OptimTree\.step expected an initialised optimiser: call init"):
        optim.step([p, q], grads)


def test_of_a_tree_another_structure_is_refused() -> None:
    optim = pxu.OptimTree(optax.adam(0.1), is_linear, WEIGHTS(Layers()))
    with pytest.raises(ValueError, match=r"has no node \.layers\[0\], \.layers\[1\], \.layers\[3\]"):
        optim.step(Model(), Model())


@pytest.mark.parametrize("leaf_fn", [pxnn.Conv, lambda node: False, pxu.M(pxnn.StateParam)])
def test_of_a_tree_a_filter_that_selects_no_node_is_refused(leaf_fn: Any) -> None:
    with pytest.raises(ValueError, match=r"expected leaf_fn to select nodes of the model, but .* selects none: give"):
        pxu.OptimTree(optax.sgd(0.1), leaf_fn, Layers())


@pytest.mark.parametrize(
    ("leaf_fn", "words"),
    [
        ("Linear", "expected a class, a union of classes, a predicate or an M"),
        (Layers(), "leaf_fn to be a class of modules or a predicate, found a Layers: write OptimTree"),
    ],
)
def test_of_a_tree_only_a_filter_of_nodes_is_accepted(leaf_fn: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        pxu.OptimTree(optax.sgd(0.1), leaf_fn)


def test_of_a_tree_gradients_of_other_parameters_are_refused() -> None:
    model = Layers()
    optim = pxu.OptimTree(optax.sgd(0.1), is_linear, WEIGHTS(model))
    grads = layers_loss(XS[0][:2], model=model)["model"]
    grads.layers = None
    with pytest.raises(ValueError, match=r"gradients of what init was given, \.layers\[0\].*found those of \.scale"):
        optim.step(model, grads)


def test_a_failing_step_leaves_the_state_of_a_tree() -> None:
    p, q = Weight(jnp.array(1.0)), Weight(jnp.ones(2))
    optim = pxu.OptimTree(optax.adam(0.5), lambda node: isinstance(node, Weight), [p, q])
    state = optim.state.get()
    leaves = jax.tree.leaves(state)
    with pytest.raises(ValueError, match=r"gradient \(3,\)"):
        optim.step([p, q], [Weight(jnp.array(1.0)), Weight(jnp.ones(3))])
    assert optim.state.get() is state
    assert float(p) == 1.0
    assert all(one is other for one, other in zip(jax.tree.leaves(state), leaves, strict=True))


def test_moments_are_never_broadcast_to_other_shapes() -> None:
    param = px.Param(jnp.ones(4))
    optim = pxu.Optim(optax.adam(0.1), [param])
    param.set(jnp.ones((4, 4)))
    with pytest.raises(ValueError, match=r"other shapes than init was given.*\(4,\).*\(4, 4\).*call init"):
        optim.step([param], [px.Param(jnp.ones((4, 4)))])
    assert param.shape == (4, 4)


class Positive(px.Param):
    """Reads as the softplus of what it holds."""

    def get(self) -> Any:
        return None if self.value is None else jax.nn.softplus(self.value)


def test_what_moves_is_what_a_parameter_holds() -> None:
    """However a subclass reads it: dx/dr of 3 softplus(r) at r = 0 is 3/2."""
    for make in (lambda p: pxu.Optim(optax.sgd(0.1), p), lambda p: pxu.OptimTree(optax.sgd(0.1), px.Param, p)):
        p = [Positive(jnp.array(0.0))]
        optim, grads = make(p), pxf.grad({"p": True})(lambda *, p: 3 * p[0])(p=p)["p"]
        optim.step(p, grads)
        np.testing.assert_allclose(p[0].value, -0.1 * 1.5, rtol=1e-6)


class Bare(px.Module):
    """A bare array where a weight is meant, beside a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = jnp.ones(2), px.Param(jnp.zeros(2))


def test_gradients_of_bare_arrays_are_warned_of_as_they_do_not_learn() -> None:
    model = Bare()
    grads = pxf.grad({"model": True})(lambda *, model: (model.w * model.b).sum())(model=model)["model"]
    words = r"Optim\.step was given gradients of bare arrays, \.w, which no optimiser changes: make them Params"
    with pytest.warns(UserWarning, match=words) as caught:
        pxu.Optim(optax.sgd(0.1), model).step(model, grads)
    assert caught[0].filename == __file__
    grads = pxf.grad({"model": pxu.M(px.Param)})(lambda *, model: (model.w * model.b).sum())(model=model)["model"]
    pxu.Optim(optax.sgd(0.1), model).step(model, grads)

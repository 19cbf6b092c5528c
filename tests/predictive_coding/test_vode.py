"""Value nodes: what is stored where, and the energy of one sample or of each in a batch."""

import copy
import pickle
import re
import threading
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
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from minipcax.predictive_coding import STATUS
from tests.oracles import changed

Node = pxc.Vode[pxc.VodeParam]


def initialising() -> Node:
    vode = pxc.Vode()
    vode.status = STATUS.INIT
    return vode


def test_a_new_node() -> None:
    vode = pxc.Vode()
    assert type(vode.h) is pxc.VodeParam
    assert type(vode.cache) is pxc.VodeParam.Cache
    assert isinstance(vode.cache, px.ParamDict)
    assert isinstance(vode.cache, px.ParamCache)
    assert (vode.h.get(), vode.cache.get(), vode.status) == (None, None, None)
    assert vode.energy_fn is pxc.se_energy


def test_calling_is_setting_u_and_getting_h() -> None:
    u = jnp.arange(3.0)
    for status in (None, STATUS.INIT):
        called, by_hand = pxc.Vode(), pxc.Vode()
        for vode in (called, by_hand):
            vode.set("h", jnp.ones(3))
            vode.status = status
        assert called(u).tolist() == by_hand.set("u", u).get("h").tolist() == ([0, 1, 2] if status else [1, 1, 1])
        assert called.get("u").tolist() == by_hand.get("u").tolist() == [0, 1, 2]


def test_without_a_prediction_nothing_is_set() -> None:
    vode = initialising()
    vode(jnp.ones(2))
    for output in (vode(), vode(None)):
        assert output.tolist() == [1, 1]
    assert sorted(vode.cache.get()) == ["u"]


def test_output_names_the_entry_to_return() -> None:
    vode = pxc.Vode(ruleset={STATUS.ALL: ("e -> u:half",)}, tforms={"half": lambda vode, key, value, rkg: value / 2})
    vode.set("h", jnp.ones(2))
    assert vode(jnp.zeros(2)).tolist() == [1, 1]
    assert vode(jnp.zeros(2), output="u").tolist() == [0, 0]
    assert vode(jnp.full(2, 4.0), output="e").tolist() == [2, 2]
    assert vode(jnp.zeros(2), output=None) is vode
    assert vode(jnp.zeros(2), output="absent") is None


def test_extra_activations_are_stored() -> None:
    vode = pxc.Vode(ruleset={STATUS.ALL: ("b <- a",)})
    vode(jnp.zeros(2), a=jnp.ones(2), c=px.Param(jnp.array(2.0)), d=None)
    assert sorted(vode.cache.get()) == ["b", "c", "u"]
    assert vode.get("b").tolist() == [1, 1]
    assert isinstance(vode.get("c"), jax.Array)


def test_a_name_is_an_attribute_or_else_a_cache_entry() -> None:
    vode = pxc.Vode()
    vode.precision = pxnn.LayerParam(jnp.array(1.0))
    weight = vode.precision
    assert vode.set("precision", jnp.array(2.0)) is vode
    vode.set("h", jnp.ones(1)).set("other", jnp.zeros(1)).set("cache", jnp.array(3.0)).set("energy_fn", jnp.array(4.0))
    assert vode.precision is weight
    assert float(vode.get("precision")) == float(weight) == 2.0
    assert isinstance(vode.get("h"), jax.Array)
    assert sorted(vode.cache.get()) == ["cache", "energy_fn", "other"]
    assert vode.energy_fn is pxc.se_energy


def test_get_returns_the_default_for_an_absent_or_unset_entry() -> None:
    vode = pxc.Vode()
    for key in ("h", "u", "absent", "ruleset"):
        assert vode.get(key) is None
        assert vode.get(key, "default") == vode.get(key, default="default") == "default"
    vode.set("h", jnp.zeros(1)).set("u", jnp.zeros(1))
    assert vode.get("h", "default").tolist() == vode.get("u", "default").tolist() == [0]


class Other(pxc.VodeParam):
    def __init__(self, value: Any = None, *, scale: float = 1.0) -> None:
        super().__init__(None if value is None else scale * value)


def test_a_custom_class_of_state() -> None:
    vode = pxc.Vode(pxc.se_energy, {}, {}, Other, jnp.ones(2), scale=3.0)
    assert type(vode.h) is Other
    assert vode.h.tolist() == [3, 3]
    by_keyword: pxc.Vode[Other] = pxc.Vode(param_type=Other)
    assert type(by_keyword.h) is Other
    assert by_keyword.h.get() is None


def test_copies_and_pickles() -> None:
    vode = pxc.Vode(ruleset={"a|b": ("e -> h",)}).set("h", jnp.ones(2))
    vode.h.frozen = True
    for twin in (copy.deepcopy(vode), pickle.loads(pickle.dumps(vode)), jax.tree.map(lambda x: x, vode)):
        assert twin.h is not vode.h
        assert (twin.h.tolist(), twin.h.frozen, twin.ruleset) == ([1, 1], True, vode.ruleset)


def test_h_and_cache_are_the_children_in_that_order() -> None:
    vode = initialising()
    vode(jnp.ones(2))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(vode)]
    assert paths == [".h.value", ".cache.value['u']"]


# Energy


SHAPES = [(), (4,), (4, 3), (4, 3, 2), (4, 1, 2, 3)]


def draw(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_outside_vmap_there_is_one_energy_per_sample(shape: tuple[int, ...]) -> None:
    h, u = draw(0, shape), draw(1, shape)
    terms = 0.5 * (h - u) ** 2
    expected = terms.sum(axis=tuple(range(1, len(shape))))
    arrivals: list[Callable[[Node], object]] = [
        lambda vode: vode(jnp.asarray(u)),
        lambda vode: vode.set("u", u),
        lambda vode: vode.set("u", px.Param(jnp.asarray(u))),
        lambda vode: vode.cache.set({"u": u}),
    ]
    for arrive in arrivals:
        vode = pxc.Vode().set("h", h)
        arrive(vode)
        energy = vode.energy()
        assert isinstance(energy, jax.Array)
        assert energy.shape == shape[:1]
        np.testing.assert_allclose(energy, expected, rtol=1e-5)
        assert vode.cache["E"] is energy is vode.get("E") is vode.energy()


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_inside_vmap_it_is_a_scalar(shape: tuple[int, ...]) -> None:
    h, u = draw(0, shape), draw(1, shape)

    @pxf.vmap({"vode": 0})
    def energy(u: Array, *, vode: Node) -> Array:
        vode(u)
        assert vode.energy().shape == ()
        return vode.energy()

    vode = pxc.Vode().set("h", h)
    expected = (0.5 * (h - u) ** 2).sum(axis=tuple(range(1, len(shape))))
    np.testing.assert_allclose(energy(jnp.asarray(u), vode=vode), expected, rtol=1e-5)
    np.testing.assert_allclose(vode.cache["E"], expected, rtol=1e-5)
    vode.cache.set({"u": vode.cache["u"]})
    np.testing.assert_allclose(vode.energy(), expected, rtol=1e-5)


@pytest.mark.parametrize("energy_fn", [pxc.se_energy, pxc.ce_energy, pxc.zero_energy, lambda v: v.h - v.get("u")])
@pytest.mark.parametrize(("h", "u"), [((4, 3), (1, 3)), ((4, 3), (3,)), ((4, 3), (4, 1)), ((4, 3), ()), ((1,), ())])
def test_a_prediction_is_not_broadcast(energy_fn: Any, h: tuple[int, ...], u: tuple[int, ...]) -> None:
    vode = pxc.Vode(energy_fn).set("h", jnp.ones(h)).set("u", jnp.ones(u))
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=re.escape(f"found {h} and {u}")):
        vode.energy()


def test_inside_vmap_nothing_is_broadcast_either() -> None:
    @pxf.vmap({"vode": 0})
    def energy(u: Array, *, vode: Node) -> Array:
        vode(u)
        return vode.energy()

    with pytest.raises(ValueError, match=r"the same shape, found \(3,\) and \(1,\): nothing is broadcast"):
        energy(jnp.ones((4, 1)), vode=pxc.Vode().set("h", jnp.ones((4, 3))))


@pytest.mark.parametrize("h", [(3,), (4, 3)])
@pytest.mark.parametrize(
    "energy_fn",
    [
        lambda vode: pxc.se_energy(vode).sum(),
        lambda vode: pxc.se_energy(vode).mean(-1, keepdims=True),
        lambda vode: jnp.stack([pxc.se_energy(vode)] * 2),
    ],
)
def test_an_energy_function_gives_one_term_per_element(h: tuple[int, ...], energy_fn: Any) -> None:
    vode = pxc.Vode(energy_fn).set("h", jnp.ones(h)).set("u", jnp.zeros(h))
    found = jax.eval_shape(energy_fn, vode).shape
    words = f"one term per element of its state, of shape {h}, found shape {found}"
    with pytest.raises(ValueError, match=re.escape(words)):
        vode.energy()


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (4, 1), (4, 3)])
def test_a_precision_is_broadcast(shape: tuple[int, ...]) -> None:
    h, u, precision = draw(0, (4, 3)), draw(1, (4, 3)), draw(2, shape)
    vode = pxc.Vode().set("h", h).set("u", u).set("precision", precision)
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(vode.energy(), (precision * 0.5 * (h - u) ** 2).sum(1), rtol=1e-5, atol=1e-6)


def test_a_precision_of_more_than_the_state_is_refused() -> None:
    vode = pxc.Vode().set("h", jnp.ones((1,))).set("u", jnp.ones((1,))).set("precision", jnp.ones((3,)))
    with pytest.raises(ValueError, match=r"precision must broadcast to the state, of shape \(1,\), found shape \(3,\)"):
        vode.energy()


def test_a_raw_vmap_counts_as_outside() -> None:
    shapes = []

    def energy(h: Array, u: Array) -> Array:
        result = pxc.Vode().set("h", h).set("u", u).energy()
        shapes.append(result.shape)
        return result

    jax.vmap(energy)(jnp.ones((4, 3)), jnp.zeros((4, 3)))
    assert shapes == [(3,)]


def test_being_inside_decides_a_retrace() -> None:
    traces: list[None] = []

    @pxf.jit
    def energy(*, vode: Node) -> Array:
        traces.append(None)
        return vode.energy()

    def build() -> Node:
        return pxc.Vode().set("h", jnp.ones((4, 4))).set("u", jnp.zeros((4, 4)))

    @pxf.vmap({"vode": 0})
    def inside(*, vode: Node) -> Array:
        vode.set("h", jnp.ones((4, 4))).set("u", jnp.zeros((4, 4)))
        return energy(vode=vode)

    for _ in range(2):
        assert energy(vode=build()).shape == (4,)
        assert inside(vode=build()).tolist() == [8.0] * 4
    assert len(traces) == 2


def test_being_inside_is_known_per_thread() -> None:
    arrived, go_on = threading.Event(), threading.Event()

    @pxf.vmap({"vode": 0})
    def inside(*, vode: Node) -> Array:
        arrived.set()
        assert go_on.wait(timeout=60)
        return vode.energy()

    vode = pxc.Vode().set("h", jnp.ones((4, 3))).set("u", jnp.zeros((4, 3)))
    results = []
    thread = threading.Thread(target=lambda: results.append(inside(vode=vode)))
    thread.start()
    try:
        assert arrived.wait(timeout=60)
        outside = pxc.Vode().set("h", jnp.ones((2, 3))).set("u", jnp.zeros((2, 3)))
        assert outside.energy().shape == (2,)
    finally:
        go_on.set()
        thread.join()
    assert results[0].tolist() == [1.5] * 4


def test_the_energy_is_computed_once() -> None:
    calls = []

    def energy_fn(vode: Any) -> Array:
        calls.append(vode)
        return pxc.se_energy(vode)

    vode = pxc.Vode(energy_fn).set("h", jnp.ones(2)).set("u", jnp.zeros(2))
    for _ in range(3):
        assert vode.energy().tolist() == [0.5, 0.5]
    assert len(calls) == 1
    vode.clear_params(px.ParamCache)
    vode.set("u", jnp.zeros(2))
    assert vode.energy().tolist() == [0.5, 0.5]
    assert calls == [vode, vode]


def scan_over_it(vode: Any) -> None:
    def grow(_: Any, *, vode: Node) -> tuple[tuple[()], Array]:
        vode.h += 1
        return (), vode.energy()

    pxf.scan(grow, length=2)(vode=vode)


def add_in_place(*, vode: Any) -> None:
    vode.energy()  # which is then out of date, and comes out so
    vode.h += 1


def optimise(vode: Any) -> None:
    optim = pxu.Optim(optax.sgd(1.0), pxu.M(pxc.VodeParam)(vode))
    grads = pxf.grad({"vode": pxu.M(pxc.VodeParam)})(lambda *, vode: vode.energy().sum())(vode=vode)
    optim.step(vode, grads["vode"])


CHANGES = [
    "model.set('h', jnp.zeros(2))",
    "model.h.set(jnp.zeros(2))",
    "model.h += 1",
    "model.set('u', jnp.full(2, 4.0))",
    "model.cache['u'] = jnp.full(2, 4.0)",
    "model.cache.set({**model.cache.get(), 'u': jnp.full(2, 4.0)})",
    "model.set('precision', jnp.array(2.0))",
    "model.set('entry', jnp.array([5.0, 5.0]))",
    "scan_over_it(model)",
    "pxf.jit(add_in_place)(vode=model)",
    "pxf.vmap({'vode': pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))})(add_in_place)(vode=model)",
    "optimise(model)",
    "model.energy_fn = pxc.zero_energy",
    "px.tree_inject(model, values=[jnp.zeros(2), {**model.cache.get(), 'u': jnp.ones(2)}, jnp.array(3.0)])",
]


@pytest.mark.parametrize("statement", CHANGES, ids=range(len(CHANGES)))
@pytest.mark.parametrize("asked", ["energy", "get", "output"])
def test_an_energy_is_that_of_the_present(statement: str, asked: str) -> None:
    """Whatever changes, and however: it equals that of a new node with the same contents."""

    def energy_fn(vode: Any) -> Array:
        entry: Array = vode.get("entry", jnp.array(2.0))
        return pxc.se_energy(vode) * entry

    def twice(vode: Any, key: str, value: Array, rkg: Any) -> Array:
        u: Array = vode.get("u")
        return 2 * value * u

    def node() -> Any:
        vode: Any = pxc.Vode(energy_fn, {pxc.STATUS.ALL: ("e -> h:twice",)}, {"twice": twice})
        vode.precision = px.Param(jnp.array(1.0))
        return vode

    def found(vode: Any) -> list[float]:
        answers = {"energy": vode.energy, "get": lambda: vode.get("E"), "output": lambda: vode.get("e")}
        answer: list[float] = answers[asked]().tolist()
        return answer

    vode = node().set("h", jnp.array([3.0, 5.0])).set("u", jnp.array([1.0, 2.0]))
    vode.energy(), found(vode)
    before = (vode.h.get(), vode.cache["u"], vode.precision.get(), vode.get("entry"), vode.energy_fn)
    changed(vode, statement, globals())
    after = (vode.h.get(), vode.cache["u"], vode.precision.get(), vode.get("entry"), vode.energy_fn)
    assert any(one is not other for one, other in zip(before, after, strict=True))
    fresh = node().set("h", vode.h.get()).set("u", vode.cache["u"]).set("precision", vode.precision.get())
    fresh.energy_fn = vode.energy_fn
    if "entry" in vode.cache:
        fresh.set("entry", vode.cache["entry"])
    fresh.energy()
    assert found(vode) == found(fresh)


OUTSIDE = px.Param(jnp.array(2.0))


def test_parameters_that_a_function_closes_over_may_change() -> None:
    """An energy function of a closed-over and a global parameter; and a rule with one."""
    inside = px.Param(jnp.array(3.0))

    def scale(vode: Any, key: str, value: Array, rkg: Any) -> Array:
        return value * inside

    functions: list[Any] = [lambda v: pxc.se_energy(v) * inside, lambda v: OUTSIDE * pxc.se_energy(v)]
    for energy_fn in functions:
        vode = pxc.Vode(energy_fn, {STATUS.ALL: ("e -> h:scale",)}, {"scale": scale})
        vode.set("h", jnp.full(2, 2.0)).set("u", jnp.zeros(2))
        for number in (1.0, 5.0):
            for p in (inside, OUTSIDE):
                p.set(jnp.array(number))
            assert vode.energy() is vode.energy()
            assert vode.energy().tolist() == vode.get("e").tolist() == [2 * number] * 2


def test_an_array_of_numpy_may_change_in_place() -> None:
    h = np.ones(2, np.float32)
    vode = pxc.Vode().set("h", h).set("u", np.zeros(2, np.float32))
    assert vode.energy().tolist() == [0.5, 0.5]
    h[0] = 3
    assert vode.energy().tolist() == [4.5, 0.5]


def test_a_loop_by_hand_that_clears_nothing() -> None:
    """Gradient descent with rate 0.1 on ½(h − u)²: the energy falls by 0.9² in each step."""
    vode = pxc.Vode().set("h", jnp.array([[1.0], [2.0]])).set("u", jnp.zeros((2, 1)))
    of_batch = pxf.vmap({"vode": 0})(lambda *, vode: vode.energy())
    select = pxu.M(pxc.VodeParam)
    descend = pxf.jit(pxf.value_and_grad({"vode": select})(lambda *, vode: of_batch(vode=vode).sum()))
    optim = pxu.Optim(optax.sgd(0.1), select(vode))
    for step in range(4):
        energy, grads = descend(vode=vode)
        np.testing.assert_allclose(energy, 2.5 * 0.81**step, rtol=1e-5)
        optim.step(vode, grads["vode"])


# Targets


def observed() -> Node:
    vode = initialising()
    vode.h.frozen = True
    return vode


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("first", ["target", "prediction"])
def test_a_target_stays_whichever_comes_first(frozen: bool, first: str) -> None:
    """In a node that is inferred, initialisation goes on."""
    vode, u, y = observed(), jnp.zeros(2), jnp.ones(2)
    vode.h.frozen = frozen
    if first == "target":
        vode.set("h", y)(u)
    else:
        vode(u)
        vode.set("h", y)
    assert vode.h.tolist() == ([1, 1] if frozen or first == "prediction" else [0, 0])
    assert vode.get("u").tolist() == [0, 0]


def test_each_pass_has_its_own_target() -> None:
    vode, u = observed(), jnp.zeros(2)
    vode.set("h", jnp.ones(2))(u)
    with pxu.step(vode, STATUS.INIT, clear_params=px.ParamCache):
        assert vode(u).tolist() == [0, 0]  # of a pass without a target


@pytest.mark.parametrize("twin_first", [True, False])
def test_two_nodes_with_one_state(twin_first: bool) -> None:
    a, b, y = observed(), initialising(), jnp.ones(2)
    b.h = a.h
    a.set("h", y)
    for vode, u in [(a, 2.0), (b, 4.0)][:: -1 if twin_first else 1]:
        vode(jnp.full(2, u))
    assert a.h.tolist() == [1, 1]
    assert (a.energy().tolist(), b.energy().tolist()) == ([0.5, 0.5], [4.5, 4.5])


# Passes


@pytest.mark.parametrize("status", [None, STATUS.INIT, "other"])
@pytest.mark.parametrize("by", ["call", "set"])
def test_two_predictions_in_one_pass(status: str | None, by: str) -> None:
    vode = pxc.Vode().set("h", jnp.zeros(1))
    vode.status = status
    for u in (10.0, 1.0):
        if by == "call":
            vode(jnp.array([u]))
        else:
            vode.set("u", jnp.array([u]))
    with pytest.raises(ValueError, match=r"given 2 predictions in one pass, .* use a node for each call"):
        vode.energy()


def test_two_predictions_in_two_passes() -> None:
    vode, u = pxc.Vode().set("h", jnp.zeros(1)), jnp.ones(1)
    vode(u)
    vode.energy()
    vode(u)
    assert vode.energy().tolist() == [0.5]
    for _ in range(2):
        vode.clear_params(px.ParamCache)
        vode(u)
    assert vode.energy().tolist() == [0.5]
    for _ in range(2):
        pxf.jit(lambda *, vode: vode.clear_params(px.ParamCache))(vode=vode)
        vode(u)
    assert vode.energy().tolist() == [0.5]
    for status in (None, "another"):
        vode.status = status
        vode(u)
    assert vode.energy().tolist() == [0.5]


def test_a_rule_may_make_one_prediction_of_several() -> None:
    def add(vode: Any, key: str, value: Array, rkg: Any) -> Array:
        before: Array = vode.cache.get("u", jnp.zeros(1))
        return before + value

    vode = pxc.Vode(ruleset={STATUS.ALL: ("u <- u:add",)}, tforms={"add": add}).set("h", jnp.zeros(1))
    vode(jnp.ones(1))
    vode(jnp.ones(1))
    assert vode.energy().tolist() == [2.0]


def test_no_energy_function_contributes_nothing() -> None:
    class Model(pxc.EnergyModule):
        def __init__(self) -> None:
            super().__init__()
            self.vodes = [pxc.Vode(None), pxc.Vode(), pxc.Vode(None).set("h", jnp.ones((4, 3)))]

    model = Model()
    model.vodes[1].set("h", jnp.ones((4, 3))).set("u", jnp.zeros((4, 3)))
    assert float(model.energy()) == 6.0
    assert float(model.vodes[0].energy()) == 0.0
    assert float(model.vodes[2].energy().sum()) == 0.0


def test_the_energy_function_is_called_with_the_generator_if_it_takes_it() -> None:
    rkg = px.RandomKeyGenerator(5)

    def with_rkg(vode: Any, rkg: px.RandomKeyGenerator) -> Array:
        return jnp.where(jnp.array(rkg is given), pxc.zero_energy(vode) + 1, 0)

    def keywords(vode: Any, **kwargs: Any) -> Array:
        return with_rkg(vode, kwargs["rkg"])

    class Callable_:
        def __call__(self, vode: Any, *, rkg: px.RandomKeyGenerator) -> Array:
            return with_rkg(vode, rkg)

    def bound(scale: float, vode: Any, rkg: px.RandomKeyGenerator) -> Array:
        return with_rkg(vode, rkg)

    for energy_fn in (with_rkg, keywords, Callable_(), partial(bound, 2.0), lambda vode: jnp.ones(2)):
        given = rkg
        assert pxc.Vode(energy_fn).set("h", jnp.zeros(2)).energy(rkg).tolist() == [1, 1]
        given = px.RKG
        assert pxc.Vode(energy_fn).set("h", jnp.zeros(2)).energy().tolist() == [1, 1]


def test_the_energy_function_is_looked_at_only_when_asked() -> None:
    vode = pxc.Vode("no function")  # type: ignore[arg-type]  # that is the point
    vode.status = STATUS.INIT
    assert vode(jnp.ones(2)).tolist() == [1, 1]
    with pytest.raises(TypeError, match="no function"):
        vode.energy()


def test_gradients_reach_h_and_u() -> None:
    h, u = draw(0, (4, 3)), draw(1, (4, 3))

    @pxf.grad({"vode": lambda tree: jax.tree.map(lambda _: True, tree, is_leaf=lambda x: isinstance(x, px.Param))})
    def energy(*, vode: Node) -> Array:
        return vode.energy().sum()

    class Given(pxc.Vode[pxc.VodeParam]):
        def __init__(self) -> None:
            super().__init__()
            self.u = px.Param(u)

    grads = energy(vode=Given().set("h", h))["vode"]
    np.testing.assert_allclose(grads.h, h - u, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads.u, u - h, rtol=1e-5, atol=1e-6)


def test_a_frozen_state_is_structure() -> None:
    vode = pxc.Vode()
    assert not vode.h.frozen
    vode.h.frozen = True
    traces: list[None] = []

    @pxf.jit
    def touch(*, vode: Node) -> None:
        traces.append(None)
        assert vode.h.frozen

    touch(vode=vode)
    touch(vode=vode)
    assert len(traces) == 1

"""Value nodes: what is stored where, and the energy of one sample or of each in a batch."""

import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
from minipcax.predictive_coding import STATUS

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


def test_output_names_what_to_return() -> None:
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


def test_get_gives_the_default_for_what_is_absent_or_unset() -> None:
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


def test_a_prediction_for_all_samples() -> None:
    h, u = draw(0, (4, 3)), draw(1, (1, 3))
    np.testing.assert_allclose(pxc.Vode().set("h", h).set("u", u).energy(), (0.5 * (h - u) ** 2).sum(axis=1), rtol=1e-5)


def test_a_raw_vmap_counts_as_outside() -> None:
    shapes = []

    def energy(h: Array, u: Array) -> Array:
        result = pxc.Vode().set("h", h).set("u", u).energy()
        shapes.append(result.shape)
        return result

    jax.vmap(energy)(jnp.ones((4, 3)), jnp.zeros((4, 3)))
    assert shapes == [(3,)]


def test_being_inside_is_part_of_what_decides_a_retrace() -> None:
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
    vode.set("h", jnp.full(2, 2.0))
    assert vode.energy().tolist() == [0.5, 0.5]
    vode.clear_params(px.ParamCache)
    vode.set("u", jnp.zeros(2))
    assert vode.energy().tolist() == [2.0, 2.0]
    assert calls == [vode, vode]


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
    vode = pxc.Vode("no function")  # type: ignore[call-overload]  # that is the point
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

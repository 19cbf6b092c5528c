"""Sharing: the twin has the same parameter objects, and gradients sum over the uses of both."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.dags import occurrences, random_dag
from tests.nn.oracles import normal
from tests.oracles import close

# A layer, and the shape of a sample.
Cases = list[tuple[Callable[[], pxnn.Layer], tuple[int, ...]]]
DRAWN: Cases = [
    (lambda: pxnn.Linear(3, 3), (3,)),
    (lambda: pxnn.Conv(1, 2, 2, 3, padding=1), (2, 4)),
    (lambda: pxnn.Conv1d(2, 2, 3, padding=1), (2, 4)),
    (lambda: pxnn.Conv2d(1, 1, 3, padding=1), (1, 4, 4)),
    (lambda: pxnn.Conv3d(1, 1, 3, padding=1), (1, 2, 2, 2)),
    (lambda: pxnn.ConvTranspose(1, 2, 2, 3, padding=1), (2, 4)),
]
CONSTANT: Cases = [
    (lambda: pxnn.LayerNorm((2, 3)), (2, 3)),
    (lambda: pxnn.BatchNorm(2, "batch", inference=True), (2, 3)),
    (lambda: pxnn.Layer(jax.tree_util.Partial, jnp.add, jnp.ones(3)), (3,)),
]
WITHOUT_WEIGHTS: Cases = [
    (lambda: pxnn.Pool(0.0, jax.lax.add, 1, 3, padding=1), (2, 4)),
    (lambda: pxnn.MaxPool2d(3, padding=1), (1, 4, 4)),
    (lambda: pxnn.AvgPool2d(3, padding=1), (1, 4, 4)),
    (lambda: pxnn.AdaptivePool(4, 1, jnp.mean), (2, 4)),
    (lambda: pxnn.AdaptiveAvgPool2d(4), (1, 4, 4)),
    (lambda: pxnn.AdaptiveMaxPool2d(4), (1, 4, 4)),
    (lambda: pxnn.Dropout(0.0), (3,)),
]
LAYERS = DRAWN + CONSTANT + WITHOUT_WEIGHTS


def params_of(tree: object) -> list[px.BaseParam[Any]]:
    return [*px.tree_extract(tree, filter_fn=lambda param: True)]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_every_layer_shares_every_parameter(make: Callable[[], pxnn.Layer], shape: tuple[int, ...]) -> None:
    a = make()
    b = pxnn.shared(a)
    assert type(b) is type(a)
    assert b is not a
    assert b.nn is not a.nn or isinstance(a.nn, px.StaticParam)
    mine, other = params_of(a), params_of(b)
    assert len(mine) == len(other)
    assert all(one is two for one, two in zip(mine, other, strict=True))
    assert bool(jax.tree.structure(a) == jax.tree.structure(b))  # type: ignore[operator]  # jax
    x = normal(0, shape)
    np.testing.assert_array_equal(a(x), b(x, key=None))


@pytest.mark.parametrize(("make", "shape"), DRAWN + CONSTANT)
def test_gradients_are_summed_and_one_step_is_taken(make: Callable[[], pxnn.Layer], shape: tuple[int, ...]) -> None:
    a = make()
    weights = [param for param in params_of(a) if isinstance(param, pxnn.LayerParam)]
    model = [a, pxnn.shared(a)]
    x = normal(0, shape)
    before = [weight.get() for weight in weights]

    def by_hand(values: list[Any], more: list[Any]) -> jax.Array:
        y, twin = x, copy.deepcopy(a)
        for use in (values, more):
            px.tree_inject(twin, values=use, filter_fn=lambda param: isinstance(param, pxnn.LayerParam))
            y = twin(y)
        return (y**2).sum()

    one, two = jax.jit(jax.grad(by_hand, argnums=(0, 1)))(before, before)

    @pxf.jit()
    @pxf.grad({"model": pxu.M(pxnn.LayerParam)})
    def gradient(x: jax.Array, *, model: list[pxnn.Layer]) -> jax.Array:
        y: jax.Array = model[1](model[0](x))
        return (y**2).sum()

    grads = gradient(x, model=model)["model"]
    optim = pxu.Optim(optax.sgd(0.1), pxu.M(pxnn.LayerParam)(model))
    optim.step(model, grads)
    for weight, value, first, second in zip(weights, before, one, two, strict=True):
        close(weight.get(), value - 0.1 * (first + second), 1e-4)


@pytest.mark.parametrize(("case", "draws"), [(case, case in DRAWN) for case in LAYERS])
def test_keys_are_drawn_only_for_weights(case: tuple[Callable[[], pxnn.Layer], tuple[int, ...]], draws: bool) -> None:
    make, _ = case
    px.RKG.seed(3)
    make()
    key = jax.random.PRNGKey(3)
    np.testing.assert_array_equal(px.RKG.key.get(), jax.random.split(key, 2)[0] if draws else key)


class Block(px.Module):
    """Several layers, a value node, statics, one of them twice, and a weight used twice inside."""

    def __init__(self) -> None:
        super().__init__()
        self.act_fn: px.StaticParam[Callable[[jax.Array], jax.Array]] = px.static(jax.nn.relu)
        self.same = self.act_fn
        self.layers = [pxnn.Linear(3, 3), pxnn.Linear(3, 3)]
        self.layers[1].nn.weight = self.layers[0].nn.weight
        self.parts: dict[str, Any] = {"norm": pxnn.LayerNorm(3), "drop": pxnn.Dropout()}
        self.bn = pxnn.BatchNorm(3, "batch")
        self.vode = pxc.Vode()


def test_a_nested_module() -> None:
    a = Block()
    b = pxnn.shared(a)
    differ = {path for (path, one), (_, two) in zip(occurrences(a), occurrences(b), strict=True) if one is not two}
    assert differ == {".vode.cache"}
    assert b.layers is not a.layers
    assert b.parts["norm"] is not a.parts["norm"]
    b.eval()
    assert not a.is_eval, "the mode is the module's own"
    assert not a.parts["drop"].inference
    b.layers[0].nn.weight.set(jnp.zeros((3, 3)))
    assert float(jnp.abs(a.layers[1].nn.weight.get()).sum()) == 0

    model = [a, b]  # to a transform these are two modules with the same parameters
    pxf.jit()(lambda *, model: model[1].bn.state.set(jax.tree.map(jnp.zeros_like, STATE)))(model=model)
    assert not bool(a.bn.state.get().empty)


STATE = pxnn.BatchNorm(3, "batch").state.get()


def test_with_dynamic_params_statics_are_copied() -> None:
    a = Block()
    b = pxnn.shared(a, filter=px.DynamicParam)
    assert b.act_fn is not a.act_fn
    assert b.act_fn.get() is a.act_fn.get()
    assert b.same is b.act_fn, "a reference inside stays one"
    assert b.layers[1].nn.weight is b.layers[0].nn.weight is a.layers[0].nn.weight
    b.act_fn.set(jnp.tanh)
    assert a.act_fn.get() is jax.nn.relu


@pytest.mark.parametrize(
    "filter",
    [
        pxnn.LayerParam,
        lambda param: isinstance(param, pxnn.LayerParam),
        pxu.M(pxnn.LayerParam),
        pxnn.LayerParam | px.StaticParam,
    ],
)
def test_filters_of_all_kinds(filter: Any) -> None:
    a = Block()
    b = pxnn.shared(a, filter)
    assert b.layers[0].nn.weight is a.layers[0].nn.weight
    assert b.layers[1].nn.weight is b.layers[0].nn.weight
    assert b.bn.state is not a.bn.state
    assert b.vode.h is not a.vode.h
    union = isinstance(filter, type(int | str))
    assert (b.act_fn is a.act_fn) is union


def test_copies_are_independent() -> None:
    a = Block()
    a.vode.set("h", jnp.ones(2))
    a.vode.cache["u"] = jnp.zeros(2)
    b = pxnn.shared(a, pxnn.LayerParam)
    b.vode.cache["u"] = jnp.ones(2)
    b.vode.h.set(None)
    close(a.vode.cache["u"], jnp.zeros(2))
    close(a.vode.h.get(), jnp.ones(2))


class Scratch(px.Param, px.ParamCache):
    """Somebody's own cache."""


class WithCaches(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vode = pxc.Vode()
        self.scratch = Scratch(jnp.ones(2))
        self.scratch.note = "kept"  # type: ignore[attr-defined]  # any attribute may be set
        self.same = self.scratch
        self.deep = {"list": [self.vode.cache]}
        self.vode.cache["u"] = jnp.ones(2)


@pytest.mark.parametrize(
    "filter", [px.BaseParam, px.DynamicParam, px.ParamCache, lambda param: True, pxu.M(None), pxnn.LayerParam]
)
def test_caches_are_never_shared(filter: Any) -> None:
    a = WithCaches()
    b = pxnn.shared(a, filter)
    assert b.vode.cache is not a.vode.cache
    assert type(b.vode.cache) is pxc.VodeParam.Cache
    assert b.vode.cache.get() is None
    assert b.deep["list"][0] is b.vode.cache, "a reference inside stays one"
    assert b.same is b.scratch is not a.scratch
    assert type(b.scratch) is Scratch
    assert (b.scratch.get(), b.scratch.note) == (None, "kept")  # type: ignore[attr-defined]  # the same
    close(a.vode.cache["u"], jnp.ones(2))
    close(a.scratch.get(), jnp.ones(2))


@pytest.mark.parametrize("compiled", [False, True])
def test_two_nodes_with_one_state_have_each_their_own_energy(compiled: bool) -> None:
    a = pxc.Vode()
    nodes = [a, pxnn.shared(a), pxnn.shared(a)]

    def energies(*, nodes: list[pxc.Vode[Any]]) -> list[jax.Array]:
        nodes[0].h.set(jnp.array([1.0]))
        for u, node in enumerate(nodes):
            node(jnp.array([float(u)]))
        return [node.energy().sum() for node in nodes]

    found = (pxf.jit(energies) if compiled else energies)(nodes=nodes)
    assert [float(energy) for energy in found] == [0.5, 0.0, 0.5]
    assert nodes[0].h is nodes[1].h is nodes[2].h
    assert [node.cache["u"].tolist() for node in nodes] == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [(pxnn.Linear, "the class Linear"), ([pxnn.Linear(1, 1)], "a list"), (pxnn.LayerParam(1.0), "a LayerParam")],
)
def test_only_modules_are_shared(wrong: Any, found: str) -> None:
    with pytest.raises(TypeError, match=f"shared expected a module, found {found}; to share one parameter, assign it"):
        pxnn.shared(wrong)


def test_one_parameter_is_shared_by_assignment() -> None:
    a, b = pxnn.Linear(2, 2), pxnn.Linear(2, 2)
    b.nn.weight = a.nn.weight
    x = normal(0, (2,))

    def twice(x: jax.Array, *, a: pxnn.Linear, b: pxnn.Linear) -> jax.Array:
        return (a(x) + b(x)).sum()

    grads = pxf.grad({("a", "b"): pxu.M(pxnn.LayerParam)})(twice)(x, a=a, b=b)
    close(grads["a"].nn.weight.get(), 2 * np.outer(np.ones(2), x))


def test_what_is_not_a_filter_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a class, a union of classes, a predicate or an M"):
        pxnn.shared(pxnn.Linear(1, 1), "LayerParam")  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("seed", range(20))
def test_shared_params_lists_every_path(seed: int) -> None:
    model = random_dag(seed)
    paths: dict[int, list[str]] = {}
    for path, param in occurrences(model):
        if isinstance(param, px.DynamicParam):
            paths.setdefault(id(param), []).append(path)
    assert pxnn.shared_params(model) == {first: others for first, *others in paths.values() if others}
    assert list(pxnn.shared_params(model)) == [first for first, *others in paths.values() if others]
    assert pxnn.shared_params(px.tree_ref(model)) == {}, "placeholders are not parameters"

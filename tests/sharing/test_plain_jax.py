"""Models under plain JAX and optax, which know nothing of sharing: one parameter stays one, and is one leaf.

What is kept is told by `outline`, a walk in plain Python; numbers come from the same done to the list of unique values.
"""

import copy
import pickle
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
import minipcax.utils as pxu
from tests.dags import Block, Group, outline, random_dag, structure, unique

Tree = Any
SEEDS = range(30)
X = jnp.array([1.0, -2.0])


class Net(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = pxnn.Linear(2, 2, rkg=px.RandomKeyGenerator(0))
        self.b = pxnn.shared(self.a)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.b(jnp.tanh(self.a(x)))


def by_hand(weight: jax.Array, bias: jax.Array) -> jax.Array:
    """The sum of the outputs of a Net."""
    return (weight @ jnp.tanh(weight @ X + bias) + bias).sum()


def test_a_tied_layer() -> None:
    model = Net()
    weight, bias = model.a.nn.weight.get(), px.get(model.a.nn.bias)
    assert len(jax.tree.leaves(model)) == 2
    grads = jax.grad(lambda model: model(X).sum())(model)
    expected = jax.grad(by_hand, argnums=(0, 1))(weight, bias)
    np.testing.assert_allclose(grads.a.nn.weight.get(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(grads.a.nn.bias.get(), expected[1], rtol=1e-6)
    assert grads.b.nn.weight is grads.a.nn.weight

    stepped = jax.tree.map(lambda param, grad: param - 0.1 * grad, model, grads)
    stepped_by_hand = weight - 0.1 * expected[0], bias - 0.1 * expected[1]
    np.testing.assert_allclose(stepped(X).sum(), by_hand(*stepped_by_hand), rtol=1e-6)
    stepped.b.nn.weight.set(jnp.zeros((2, 2)))
    assert float(abs(stepped.a.nn.weight.get()).sum()) == 0


def doubled(tree: Tree) -> Tree:
    return jax.tree.map(lambda array: 2 * array, tree)


# Each doubles all values of a model of floats.
OPERATIONS: dict[str, Callable[[Tree], Tree]] = {
    "tree.map": doubled,
    "tree.map of two": lambda tree: jax.tree.map(jnp.add, tree, tree),
    "tree.map with parameters as leaves": lambda tree: jax.tree.map(
        doubled, tree, is_leaf=lambda node: isinstance(node, px.Param) and not isinstance(node.get(), dict)
    ),
    "tree.map with modules as leaves": lambda tree: doubled(
        jax.tree.map(lambda node: node, tree, is_leaf=lambda node: isinstance(node, Group))
    ),
    "tree.map_with_path": lambda tree: jax.tree.map_with_path(lambda path, array: 2 * array, tree),
    "flatten, unflatten": lambda tree: jax.tree.unflatten(structure(tree), [2 * a for a in jax.tree.leaves(tree)]),
    "device_put": lambda tree: doubled(jax.device_put(tree, jax.devices()[0])),
    "jit": jax.jit(doubled),
    "vmap": lambda tree: jax.vmap(lambda _, tree: doubled(tree), (0, None), None)(jnp.zeros(2), tree),
    "jvp": lambda tree: jax.jvp(doubled, (tree,), (tree,))[1],
    "vjp": lambda tree: jax.vjp(doubled, tree)[1](tree)[0],
    "linearize": lambda tree: jax.linearize(doubled, tree)[1](tree),
    "checkpoint": jax.checkpoint(doubled),
    "grad": jax.grad(lambda tree: sum(jnp.sum(array**2) for array in jax.tree.leaves(tree))),
    "scan": lambda tree: jax.lax.scan(lambda carry, _: (doubled(carry), None), tree, None, length=1)[0],
    "fori_loop": lambda tree: jax.lax.fori_loop(0, 1, lambda _, carry: doubled(carry), tree),
    "while_loop": lambda tree: jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (1, doubled(c[1])), (0, tree))[1],
    "cond": lambda tree: jax.lax.cond(True, doubled, lambda tree: tree, tree),
    "switch": lambda tree: jax.lax.switch(1, [lambda tree: tree, doubled], tree),
    "map": lambda tree: jax.tree.map(lambda a: a[0], jax.lax.map(lambda _: doubled(tree), jnp.zeros(1))),
    "pure_callback": lambda tree: jax.pure_callback(doubled, tree, tree),
    "optax.incremental_update": lambda tree: optax.incremental_update(jax.tree.map(lambda a: 3 * a, tree), tree, 0.5),
    "optax.apply_updates": lambda tree: optax.apply_updates(tree, tree),
    "copy": lambda tree: doubled(copy.copy(tree)),
    "deepcopy": lambda tree: doubled(copy.deepcopy(tree)),
    "pickle": lambda tree: doubled(pickle.loads(pickle.dumps(tree))),
    "jit of minipcax, by position": pxf.jit(doubled),
}


def floats(seed: int) -> Block:
    return random_dag(seed, bare=False)


@pytest.mark.parametrize("seeds", [SEEDS[:10], pytest.param(SEEDS[10:], marks=pytest.mark.slow)], ids=["few", "more"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_what_is_shared_is_shared_afterwards(operation: Callable[[Tree], Tree], seeds: range) -> None:
    for seed in seeds:
        model = floats(seed)
        if not jax.tree.leaves(model):
            continue
        before = outline(model)
        values = [param.get() for param in unique(model, px.DynamicParam)]
        found = operation(model)
        assert outline(found) == before
        assert outline(model) == before
        after = [param.get() for param in unique(found, px.DynamicParam)]
        jax.tree.map(lambda one, two: np.testing.assert_allclose(two, 2 * one, rtol=1e-6), values, after)
        assert all(param.get() is value for param, value in zip(unique(model, px.DynamicParam), values, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shared_parameter_is_one_leaf(seed: int) -> None:
    model = floats(seed)
    leaves = [leaf for param in unique(model, px.DynamicParam) for leaf in jax.tree.leaves(param.get())]
    assert all(one is two for one, two in zip(jax.tree.leaves(model), leaves, strict=True))
    assert outline(jax.eval_shape(lambda: floats(seed))) == outline(model)
    assert structure(model) == structure(floats(seed))
    # With parameters as leaves, what stands for a repeat is seen as one by the library's own functions.
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, px.BaseParam))
    assert [id(p) for p in px.tree_extract(nodes, filter_fn=lambda p: True)] == [id(p) for p in unique(model)]
    assert outline(px.tree_unref(px.tree_ref(nodes))) == outline([*all_places(model)])


def all_places(model: Block) -> list[Any]:
    places: list[Any] = []
    px.tree_apply(places.append, lambda node: isinstance(node, px.BaseParam), model)
    return places


def test_the_sum_over_places_is_the_gradient() -> None:
    for seed in SEEDS:
        model = floats(seed)
        params = unique(model, px.Param)

        def loss(tree: Tree) -> Any:
            places = [place for place in all_places(tree) if isinstance(place, px.Param)]
            leaves = ((n + 1, leaf) for n, place in enumerate(places) for leaf in jax.tree.leaves(place.get()))
            return sum((n * jnp.sum(leaf) for n, leaf in leaves), start=jnp.array(0.0))

        grads = jax.grad(loss)(model)
        counts = [id(place) for place in all_places(model) if isinstance(place, px.Param)]
        for param, grad in zip(params, unique(grads, px.Param), strict=True):
            expected = sum(n + 1 for n, place in enumerate(counts) if place == id(param))
            for leaf in jax.tree.leaves(grad.get()):
                np.testing.assert_array_equal(leaf, np.full(np.shape(leaf), float(expected)))


def test_an_optimiser_of_optax_over_a_whole_model() -> None:
    model, adam = Net(), optax.adam(0.1)
    state: Any = adam.init(model)
    weights = [model.a.nn.weight.get(), px.get(model.a.nn.bias)]
    state_by_hand = adam.init(weights)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            updates, state = adam.update(jax.grad(lambda model: model(X).sum())(model), state)
            model = optax.apply_updates(model, updates)
            more, state_by_hand = adam.update([*jax.grad(by_hand, (0, 1))(*weights)], state_by_hand)
            weights = optax.apply_updates(weights, more)
    assert model.b.nn.weight is model.a.nn.weight
    np.testing.assert_allclose(model.a.nn.weight.get(), weights[0], rtol=1e-6)
    assert len(jax.tree.leaves(state)) == 1 + 2 * 2  # the count, and two moments of two arrays


def test_partition_and_combine_of_equinox() -> None:
    eqx = pytest.importorskip("equinox")
    for seed in SEEDS:
        model = floats(seed)
        arrays, rest = eqx.partition(model, eqx.is_inexact_array)
        assert outline(eqx.combine(arrays, rest)) == outline(model)


def test_an_ensemble() -> None:
    models = jax.vmap(lambda seed: jax.tree.map(lambda a: a + seed, Net()))(jnp.arange(3.0))
    assert models.b.nn.weight is models.a.nn.weight
    assert models.a.nn.weight.shape == (3, 2, 2)
    x = jnp.ones(2)
    outputs = jax.vmap(lambda model: model(x))(models)
    for n in range(3):
        alone = jax.tree.map(lambda a, n=n: a[n], models)
        np.testing.assert_allclose(outputs[n], alone(x), rtol=1e-6)
    # A tree with an axis in the place of each parameter fits a model with ties.
    axes = pxu.M(pxnn.LayerParam).to((None, 0))(models)
    np.testing.assert_array_equal(jax.vmap(lambda model: model(x), in_axes=(axes,))(models), outputs)


def test_what_was_untied_stays_untied() -> None:
    model = Net()
    model.b.nn.weight = copy.deepcopy(model.b.nn.weight)
    for found in (jax.tree.map(lambda a: a, model), jax.jit(lambda tree: tree)(model), copy.deepcopy(model)):
        assert found.b.nn.weight is not found.a.nn.weight
        assert found.b.nn.bias is found.a.nn.bias
    with pytest.raises(ValueError, match=r"Tie"):
        jax.tree.map(jnp.add, Net(), model)


def test_in_a_list_two_modules_share_through_functions_of_minipcax_only() -> None:
    a = pxnn.Linear(2, 2)
    pair = [a, pxnn.shared(a)]
    assert len(jax.tree.leaves(pair)) == 4
    assert len(jax.tree.leaves(px.tree_ref(pair))) == 2
    one, two = pxf.jit(lambda pair: pair)(pair)
    assert one.nn.weight is two.nn.weight


def clear_bias(*, layer: pxnn.Linear) -> None:
    px.set(layer.nn.bias, jnp.zeros(2))


def test_what_jax_shows_of_a_module_reaches_the_model() -> None:
    model = Net()
    layers = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, pxnn.Linear))
    weights = [layer.nn.weight for layer in layers]
    assert weights[0] is weights[1] is model.a.nn.weight
    x = jnp.ones(2)
    np.testing.assert_array_equal(layers[1](x), model.b(x))
    layers[1].nn.bias = pxnn.LayerParam(jnp.ones(2))
    assert px.get(model.b.nn.bias).tolist() == [1.0, 1.0]
    # Functions of minipcax take what JAX shows for the module itself.
    assert {*map(id, px.tree_extract(pxu.M(pxnn.LayerParam)(layers[1])))} == {*map(id, px.tree_extract(model.b))}
    pxf.jit(clear_bias)(layer=layers[1])
    assert px.get(model.b.nn.bias).tolist() == [0.0, 0.0]
    other = Group([px.Param(jnp.ones((2, 2))), layers[::-1]])  # which ties what it holds itself
    found = jax.tree.map(lambda a: a, other)
    assert outline(found) == outline(other)
    assert not {*map(id, unique(found))} & {*map(id, unique(other))}


def test_what_stands_for_a_repeat() -> None:
    model = Net()
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, px.BaseParam))
    tie, weight = nodes[2], model.a.nn.weight
    assert repr(tie) == "Tie(.a.nn.weight)"
    assert tie.get() is weight.get()
    assert tie.shape == (2, 2)
    tie.set(jnp.zeros((2, 2)))
    tie.frozen = True
    assert weight.frozen
    assert float(abs(weight.get()).sum()) == 0
    half = jax.tree.unflatten(structure(model), [1.0, 2.0]).b  # a tree that JAX has put together keeps no promise
    assert half.nn.weight.get() == 1.0
    alone = structure(model).children()[1].unflatten([])
    with pytest.raises(ValueError, match=r"tied to \.a\.nn\.weight of a module around it.*give it the whole module"):
        alone.nn.weight.get()

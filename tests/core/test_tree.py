"""References, and the functions that walk a model: on models written by hand, and on random ones."""

import random
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
from minipcax.core.filter import Filter, as_predicate
from minipcax.core.tree import is_param
from tests.dags import Bias, Block, Cache, Group, Weight, occurrences, outline, random_dag, structure, unique

Pair = namedtuple("Pair", ["first", "second"])


def for_seeds(count: int) -> Callable[[Callable[[int], None]], Callable[[range], None]]:
    """A test of every seed, in groups: a test costs more than what it does with one."""

    def grouped(test: Callable[[int], None]) -> Callable[[range], None]:
        def of_group(seeds: range) -> None:
            for seed in seeds:
                test(seed)

        of_group.__name__ = test.__name__
        groups = [range(first, first + 25) for first in range(0, count, 25)]
        grouping = pytest.mark.parametrize("seeds", groups, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
        return grouping(of_group)

    return grouped


def params_of(tree: Any) -> list[px.BaseParam[Any]]:
    return [param for _, param in occurrences(tree)]


def bare_leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_param) if not is_param(leaf)]


def assert_same_objects(found: Any, expected: Any) -> None:
    """The same structure around the very same parameters and bare arrays."""
    assert outline(found) == outline(expected)
    assert all(one is other for one, other in zip(params_of(found), params_of(expected), strict=True))
    assert all(one is other for one, other in zip(bare_leaves(found), bare_leaves(expected), strict=True))


def test_random_models_are_worth_testing() -> None:
    models = [random_dag(seed) for seed in range(300)]
    repeats = [len(params_of(model)) - len(unique(model)) for model in models]
    assert sum(count > 0 for count in repeats) > 200
    assert sum(count == 0 for count in repeats) > 10
    for cls in (px.Param, Weight, Bias, Cache, px.StaticParam):
        assert sum(type(param) is cls for model in models for param in unique(model)) > 100
    assert sum(param.get() is None for model in models for param in unique(model, px.DynamicParam)) > 100
    assert outline(random_dag(7)) == outline(random_dag(7))
    assert outline(random_dag(7)) != outline(random_dag(8))
    # What a transform would refuse: one module reached twice.
    for model in models[:50]:
        modules: list[int] = []
        px.tree_apply(lambda node: modules.append(id(node)), lambda node: isinstance(node, px.BaseModule), model)  # noqa: B023
        assert len(set(modules)) == len(modules)


def test_first_occurrences_stay_and_repeats_become_placeholders() -> None:
    p, q, s = px.Param(1.0), px.ParamDict(), px.static("a")
    first, second, third, again, fourth, fifth = px.tree_ref([p, q, s, p, q, s])
    assert first is p
    assert second is q
    assert third is s
    for position, placeholder in enumerate([again, fourth, fifth]):
        assert isinstance(placeholder, px.BaseParam)
        assert not isinstance(placeholder, (px.DynamicParam, px.StaticParam))
        assert jax.tree.leaves(placeholder) == []
        # Built from the index alone.
        assert placeholder.get() == position
        assert structure(type(placeholder)(position)) == structure(placeholder)
        assert structure(type(placeholder)(position + 1)) != structure(placeholder)


def test_structure_tells_what_is_shared() -> None:
    def sharing(indices: str) -> Any:
        params = {name: px.Param(1.0) for name in "pqr"}
        return structure(px.tree_ref([params[name] for name in indices]))

    kinds = ["ppp", "ppq", "pqp", "pqq", "pqr"]
    assert len({sharing(kind) for kind in kinds}) == len(kinds)
    assert sharing("qqp") == sharing("ppq")


@for_seeds(300)
def test_round_trip(seed: int) -> None:
    model = random_dag(seed)
    before = outline(model)
    ref = px.tree_ref(model)
    assert outline(model) == before

    numbers: dict[int, int] = {}
    for original, found in zip(params_of(model), params_of(ref), strict=True):
        if id(original) in numbers:
            assert found is not original
            assert found.get() == numbers[id(original)]
        else:
            numbers[id(original)] = len(numbers)
            assert found is original
    assert all(one is other for one, other in zip(bare_leaves(ref), bare_leaves(model), strict=True))
    assert_same_objects(px.tree_unref(ref), model)


@for_seeds(300)
def test_nested_round_trip(seed: int) -> None:
    model = random_dag(seed, depth=3)
    once = px.tree_ref(model)
    twice = px.tree_ref(once)
    thrice = px.tree_ref(twice)
    assert_same_objects(px.tree_unref(px.tree_unref(twice)), model)
    assert_same_objects(px.tree_unref(px.tree_unref(px.tree_unref(thrice))), model)
    originals = {id(param) for param in params_of(model)}
    for found, expected in ((px.tree_unref(twice), once), (px.tree_unref(thrice), twice)):
        assert structure(found) == structure(expected)
        pairs = zip(params_of(found), params_of(expected), strict=True)
        assert all(one is other for one, other in pairs if id(other) in originals)


@for_seeds(300)
def test_copies_through_jax_share_as_the_original(seed: int) -> None:
    model = random_dag(seed)
    copy = px.tree_unref(jax.tree.map(lambda leaf: leaf, px.tree_ref(model)))
    assert outline(copy) == outline(model)
    assert not {id(param) for param in params_of(copy)} & {id(param) for param in params_of(model)}
    for param, original in zip(unique(copy, px.DynamicParam), unique(model, px.DynamicParam), strict=True):
        leaves, expected = jax.tree.leaves(param), jax.tree.leaves(original)
        assert len(leaves) == len(expected)
        assert all(one is other for one, other in zip(leaves, expected, strict=True))
    for param, original in zip(unique(copy, px.StaticParam), unique(model, px.StaticParam), strict=True):
        assert param == original


@pytest.mark.parametrize("seed", range(20))
def test_through_a_compiled_function(seed: int) -> None:
    model = random_dag(seed)
    doubled = px.tree_unref(jax.jit(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree))(px.tree_ref(model)))
    assert outline(doubled) == outline(model)
    for found, expected in zip(jax.tree.leaves(doubled), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(found, 2 * np.asarray(expected))


@for_seeds(300)
def test_a_tree_without_repeats_passes_through_untouched(seed: int) -> None:
    model = random_dag(seed, sharing=0.0)
    assert px.tree_ref(model) is model
    assert px.tree_unref(model) is model


@pytest.mark.parametrize("tree", [px.Param(1.0), px.static(1), None, 3, "a", [], {}, (), [None], {"a": px.Param()}])
def test_small_trees_pass_through_untouched(tree: Any) -> None:
    assert px.tree_ref(tree) is tree
    assert px.tree_unref(tree) is tree


def test_placeholders_beside_new_repeats() -> None:
    p, q = px.Param(1.0), px.Param(2.0)
    inner = px.tree_ref([p, p])
    tree: list[Any] = [q, inner, q, p, inner[1]]
    found = px.tree_unref(px.tree_ref(tree))
    assert found[0] is found[2] is q
    assert found[1][0] is found[3] is p
    assert structure(found) == structure(tree)
    assert found[1][1].get() == found[4].get() == 0


def test_a_placeholder_without_its_parameter_is_refused() -> None:
    p, q = px.Param(1.0), px.Param(2.0)
    tree = px.tree_ref([p, q, q])
    with pytest.raises(ValueError, match=r"parameter number 1, but only 1.*whole tree"):
        px.tree_unref([tree[0], tree[2]])


def test_what_a_parameter_holds_is_its_own_affair() -> None:
    inner = px.Param(1.0)
    outer = px.Param([inner, inner, Block([px.Param(2.0)])])
    tree = [outer, inner]
    assert px.tree_ref(tree) is tree
    assert px.tree_unref([px.Param(px.tree_ref([inner, inner]))])[0].get()[1] is not inner
    assert [id(param) for param in px.tree_extract(tree)] == [id(outer), id(inner)]
    visited: list[Any] = []
    px.tree_apply(visited.append, is_param, tree)
    assert [id(param) for param in visited] == [id(outer), id(inner)]
    assert list(Block([outer]).submodules()) == []
    assert repr(Group([px.Param([inner])])) == "Group(\n  .a: Param([Param(1.0)])\n)"


def test_tree_apply_visits_every_node_from_the_root_down() -> None:
    p, q, s = px.Param(1.0), px.ParamDict({"u": 2.0}), px.static("a")
    inner = Block([p])
    tree = {"b": [inner, (q, s)], "a": Pair(p, None), "c": 3.0}
    visited: list[Any] = []
    px.tree_apply(visited.append, lambda node: True, tree)
    expected = [tree, tree["a"], p, None, tree["b"], inner, p, tree["b"][1], q, s, 3.0]  # type: ignore[index]  # a mixed dict
    assert [id(node) for node in visited] == [id(node) for node in expected]


def test_tree_apply_runs_once_per_occurrence() -> None:
    p = px.Param(1.0)
    px.tree_apply(lambda node: node.set(node.get() * 2), is_param, [p, {"a": p}, Block([p])])
    assert p.get() == 8.0


def test_tree_apply_stops_at_a_match_if_asked() -> None:
    deepest = Block([px.Param(1.0)])
    middle = Block([[deepest]])
    tree = [Group([middle]), px.Param(2.0), deepest]
    for recursive, expected in ((True, [middle, deepest, deepest]), (False, [middle, deepest])):
        visited: list[Any] = []
        px.tree_apply(visited.append, lambda node: isinstance(node, Block), tree, recursive)
        assert [id(node) for node in visited] == [id(node) for node in expected]


@for_seeds(100)
def test_tree_apply_on_random_models(seed: int) -> None:
    model = random_dag(seed)
    visited: list[Any] = []
    px.tree_apply(visited.append, lambda node: isinstance(node, Weight), model, recursive=False)
    assert [id(node) for node in visited] == [id(param) for param in params_of(model) if isinstance(param, Weight)]


@for_seeds(300)
def test_tree_extract_gives_each_parameter_once_in_order(seed: int) -> None:
    model = random_dag(seed)
    for tree in (model, px.tree_ref(model)):
        found = px.tree_extract(tree)
        assert isinstance(found, tuple)
        assert [id(param) for param in found] == [id(param) for param in unique(model, px.DynamicParam)]
    for cls in (px.BaseParam, Weight, px.StaticParam):
        found = px.tree_extract(model, filter_fn=as_predicate(cls))
        assert [id(param) for param in found] == [id(param) for param in unique(model, cls)]


def test_tree_extract_without_looking_for_repeats() -> None:
    p, q = px.Param(1.0), px.Param(2.0)
    assert px.tree_extract([q, (p,)], is_pytree=True, extract_fn=px.get) == (2.0, 1.0)
    assert px.tree_extract([p, q, p], is_pytree=True, extract_fn=px.get) == (1.0, 2.0, 1.0)
    assert px.tree_extract([p, q, p], extract_fn=px.get) == (1.0, 2.0)


def test_tree_extract_passes_what_other_trees_hold_there() -> None:
    p, q, s = px.Param(1.0), px.ParamDict(), px.static("a")
    tree = Group([p, [s, q], p])
    names = Group(["x", ["y", {"z": 1}], "w"])
    found = px.tree_extract(tree, names, tree, extract_fn=lambda *nodes: nodes)
    assert len(found) == 2
    for (param, name, again), expected, label in zip(found, (p, q), ("x", {"z": 1}), strict=True):
        assert param is again is expected
        assert name == label


def test_tree_extract_looks_at_parameters_only() -> None:
    tree = [px.Param(1.0), jnp.ones(2), None, "a", Block([]), px.tree_ref([s := px.static(1), s])[1]]
    assert px.tree_extract(tree, filter_fn=lambda node: True) == px.tree_extract(tree[:1])


@for_seeds(300)
def test_tree_inject_writes_in_the_order_in_which_tree_extract_reads(seed: int) -> None:
    model = random_dag(seed)
    values = [object() for _ in unique(model, px.DynamicParam)]
    statics = [param.get() for param in unique(model, px.StaticParam)]
    assert px.tree_inject(model, values=values) is model
    assert [param.get() for param in unique(model, px.DynamicParam)] == values
    assert [param.get() for param in unique(model, px.StaticParam)] == statics

    other = random_dag(seed)
    px.tree_inject(other, params=px.tree_extract(model))
    assert [param.get() for param in unique(other, px.DynamicParam)] == values
    assert not {id(param) for param in unique(other)} & {id(param) for param in unique(model)}


@pytest.mark.parametrize("count", [0, 1, 3, 4])
@pytest.mark.parametrize("given", ["params", "values"])
def test_a_count_that_does_not_match_writes_nothing(count: int, given: str) -> None:
    model = [p := px.Param(1.0), q := px.Param(2.0), p]
    what: Any = {given: [px.Param(9.0) if given == "params" else 9.0] * count}
    with pytest.raises(ValueError, match=rf"expected 2.*number of values {count}"):
        px.tree_inject(model, **what)
    assert (p.get(), q.get()) == (1.0, 2.0)

    px.tree_inject(model, strict=False, **what)
    assert [p.get(), q.get()] == [9.0] * min(count, 2) + [1.0, 2.0][count:]


def test_tree_inject_takes_an_array_of_values() -> None:
    model = [px.Param(), px.Param()]
    px.tree_inject(model, values=jnp.array([3.0, 4.0]))
    assert [float(param) for param in model] == [3.0, 4.0]


def test_tree_inject_selects_and_writes_as_told() -> None:
    weight, bias = Weight(1.0), Bias(2.0)
    log: list[tuple[Any, Any]] = []
    px.tree_inject([bias, weight], values=[5.0], filter_fn=lambda param: isinstance(param, Weight))
    assert (weight.get(), bias.get()) == (5.0, 2.0)
    px.tree_inject([bias, weight], values=[6.0, 7.0], inject_fn=lambda param, value: log.append((param, value)))
    assert log[0][0] is bias
    assert log[1][0] is weight
    assert [value for _, value in log] == [6.0, 7.0]
    assert (weight.get(), bias.get()) == (5.0, 2.0)
    px.tree_inject([bias], params=[px.Param(1.0)], inject_fn=lambda param, value: log.append((param, value)))
    assert type(log[2][1]) is float
    px.tree_inject([bias, bias], values=[8.0, 9.0], is_pytree=True)
    assert bias.get() == 9.0
    px.tree_inject([px.static("a")], values=[])


@pytest.mark.parametrize("given", [{}, {"params": [px.Param(1.0)], "values": [1.0]}], ids=["neither", "both"])
def test_tree_inject_takes_one_of_params_and_values(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"params=.*values="):
        px.tree_inject([px.Param(0.0)], **given)


class Selects:
    def apply(self, leaf: px.BaseParam[Any]) -> bool:
        return isinstance(leaf, Weight)


FILTERS: list[Filter] = [Weight, Weight | Cache, lambda param: type(param) is Weight, Selects()]


@pytest.mark.parametrize("filter", FILTERS, ids=["class", "union", "predicate", "mask"])
def test_filters(filter: Filter) -> None:
    predicate: Callable[[Any], bool] = as_predicate(filter)
    assert predicate(Weight(1.0))
    assert not predicate(Bias(1.0))


def test_what_is_no_filter_is_refused() -> None:
    with pytest.raises(TypeError, match=r"class, a union.*predicate or an M.*'weight'"):
        as_predicate("weight")  # type: ignore[arg-type]  # this is what is tested


def test_models_much_larger_than_others() -> None:
    order = random.Random(0)
    params = [px.Param(float(index)) for index in range(500)]
    model = Group([[order.choice(params) for _ in range(5000)]])
    assert_same_objects(px.tree_unref(px.tree_ref(model)), model)
    assert list(px.tree_extract(model, extract_fn=px.get)) == [param.get() for param in unique(model)]

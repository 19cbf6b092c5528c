"""A compiled function is traced once for each structure; and the walk that is remembered between calls sees all that
moves."""

import gc
import re
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from minipcax.core.trace import in_vmap
from minipcax.functional._memory import _remembered
from tests.functional.support import Head, Holder, Net, Traces, Weight, X, change, check_no_tracer, copied
from tests.oracles import close


def traced() -> tuple[Traces, pxf.Jit[..., Any]]:
    """A compiled function that gives back all values, by path, and counts how often it is traced."""
    traces = Traces()

    @pxf.jit
    def step(*, model: Any) -> Any:
        traces()
        values: list[Any] = []
        px.tree_apply(lambda p: values.append(p.get()), lambda node: isinstance(node, px.DynamicParam), model)
        return values

    return traces, step


def values_of(model: Any) -> list[Any]:
    values: list[Any] = []
    px.tree_apply(lambda p: values.append(copied(p.get())), lambda node: isinstance(node, px.DynamicParam), model)
    return values


class Opaque:
    """Equal to others of its number, and not hashable."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]  # how Python marks it


class Mode(Enum):
    A = 0
    B = 1


# Statements that leave the structure of a model as it is.
SAME = {
    "nothing": "pass",
    "same_values": "model.state.set(model.state.get() + 1.0); model.first.set(np.ones((2, 2), np.float32))",
    "equal_statics": 'model.table["a"].set([1, 2]); model.table["z"].set(float("2"))',
    "replaced_by_equal_statics": 'model.table = {"z": px.static(2.0), "a": px.static([1, 2])}',
    "same_shape_in_place": 'model.cache["u"] = jnp.ones(2)',
    "another_parameter_of_the_same_form": "model.state = State(jnp.array([5.0, 6.0]))",
    "no_mode": "model.mode(None)",
    "there_and_back": "model.state.frozen = True; del model.state.frozen; model.layers.append(model.layers.pop())",
}


def test_a_second_call_uses_the_program_of_the_first() -> None:
    traces = Traces()

    @pxf.jit
    def step(x: jax.Array, *, model: px.Param) -> jax.Array:
        traces()
        return x * model

    model = px.Param(jnp.array(2.0))
    assert float(step(jnp.array(3.0), model=model)) == 6.0
    model.set(jnp.array(5.0))
    assert float(step(jnp.array(3.0), model=model)) == 15.0
    assert traces.count == 1


@pytest.mark.parametrize("statement", SAME.values(), ids=SAME)
def test_the_same_structure_never_retraces(statement: str) -> None:
    traces, step = traced()
    model = Net()
    step(model=model)
    assert traces.new() == 1
    for _ in range(2):
        change(model, statement)
        close(step(model=model), values_of(model))
        assert traces.new() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: 3,
        lambda: 1000 + len("x"),
        lambda: "a" + str(1),
        lambda: (1, "b", (2.0,)),
        lambda: [1, [2]],
        lambda: {"a": [1], "b": {}},
        lambda: None,
        lambda: Mode.A,
        lambda: jnp.tanh,
        lambda: Opaque(1),
        lambda: [Opaque(1), Opaque(2)],
        lambda: frozenset({1, 2}),
        lambda: {1, 2},
        lambda: slice(1, 2),
        lambda: np.float32(2.0),
        lambda: jnp.float32,
    ],
)
def test_statics_are_compared_by_type_and_value(make: Callable[[], Any]) -> None:
    traces, step = traced()
    model = Holder(p=px.Param(X), s=px.static(make()))
    step(model=model)
    step(model=Holder(p=px.Param(X), s=px.static(make())))
    model.s.set(make())
    step(model=model)
    assert traces.new() == 1
    for other in ("other", [7], 3.0, None, True):
        if type(other) is not type(make()) or other != make():
            model.s.set(other)
            step(model=model)
            assert traces.new() == 1
            model.s.set(make())
            step(model=model)
            assert traces.new() == 0


@pytest.mark.parametrize("first, second", [(1, True), (1, 1.0), (2.0, np.float64(2.0)), ("A", Mode.A), (0, False)])
def test_statics_of_different_types_differ(first: Any, second: Any) -> None:
    traces, step = traced()
    model = Holder(s=px.static(first))
    step(model=model)
    model.s.set(second)
    step(model=model)
    assert traces.new() == 2


def test_a_second_model_of_the_same_structure_is_not_traced() -> None:
    traces, step = traced()
    step(model=Net())
    gc.collect()
    for _ in range(3):
        model = Net()
        model.state.set(jnp.array([7.0, 8.0]))
        close(step(model=model), values_of(model))
        del model
        gc.collect()
    assert traces.new() == 1


def test_a_static_without_a_bool_is_refused() -> None:
    class Fuzzy:
        def __eq__(self, other: object) -> Any:
            return np.array([True, False])

        __hash__ = None  # type: ignore[assignment]  # how Python marks it

    _, step = traced()
    model = Holder(s=px.static(Fuzzy()))
    step(model=model)
    model.s.set(Fuzzy())
    with pytest.raises((TypeError, ValueError)) as refusal:
        step(model=model)
    message = str(refusal.value.__cause__ or refusal.value)  # JAX puts words of its own around it
    assert re.search(r"static value needs an == that gives one bool.*Fuzzy.*Param", message)


# Statements that change the structure of a model.
CHANGES = {
    "shape": "model.state.set(jnp.ones(3))",
    "dtype": "model.state.set(jnp.array([1, 2]))",
    "cleared": "model.state.set(None)",
    "filled": "model.cleared.set(X)",
    "cache_cleared": "model.cache.set(None)",
    "cache_emptied": "model.cache.get().clear()",
    "cache_key": 'model.cache["v"] = X',
    "cache_key_renamed": 'model.cache.get()["v"] = model.cache.get().pop("u")',
    "cache_shape": 'model.cache.get()["u"] = jnp.ones(3)',
    "container_in_value": "model.state.set((X, X))",
    "attribute": "model.state.frozen = True",
    "attribute_of_a_shared": 'model.layers[0].weight.note = "here"',
    "attribute_behind_the_back": 'vars(model.cleared)["note"] = 1',
    "static_value": 'model.table["a"].set([1, 3])',
    "static_attribute": 'model.table["a"].note = 1',
    "mode": "model.eval()",
    "mode_below": "model.layers[1].train()",
    "sharing": "model.layers[1].weight = model.first",
    "no_sharing": "model.layers[0].weight = Weight(jnp.zeros((2, 2)))",
    "parameter_class": "model.state = Weight(X)",
    "module_class": "model.layers[0] = Holder(weight=model.first, act_fn=px.static(jnp.tanh))",
    "swapped": "model.layers.reverse()",
    "element_added": "model.layers.append(Head(Weight(jnp.ones((2, 2)))))",
    "element_removed": "model.layers.pop()",
    "element_removed_in_front": "del model.layers[0]",
    "element_replaced_by_none": "model.layers[0] = None",
    "list_by_tuple": "model.layers = tuple(model.layers)",
    "entry_added": 'model.table["b"] = px.static(1)',
    "entry_removed": 'del model.table["z"]',
    "entry_renamed": 'model.table["y"] = model.table.pop("z")',
    "renamed_in_its_place": 'model.table = {"y": model.table["z"], "a": model.table["a"]}',
    "only_entry_renamed": 'table = model.table; table["y"], _ = table.pop("z"), table.pop("a")',
    "last_attribute_renamed": 'model.tables = vars(model).pop("table")',
    "entries_swapped": 'model.table["a"], model.table["z"] = model.table["z"], model.table["a"]',
    "attribute_renamed": "model.renamed = model.state; del model.state",
    "attribute_removed": "del model.cleared",
    "child_added": "model.more = State(X)",
    "child_added_behind_the_back": 'vars(model)["more"] = State(X)',
    "moved_into_a_list": 'model.layers[1:] = []; model.table["more"] = px.static("moved")',
}


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
def test_every_change_of_structure_retraces_once(statement: str) -> None:
    traces, step = traced()
    model = Net()
    step(model=model)
    assert traces.new() == 1
    change(model, statement)
    for _ in range(2):
        close(step(model=model), values_of(model))
    assert traces.new() == 1
    other = Net()
    close(step(model=other), values_of(other))
    assert traces.new() == 0


def test_who_shares_with_whom_is_structure() -> None:
    traces, step = traced()
    p, q = px.Param(X), px.Param(X)
    for children in ([p, p], [p, q], [q, p, p], [p, q, p], [p, p, q]):
        step(model=Holder(children=children))
        assert traces.new() == 1
    step(model=Holder(children=[q, q]))
    step(model=Holder(children=[q, p]))
    assert traces.new() == 0


def test_moving_elements_between_lists_is_noticed() -> None:
    traces, step = traced()
    a, b, c = (px.Param(jnp.array(float(i))) for i in range(3))
    model = Holder(first=[a, b], second=[c], empty=[])

    @pxf.jit
    def lengths(*, model: Holder) -> Any:
        traces()
        return [len(model.first), len(model.second), len(model.empty)]

    assert lengths(model=model) == [2, 1, 0]
    model.second.insert(0, model.first.pop())
    assert lengths(model=model) == [1, 2, 0]
    model.empty.append(model.first.pop())
    assert lengths(model=model) == [0, 2, 1]
    model.empty.append(model.second.pop(0))
    assert lengths(model=model) == [0, 1, 2]
    assert traces.new() == 4
    close(step(model=model), values_of(model))


def test_what_is_empty_and_what_is_not_cannot_be_confused() -> None:
    traces = Traces()

    @pxf.jit
    def total(*, model: Holder) -> Any:
        traces()
        return sum([p.get() for p in model.entries.values()], jnp.zeros(())) + len(model.numbers)

    # An entry moves to where the walk would next have found the same object.
    model = Holder(entries={}, numbers=[1])
    assert float(total(model=model)) == 1.0
    model.entries[1] = px.Param(jnp.array(10.0))
    model.numbers.pop()
    assert float(total(model=model)) == 10.0
    del model.entries[1]
    model.numbers.append(1)
    assert float(total(model=model)) == 1.0
    assert traces.new() == 2


def test_replaced_parameters_get_the_writes() -> None:
    @pxf.jit
    def step(*, model: Holder) -> None:
        for p in px.tree_extract(model):
            p += 1.0

    model = Holder(p=px.Param(jnp.array(0.0)), ps=[px.Param(jnp.array(0.0))], d={"a": px.Param(jnp.array(0.0))})
    old = px.tree_extract(model)
    step(model=model)
    model.p = new_p = px.Param(jnp.array(10.0))
    model.ps[0] = new_in_list = px.Param(jnp.array(10.0))
    model.d["a"] = new_in_dict = px.Param(jnp.array(10.0))
    step(model=model)
    assert [float(p) for p in old] == [1.0, 1.0, 1.0]
    assert [float(p) for p in (new_p, new_in_list, new_in_dict)] == [11.0, 11.0, 11.0]
    vars(model)["p"] = old[0]
    model.ps[:] = [old[1]]
    model.d.update(a=old[2])
    step(model=model)
    assert [float(p) for p in old] == [2.0, 2.0, 2.0]


def test_a_submodule_and_its_parameters_may_be_replaced() -> None:
    @pxf.jit
    def step(*, model: Net) -> None:
        model.layers[0].weight *= 2.0

    model = Net()
    step(model=model)
    model.layers[0] = Head(Weight(jnp.ones((2, 2))))
    step(model=model)
    close(model.layers[0].weight.get(), 2 * np.ones((2, 2)))
    close(model.first.get(), np.array([[2.0, 4.0], [6.0, 8.0]]))


def test_bare_arrays_of_a_model_may_be_replaced() -> None:
    traces = Traces()

    @pxf.jit
    def read(*, model: Holder) -> Any:
        traces()
        return model.x * model.ys[0]

    model = Holder(x=jnp.array(2.0), ys=[3.0])
    assert float(read(model=model)) == 6.0
    model.x = jnp.array(4.0)
    assert float(read(model=model)) == 12.0
    model.ys[0] = 5.0
    assert float(read(model=model)) == 20.0
    assert traces.new() == 1
    model.ys[0] = jnp.ones(2)
    assert read(model=model).tolist() == [4.0, 4.0]
    assert traces.new() == 1


def test_several_keywords_in_any_order() -> None:
    traces = Traces()

    @pxf.jit
    def step(x: float, *, a: Net, b: Net, scale: Any) -> Any:
        traces()
        return a.state * scale + b.state * x

    a, b = Net(), Net()
    b.state.set(jnp.array([10.0, 20.0]))
    for scale in (1.0, 2.0):
        close(step(0.5, a=a, b=b, scale=scale), np.array([scale + 5.0, -scale + 10.0]))
        close(step(0.5, scale=scale, b=b, a=a), np.array([scale + 5.0, -scale + 10.0]))
        close(step(0.5, scale=scale, b=a, a=b), np.array([10 * scale + 0.5, 20 * scale - 0.5]))
    assert traces.new() == 1
    a.layers[0].weight = b.first
    step(0.5, a=a, b=b, scale=1.0)
    assert traces.new() == 1
    step(0.5, a=a, b=b, scale=None if False else jnp.array([1.0, 2.0]))
    assert traces.new() == 1


def test_the_same_values_under_other_keywords() -> None:
    @pxf.jit
    def step(**models: Any) -> Any:
        return {name: None if model is None else model.state.get() for name, model in models.items()}

    a, b = Net(), Net()
    b.state.set(jnp.array([10.0, 20.0]))
    close(step(a=a, b=b), {"a": np.array([1.0, -1.0]), "b": np.array([10.0, 20.0])})
    close(step(a=b, b=a), {"b": np.array([1.0, -1.0]), "a": np.array([10.0, 20.0])})
    assert step(a=None, b=a)["a"] is None
    assert step(a=a)["a"].tolist() == [1.0, -1.0]

    plain = pxf.jit(lambda *, model, x: model.state.get() if x is None else x)
    for x in (None, 2.0, None, 3.0):
        close(plain(model=a, x=x), np.array([1.0, -1.0]) if x is None else np.array(x))


def test_an_inner_function_is_traced_once_for_all_outer_ones() -> None:
    traces, step = traced()
    first = pxf.jit(lambda *, model: step(model=model))
    second = pxf.jit(lambda *, model: (step(model=model), 1.0))
    model = Net()
    for fn in (first, second, step, pxf.jit(pxf.jit(lambda *, model: step(model=model)))):
        fn(model=model)
    assert traces.new() == 1


def test_inside_a_vmap_is_traced_anew_and_once() -> None:
    traces, step = traced()
    model = Net()
    mapped = pxf.vmap({"model": None}, in_axes=0, out_axes=None)(lambda x, *, model: step(model=model))
    step(model=model)
    assert traces.new() == 1
    for _ in range(2):
        mapped(X, model=model)
    assert traces.new() == 1
    step(model=model)
    assert traces.new() == 0


def test_names_alone_are_noticed() -> None:
    p = px.Param(X)
    model = Holder(table={"a": p})
    names = pxf.jit(lambda *, model: {name: p.get() for name, p in model.table.items()})
    assert list(names(model=model)) == ["a"]
    model.table["b"] = model.table.pop("a")
    assert list(names(model=model)) == ["b"]
    model.first = p
    attributes = pxf.jit(lambda *, model: {name: p.get() for name, p in vars(model).items() if name != "table"})
    assert list(attributes(model=model)) == ["first"]
    model.second = model.first
    del model.first
    assert list(attributes(model=model)) == ["second"]


def test_a_model_of_the_outside_read_inside_a_vmap() -> None:
    model = Net()

    @pxf.jit
    def sees_a_sample(*, model: Net) -> jax.Array:
        return jnp.array(in_vmap())

    assert not sees_a_sample(model=model)
    assert pxf.vmap()(lambda x: sees_a_sample(model=model))(X).all()
    assert not sees_a_sample(model=model)


def test_positional_arguments_retrace_as_in_jax() -> None:
    traces = Traces()

    @pxf.jit
    def step(p: px.Param, *, model: Net) -> Any:
        traces()
        return p * 2.0

    model = Net()
    step(px.Param(jnp.ones(2)), model=model)
    step(px.Param(jnp.zeros(2)), model=model)
    assert traces.new() == 1
    step(px.Param(jnp.zeros(3)), model=model)
    assert traces.new() == 1


def roots() -> list[Any]:
    return [ref() for _, _, alive in _remembered.values() for ref in alive]


def test_models_are_remembered_weakly() -> None:
    _, step = traced()
    gc.collect()
    before = len(_remembered)
    model, other = Net(), Net()

    @pxf.jit
    def both(*, a: Net, b: Net) -> Any:
        return a.state + b.state

    step(model=model)
    both(a=model, b=other)
    pxf.vmap({"model": None}, in_axes=0)(lambda x, *, model: x)(X, model=model)
    pxf.value_and_grad({"model": None})(lambda *, model: model.state.sum())(model=model)
    assert any(root is model for root in roots())
    dead = weakref.ref(model), weakref.ref(model.first), weakref.ref(model.layers[0]), weakref.ref(other.state)
    array = weakref.ref(model.state.get())
    del model
    gc.collect()
    assert [ref() is None for ref in dead] == [True, True, True, False]
    assert array() is None
    assert not any(root is None for root in roots())
    del other
    gc.collect()
    assert dead[-1]() is None
    assert len(_remembered) == before


def test_the_copies_of_a_trace_are_not_remembered() -> None:
    gc.collect()
    before = len(_remembered)
    _, step = traced()
    nested = pxf.jit(pxf.value_and_grad({"model": None})(lambda *, model: step(model=model)[0].sum()))
    model = Net()
    for _ in range(3):
        nested(model=model)
        model.eval()
    gc.collect()
    assert len(_remembered) == before + 1
    check_no_tracer()


def test_a_replaced_part_is_not_held_after_the_next_call() -> None:
    _, step = traced()
    model = Net()
    step(model=model)
    dead = weakref.ref(model.layers[0])
    model.layers[0] = Head(model.first)
    step(model=model)
    gc.collect()
    assert dead() is None


def test_a_model_may_take_the_place_of_a_dead_one_in_memory() -> None:
    _, step = traced()
    reused = 0
    addresses: set[int] = set()
    for number in range(200):
        model = Holder(p=px.Param(jnp.array(float(number))), ps=[px.Param(jnp.ones(number % 3))])
        reused += id(model) in addresses
        addresses.add(id(model))
        close(step(model=model), [np.array(float(number)), np.ones(number % 3)])
        del model
    assert reused  # or nothing was tested


def test_a_compiled_method_does_not_keep_itself_alive() -> None:
    model = Net()
    compiled = pxf.jit(model.__call__)
    compiled(X)
    dead = weakref.ref(compiled), weakref.ref(model)
    del compiled, model
    gc.collect()
    assert [ref() for ref in dead] == [None, None]


@pytest.mark.thorough
def test_random_mutations_are_all_seen() -> None:
    random = np.random.default_rng(0)
    params = [px.Param(jnp.array(float(number))) for number in range(6)]
    model = Holder(first=[], second=[], table={}, inner=Holder(), last=[])

    @pxf.jit
    def read(*, model: Holder) -> Any:
        return {name: value for name, value in vars(model).items() if not name.startswith("_")}

    def attributes(node: Any) -> dict[str, Any]:
        return {name: value for name, value in vars(node).items() if not name.startswith("_")}

    def plain(node: Any) -> Any:
        if isinstance(node, px.Param):
            return float(node)
        if isinstance(node, Holder):
            return {name: plain(value) for name, value in attributes(node).items()}
        if isinstance(node, dict):
            return {name: plain(value) for name, value in node.items()}
        return [plain(value) for value in node] if isinstance(node, (list, tuple)) else float(node)

    for _ in range(150):
        param, name = params[random.integers(6)], "xyz"[random.integers(3)]
        lists = [model.first, model.second, model.last]
        target = lists[random.integers(3)]
        kind = random.integers(8)
        if kind == 0:
            target.append(param)
        elif kind == 1 and target:
            lists[random.integers(3)].insert(0, target.pop())
        elif kind == 2:
            target.reverse()
        elif kind == 3:
            model.table[name] = param
        elif kind == 4:
            model.table.pop(name, None)
        elif kind == 5:
            setattr(model.inner, name, param)
        elif kind == 6 and hasattr(model.inner, name):
            delattr(model.inner, name)
        else:
            param.set(jnp.array(float(random.integers(100))))
        if len(target) > 3:
            target.clear()
        assert plain(read(model=model)) == {name: plain(value) for name, value in attributes(model).items()}

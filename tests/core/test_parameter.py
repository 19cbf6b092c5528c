"""The box: what every parameter is, statics, and `get` and `set`."""

import copy
import math
import pickle
from collections.abc import Callable
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_leaves_with_path

import minipcax as px
from tests.dags import Cache, Weight, structure


class Plain(px.DynamicParam[Any]):
    pass


class Special(Weight):
    """A parameter with a constructor of its own, which JAX must not go through."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(jnp.ones((rows, columns)))


class Activation(Enum):
    RELU = "relu"
    TANH = "tanh"


def parameters() -> dict[str, px.BaseParam[Any]]:
    return {
        "Plain": Plain(jnp.ones(2)),
        "Param": px.Param(jnp.ones(2)),
        "cleared": px.Param(),
        "pytree": px.Param({"a": jnp.ones(2), "b": (jnp.zeros(3), None)}),
        "Weight": Weight(jnp.ones(())),
        "Special": Special(2, 3),
        "RKGState": px.RKGState(jax.random.PRNGKey(3)),
        "RKG": px.RKG.key,
        "ParamDict": px.ParamDict({"u": jnp.ones(2)}),
        "cleared ParamDict": px.ParamDict(),
        "Cache": Cache({"u": jnp.ones(2), "h": jnp.zeros(3)}),
        "static": px.static(Activation.RELU),
        "static list": px.static([1, {"a": "b"}]),
        "placeholder": px.tree_ref([p := px.Param(1.0), p])[1],
    }


EVERY = pytest.mark.parametrize("name", parameters())


def equal(found: Any, expected: Any) -> bool:
    """Whether two pytrees have the same structure and the same numbers."""
    if structure(found) != structure(expected):
        return False
    return all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected)))


@EVERY
def test_holds_one_value(name: str) -> None:
    param = parameters()[name]
    other = jax.random.PRNGKey(5)
    assert isinstance(param, px.BaseParam)
    assert param.set(other) is param
    assert param.get() is other


def test_the_root_is_abstract() -> None:
    with pytest.raises(TypeError, match=r"abstract.*Param.*static"):
        px.BaseParam(1.0)


@EVERY
def test_is_a_pytree_of_its_value(name: str) -> None:
    param = parameters()[name]
    expected = jax.tree.leaves(param.get()) if isinstance(param, px.DynamicParam) else []
    leaves = jax.tree.leaves(param)
    assert [id(leaf) for leaf in leaves] == [id(leaf) for leaf in expected]

    rebuilt = jax.tree.unflatten(structure(param), leaves)
    assert type(rebuilt) is type(param)
    assert rebuilt is not param
    assert structure(rebuilt) == structure(param)
    assert hash(structure(rebuilt)) == hash(structure(param))
    assert equal(rebuilt.get(), param.get())


def test_a_copy_can_be_used_with_the_original_in_one_tree_map() -> None:
    for param in parameters().values():
        jax.tree.map(lambda a, b: None, param, jax.tree.map(lambda leaf: leaf, param))


def test_a_subclass_is_a_pytree_when_defined() -> None:
    class Fresh(px.DynamicParam[Any]):
        pass

    class Fresher(Fresh, px.ParamCache):
        pass

    for cls in (Fresh, Fresher):
        doubled = jax.tree.map(lambda leaf: 2 * leaf, [cls(3), cls(None)])
        assert [type(param) for param in doubled] == [cls, cls]
        assert [param.get() for param in doubled] == [6, None]


def test_key_path_of_the_value() -> None:
    tree = [px.Param(1.0), px.ParamDict({"u": 2.0}), px.Param((3.0, 4.0)), px.static(5.0), px.Param()]
    paths = {keystr(path): leaf for path, leaf in tree_leaves_with_path(tree)}
    assert paths == {"[0].value": 1.0, "[1].value['u']": 2.0, "[2].value[0]": 3.0, "[2].value[1]": 4.0}


@pytest.mark.parametrize("name", [name for name in parameters() if name != "placeholder"])  # that is its index alone
def test_attributes_are_structure(name: str) -> None:
    param: Any = parameters()[name]
    plain = structure(param)
    param.frozen = True
    param.tags = ["a", {"b": 1}]  # not hashable
    mapped = jax.tree.map(lambda leaf: leaf, param)
    assert mapped.frozen is True
    assert mapped.tags == ["a", {"b": 1}]
    assert len(jax.tree.leaves(param)) == plain.num_leaves
    assert structure(param) != plain
    assert structure(param) == structure(mapped)
    assert hash(structure(param)) == hash(structure(mapped))


def test_attributes_are_the_same_in_any_order_and_differ_by_name_value_and_type() -> None:
    def made(**attributes: object) -> Any:
        param = px.Param(1.0)
        for name, value in attributes.items():
            setattr(param, name, value)
        return structure(param)

    assert made(a=1, b=2) == made(b=2, a=1)
    others = [made(), made(a=1), made(b=1), made(a=2), made(a=1.0), made(a=True), made(a="1"), made(a=[1]), made(a=[2])]
    assert all(first != second for i, first in enumerate(others) for second in others[:i])


def test_an_attribute_of_a_copy_is_not_one_of_the_original() -> None:
    param = px.Param(1.0)
    mapped = jax.tree.map(lambda leaf: leaf, param)
    mapped.frozen = True
    assert not param.frozen


@EVERY
@pytest.mark.parametrize(
    "test",
    [bool, lambda p: not p, lambda p: p and 1, lambda p: p or 1, lambda p: 1 if p else 2],
    ids=["bool", "not", "and", "or", "if"],
)
def test_truth_is_refused(name: str, test: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"can not be used as Python bool.*is None"):
        test(parameters()[name])


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle protocol 2": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
}
EVERY_COPY = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
DEEP_COPY = pytest.mark.parametrize("copied", list(COPIES.values())[1:], ids=list(COPIES)[1:])


@EVERY
@EVERY_COPY
def test_copies_are_of_the_same_class(name: str, copied: Callable[[Any], Any]) -> None:
    param: Any = parameters()[name]
    param.frozen = True
    found = copied(param)
    assert type(found) is type(param)
    assert found is not param
    assert found.frozen is True
    assert equal(found.get(), param.get())
    assert structure(found) == structure(param)

    del found.frozen
    assert param.frozen is True


@DEEP_COPY
def test_deep_copies_keep_sharing(copied: Callable[[Any], Any]) -> None:
    p, q, s = Weight(jnp.ones(2)), Cache({"u": jnp.ones(2)}), px.static("relu")
    a, (b, c), d, e, f = copied([p, (p, q), q, s, s])
    assert a is b
    assert c is d
    assert e is f
    a += 1
    assert b.get().tolist() == [2.0, 2.0]
    assert p.get().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.relu, jax.nn.gelu, len, jax.jit(len)])
def test_a_deep_copy_has_the_same_functions(function: Any) -> None:
    s = px.static(function)
    assert copy.deepcopy(s).get() is function
    assert structure(copy.deepcopy([s, s])) == structure([s, s])


def test_a_deep_copy_has_other_lists() -> None:
    s = px.static([1])
    copied = copy.deepcopy(s)
    copied.get().append(2)
    assert s == [1]


def test_a_copy_shares_the_value_and_a_deep_copy_does_not() -> None:
    values = {"u": jnp.ones(2)}
    param = px.ParamDict(values)
    assert copy.copy(param).get() is values
    assert copy.deepcopy(param).get() is not values


class Odd:
    """Says yes to every name."""

    def __getattr__(self, name: str) -> str:
        return name

    def method(self) -> int:
        return 7


@pytest.mark.parametrize("make", [px.Param, px.static], ids=["Param", "static"])
def test_special_names_are_not_forwarded(make: Callable[[Any], Any]) -> None:
    param = make(Odd())
    assert param.anything == "anything"
    assert param.method() == 7
    for name in ("__wrapped__", "__array_interface__", "__cuda_array_interface__", "__dlpack__", "__copy__"):
        assert not hasattr(param, name)
        with pytest.raises(AttributeError, match=name):
            getattr(param, name)


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (px.Param(jnp.ones((3, 4))), "Param([3,4], float32)"),
        (Weight(jnp.ones((3, 4))), "Weight([3,4], float32)"),
        (Weight(jnp.ones((3,), jnp.int32)), "Weight([3], int32)"),
        (Weight(jnp.array(True)), "Weight([], bool)"),
        (Weight(np.ones((2, 0), np.float16)), "Weight([2,0], float16)"),
        (px.Param(None), "Param(None)"),
        (px.Param(1.5), "Param(1.5)"),
        (px.Param((1, None)), "Param((1, None))"),
        (px.ParamDict(), "ParamDict(None)"),
        (Cache({"u": 1}), "Cache({'u': 1})"),
        (px.static("relu"), "StaticParam('relu')"),
        (px.RKGState(jax.random.PRNGKey(0)), "RKGState([2], uint32)"),
    ],
    ids=repr,
)
def test_repr(param: px.BaseParam[Any], expected: str) -> None:
    assert repr(param) == expected


def test_repr_inside_a_trace() -> None:
    seen: list[str] = []

    @jax.jit
    def f(x: jax.Array) -> jax.Array:
        seen.append(repr(Weight(x)))
        return x

    f(jnp.ones((2, 3)))
    assert seen == ["Weight([2,3], float32)"]


STATICS: list[Any] = [
    *(None, True, 1, 1.0, 2, "a", "", b"a", (1,), (), [1], [], {"a": 1}, {"a": 2}, {}, {1, 2}),
    *(Activation.RELU, Activation.TANH, Activation, jnp.tanh, jnp.sin, len, math, [{"a": [1]}], ([1],), lambda: None),
]


def test_statics_are_structure_and_the_same_when_type_and_value_are() -> None:
    structures = [structure(px.static(value)) for value in STATICS]
    for i, value in enumerate(STATICS):
        assert jax.tree.leaves(px.static(value)) == []
        # Functions and modules are equal to nothing but themselves; all else here to a copy, too.
        twin = value if callable(value) or value is math else copy.deepcopy(value)
        assert structure(px.static(twin)) == structures[i]
        assert hash(structure(px.static(twin))) == hash(structures[i])
        assert hash(px.static(twin).structure()) == hash(px.static(value).structure())
        assert all(other != structures[i] for j, other in enumerate(structures) if j != i)


def test_a_static_that_changes_retraces_and_an_equal_one_does_not() -> None:
    traces = 0

    @jax.jit
    def f(x: jax.Array, s: px.StaticParam[list[int]]) -> jax.Array:
        nonlocal traces
        traces += 1
        return x * sum(s)

    s = px.static([1, 2])
    for value, factor, expected in [([1, 2], 3, 1), ([1, 2], 3, 1), ([4], 4, 2), ([1, 2], 3, 2)]:
        s.set(value)
        assert f(jnp.array(2.0), s) == 2.0 * factor
        assert traces == expected


def test_what_a_trace_does_to_a_static_does_not_escape() -> None:
    def f(x: jax.Array, s: px.StaticParam[str]) -> jax.Array:
        s.set("inside")
        return x

    s = px.static("outside")
    jax.jit(f)(jnp.ones(1), s)
    assert s == "outside"


def test_static_is_idempotent() -> None:
    s = px.static("a")
    assert px.static(s) is s
    assert isinstance(s, px.StaticParam)
    assert not isinstance(s, px.DynamicParam)
    assert px.StaticParam("a") == s


def test_static_forwards_to_its_value() -> None:
    assert px.static(jnp.maximum)(1.0, 2.0) == 2.0
    assert px.static(jnp.clip)(5.0, max=3.0) == 3.0
    assert px.static("relu").upper() == "RELU"  # type: ignore[attr-defined]  # hidden from type checkers
    assert px.static(Activation.TANH).name == "TANH"  # type: ignore[attr-defined]  # the same
    items = px.static({"b": 1, "a": 2})
    assert list(items) == ["b", "a"]
    assert len(items) == 2
    assert "a" in items
    assert "c" not in items
    assert items["b"] == 1
    assert px.static([4, 5, 6])[1:] == [5, 6]
    assert items == {"b": 1, "a": 2}
    assert items == px.static({"a": 2, "b": 1})
    assert items != {"b": 1}
    assert px.static(None) == None  # noqa: E711  # this is what is tested
    assert px.static("a") in ["b", "a"]
    assert {"a": 1}[px.static("a")] == 1  # type: ignore[index]  # hashed as its value


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda s: s(), TypeError),
        (lambda s: s.foo, AttributeError),
        (lambda s: iter(s), TypeError),
        (lambda s: len(s), TypeError),
        (lambda s: 1 in s, TypeError),
        (lambda s: s[0], TypeError),
    ],
    ids=["call", "attribute", "iter", "len", "in", "index"],
)
def test_static_fails_as_its_value_does(use: Callable[[Any], object], error: type[Exception]) -> None:
    for value in (3, px.static(3)):
        with pytest.raises(error, match="int"):
            use(value)


@pytest.mark.parametrize(
    "value", [jnp.ones(2), np.ones(2), px.Param(1.0), px.ParamDict()], ids=["jax", "numpy", "Param", "ParamDict"]
)
def test_static_refuses_what_jax_must_trace(value: object) -> None:
    with pytest.raises(TypeError, match=rf"{type(value).__name__}.*Param"):
        px.static(value)


@pytest.mark.parametrize("value", [[np.ones(2)], {"a": np.ones(2)}], ids=["list", "dict"])
def test_a_static_without_one_bool_for_an_answer_says_so(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as info:
        assert structure(px.static(value)) == structure(px.static(copy.deepcopy(value)))
    messages = []
    error: BaseException | None = info.value
    while error is not None:  # JAX wraps what is raised while it compares
        messages.append(str(error))
        error = error.__cause__
    assert any("== that gives one bool" in message and "Param" in message for message in messages)


@pytest.mark.parametrize(
    ("one", "other"), [([0, 1], [False, True]), ({"a": 1}, {"a": 1.0}), ((1, [2]), (1, (2,))), ({1, "a"}, {True, "a"})]
)
def test_statics_of_other_types_are_not_the_same(one: Any, other: Any) -> None:
    """Also inside, where Python calls them equal."""
    assert structure(px.static(one)) == structure(px.static(copy.deepcopy(one)))
    assert structure(px.static(one)) != structure(px.static(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1, "b": "x"}, {"b": "x", "a": 1}), ({0, 8, 1.5}, {8, 1.5, 0}), ({8, 0.0, 16}, {16, 0.0, 8})],
)
def test_a_dict_or_a_set_in_another_order_is_the_same(one: Any, other: Any) -> None:
    assert structure(px.static(one)) == structure(px.static(other))


def test_get_unwraps_parameters_only() -> None:
    value = jnp.ones(2)
    values = {"u": value}
    assert px.get(px.Param(value)) is value
    assert px.get(px.ParamDict(values)) is values
    assert px.get(px.static("a")) == "a"
    assert px.get(px.Param()) is None
    for thing in (value, values, "a", None, [px.Param(value)], px.Module()):
        assert px.get(thing) is thing


@pytest.mark.parametrize("wrap", [lambda x: x, px.Param], ids=["bare", "Param"])
def test_set_writes_into_parameters_and_returns_the_value_for_all_else(wrap: Callable[[Any], Any]) -> None:
    old, new = jnp.zeros(2), jnp.ones(2)
    for param in (px.Param(old), Plain(old), px.Param()):
        assert px.set(param, wrap(new)) is param
        assert param.get() is new
    for thing in (old, None, "a", [px.Param(old)]):
        assert px.set(thing, wrap(new)) is new
    assert px.set(px.static("a"), px.static("b")) == "b"


def test_a_parameter_is_set_to_what_another_holds_and_not_to_it() -> None:
    value = jnp.ones(2)
    first, second = px.Param(value), px.Param()
    second.set(first)
    assert second.get() is value
    assert px.Param(first).get() is value
    first.set(None)
    assert second.get() is value


def test_a_static_function_may_name_one_that_is_defined_later() -> None:
    first = px.static(lambda x: later(x))

    def later(x: int) -> int:
        return x + 1

    assert first(1) == 2

"""The rule language: what the contract says of each kind of rule."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.predictive_coding as pxc
from minipcax.predictive_coding import STATUS

Rules = dict[str | None, tuple[str, ...]]


def double(vode: Any, key: str, value: Any, rkg: px.RandomKeyGenerator) -> Any:
    return 2 * value


def increment(vode: Any, key: str, value: Any, rkg: px.RandomKeyGenerator) -> Any:
    return value + 1


TFORMS = {"double": double, "increment": increment}


def node(rules: Rules, status: str | None = None, tforms: Any = TFORMS) -> pxc.Vode[pxc.VodeParam]:
    vode = pxc.Vode(None, rules, tforms)
    vode.status = status
    return vode


def entries(vode: pxc.Vode[pxc.VodeParam], keys: str = "h u a b") -> dict[str, float]:
    values = {key: vode.get(key) for key in keys.split()}
    return {key: float(value) for key, value in values.items() if value is not None}


ONE = jnp.array(1.0)

INPUTS: dict[str, tuple[Rules, str | None, str, dict[str, float]]] = {
    "the built-in rule": ({}, STATUS.INIT, "u", {"h": 1, "u": 1}),
    "the built-in rule is only for its status": ({}, None, "u", {"u": 1}),
    "and for the whole of it": ({}, "initial", "u", {"u": 1}),
    "without a rule, its own name": ({}, STATUS.INIT, "a", {"a": 1}),
    "the built-in rule stays": ({STATUS.ALL: ("a <- a:double",)}, STATUS.INIT, "u", {"h": 1, "u": 1}),
    "it is replaced": ({STATUS.INIT: ("a <- u",)}, STATUS.INIT, "u", {"a": 1}),
    "even by nothing": ({STATUS.INIT: ()}, STATUS.INIT, "u", {"u": 1}),
    "a rule alone decides": ({STATUS.ALL: ("a <- u",)}, None, "u", {"a": 1}),
    "several targets": ({STATUS.ALL: ("h, a,b <- u",)}, None, "u", {"h": 1, "a": 1, "b": 1}),
    "a transformation": ({STATUS.ALL: ("u <- u:double",)}, None, "u", {"u": 2}),
    "a chain, left to right": ({STATUS.ALL: ("u<-u:increment : double",)}, None, "u", {"u": 4}),
    "every rule fires": ({STATUS.ALL: ("a <- u", "b <- u:double")}, None, "u", {"a": 1, "b": 2}),
    "in order": ({STATUS.ALL: ("a <- u:double", "a <- u")}, None, "u", {"a": 1}),
    "in order of statuses": ({STATUS.ALL: ("a <- u:double",), "x": ("a <- u",)}, "x", "u", {"a": 1}),
    "also with an own INIT": ({STATUS.ALL: ("u <- u:double",), STATUS.INIT: ("u <- u",)}, STATUS.INIT, "u", {"u": 1}),
    "the built-in rule comes first": ({STATUS.ALL: ("u <- u:double",)}, STATUS.INIT, "u", {"h": 1, "u": 2}),
    "keys match whole": ({STATUS.ALL: ("b <- ab", "b <- u")}, None, "a", {"a": 1}),
    "STATUS.ALL matches every status": ({STATUS.ALL: ("a <- u",)}, "what ever", "u", {"a": 1}),
    "of two lines, too": ({STATUS.ALL: ("a <- u",)}, "what\never", "u", {"a": 1}),
    "STATUS.NONE is no status": ({STATUS.NONE: ("a <- u",)}, None, "u", {"a": 1}),
    "and no other": ({STATUS.NONE: ("a <- u",)}, "x", "u", {"u": 1}),
    "None counts as the empty string": ({"x?": ("a <- u",)}, None, "u", {"a": 1}),
    "a pattern": ({"train|test.*": ("a <- u",)}, "test2", "u", {"a": 1}),
    "the whole status": ({"train|test": ("a <- u",)}, "test2", "u", {"u": 1}),
    "from its start": ({"rain": ("a <- u",)}, "train", "u", {"u": 1}),
}


@pytest.mark.parametrize(("rules", "status", "key", "expected"), INPUTS.values(), ids=INPUTS)
def test_input_rules(rules: Rules, status: str | None, key: str, expected: dict[str, float]) -> None:
    assert entries(node(rules, status).set(key, ONE)) == expected
    called = node(rules, status)
    activations: dict[str, Any] = {key: ONE}
    assert called(**activations, output=None) is called
    assert entries(called) == expected


OUTPUTS: dict[str, tuple[Rules, str | None, str, float | None]] = {
    "a transformation": ({STATUS.ALL: ("e -> h:double",)}, None, "e", 6),
    "a chain, left to right": ({STATUS.ALL: ("e->h : increment:double",)}, None, "e", 8),
    "another name": ({STATUS.ALL: ("e -> h",)}, None, "e", 3),
    "in another status": ({"x": ("e -> h",)}, None, "e", None),
    "keys match whole": ({STATUS.ALL: ("ee -> h",)}, None, "e", None),
    "of what another rule computes": ({STATUS.ALL: ("e -> a:double", "a -> h:increment")}, None, "e", 8),
    "of an entry of the same name": ({STATUS.ALL: ("u -> u:double",)}, None, "u", 10),
    "of the state itself": ({STATUS.ALL: ("h -> h:double",)}, None, "h", 6),
    "of what is not set": ({STATUS.ALL: ("e -> a:double",)}, None, "e", None),
}


@pytest.mark.parametrize(("rules", "status", "key", "expected"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_rules(rules: Rules, status: str | None, key: str, expected: float | None) -> None:
    vode = node(rules, status).set("h", jnp.array(3.0)).set("u", jnp.array(5.0))
    for _ in range(2):
        value = vode.get(key)
        assert value is None if expected is None else float(value) == expected
    assert vode.get(key, default="absent") == ("absent" if expected is None else expected)
    assert (float(vode.h), float(vode.cache["u"])) == (3, 5)


def test_a_computed_output_is_kept_until_its_sources_change() -> None:
    calls = []

    def counted(vode: Any, key: str, value: Any, rkg: px.RandomKeyGenerator) -> Any:
        calls.append(key)
        return 2 * value

    vode = node({STATUS.ALL: ("e -> h:counted",)}, tforms={"counted": counted}).set("h", ONE)
    assert [float(vode.get("e")) for _ in range(3)] == [2.0] * 3
    assert calls == ["e"]
    assert float(vode.cache["e"]) == 2.0
    vode.set("h", jnp.array(5.0))
    assert [float(vode.get("e")) for _ in range(2)] == [10.0] * 2
    vode.clear_params(px.ParamCache)
    assert float(vode.get("e")) == 10.0
    assert calls == ["e", "e", "e"]


def test_output_rules_in_a_circle_are_refused_when_asked() -> None:
    vode = node({STATUS.ALL: ("a -> b:double", "b -> u"), "x": ("u -> a",)}).set("u", ONE)
    assert float(vode.get("a")) == 2.0
    vode.clear_params(px.ParamCache)
    vode.status = "x"
    with pytest.raises(ValueError, match="the output rules define 'a' in terms of itself: a -> b -> u -> a"):
        vode.get("a")


def test_of_several_output_rules_the_first_is_used_with_a_warning() -> None:
    vode = node({STATUS.ALL: ("e -> h", "e -> h:double")}).set("h", ONE)
    with pytest.warns(UserWarning, match=r"^Multiple output rules.*'e'.*'e -> h', 'e -> h:double'") as found:
        assert float(vode.get("e")) == 1.0
    assert found[0].filename == __file__


def test_several_input_rules_and_one_output_rule_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vode = node({STATUS.ALL: ("a <- u", "b <- u", "e -> a", "f -> a"), "x": ("e -> h",)})
        assert float(vode.set("u", ONE).get("e")) == 1.0


def test_the_arguments_of_a_transformation() -> None:
    seen = []

    def note(vode: Any, key: str, value: Any, rkg: px.RandomKeyGenerator) -> Any:
        seen.append((vode, key, float(value), rkg))
        return value

    rkg = px.RandomKeyGenerator(3)
    vode = node({STATUS.ALL: ("a <- u:note", "e -> h:note")}, tforms={"note": note})
    vode.set("u", ONE, rkg).set("h", ONE)
    vode.get("e", rkg=rkg)
    vode(ONE, rkg, output="e")
    assert seen == [(vode, "u", 1.0, rkg), (vode, "e", 1.0, rkg), (vode, "u", 1.0, rkg)]


def test_transformations_may_draw() -> None:
    def noise(vode: Any, key: str, value: Any, rkg: px.RandomKeyGenerator) -> Any:
        rkg()
        return value

    rkg = px.RandomKeyGenerator(0)
    pxc.Vode(None, {STATUS.ALL: ("u <- u:noise",)}, {"noise": noise})(ONE, rkg)
    expected = px.RandomKeyGenerator(0)
    expected()
    assert bool((rkg.key == expected.key).all())


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no arrow": ({STATUS.ALL: ("h = u",)}, ValueError, "'h = u': at column 6 expected an arrow"),
    "nothing": ({STATUS.ALL: ("",)}, ValueError, "at column 1 expected an arrow"),
    "no target": ({STATUS.ALL: ("<- u",)}, ValueError, "at column 1 expected a name, found '<- u'"),
    "an empty target": ({STATUS.ALL: ("h, <- u",)}, ValueError, "at column 4 expected a name, found '<- u'"),
    "two words": ({STATUS.ALL: ("h u <- u",)}, ValueError, "at column 1 expected a name, found 'h u <- u'"),
    "no source": ({STATUS.ALL: ("h <- ",)}, ValueError, "at column 6 expected a name, found the end"),
    "no transformation": ({STATUS.ALL: ("h <- u:",)}, ValueError, "at column 8 expected a name, found the end"),
    "two arrows": ({STATUS.ALL: ("h <- u <- e",)}, ValueError, "at column 6 expected a name, found 'u <- e'"),
    "two outputs": ({STATUS.ALL: ("e, f -> h",)}, ValueError, "at column 4 expected only one key before '->'"),
    "two sources": ({STATUS.ALL: ("e -> h, u",)}, ValueError, "at column 6 expected a name, found 'h, u'"),
    "an unknown transformation": (
        {STATUS.ALL: ("h <- u:double:triple",)},
        ValueError,
        "'h <- u:double:triple': at column 15 expected the name of a transformation, one of ['double', 'increment'], "
        "found 'triple'",
    ),
    "an unknown one of an output": ({"x": ("e -> h:no",)}, ValueError, "at column 8 expected the name of a transf"),
    "a bad pattern": ({"(": ("h <- u",)}, ValueError, "the status pattern '(' is not a regular expression"),
    "a string for the rules": (
        {STATUS.ALL: "h <- u"},
        TypeError,
        "the rules of status '.*' must be a sequence of strings, found 'h <- u'",
    ),
    "no string": ({STATUS.ALL: (3,)}, TypeError, "the rules of status '.*' must be a sequence of strings, found (3,)"),
}


@pytest.mark.parametrize(("rules", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_when_the_vode_is_built(rules: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        pxc.Vode(ruleset=rules, tforms=TFORMS)


def test_equal_rulesets_do_not_retrace() -> None:
    traces: list[None] = []

    @pxf.jit
    def run(u: Any, *, vode: pxc.Vode[pxc.VodeParam]) -> None:
        traces.append(None)
        vode(u)

    def build(tform: Callable[..., Any]) -> pxc.Vode[pxc.VodeParam]:
        return pxc.Vode(None, {STATUS.ALL: ("u <- u:tform",)}, {"tform": tform})

    for tform, count in ((double, 1), (double, 1), (increment, 2)):
        run(ONE, vode=build(tform))
        assert len(traces) == count
    assert build(double).ruleset == build(double).ruleset != build(increment).ruleset
    assert hash(build(double).ruleset) == hash(build(double).ruleset)

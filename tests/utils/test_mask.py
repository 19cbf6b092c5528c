"""Masks: which parameters each selects, by name, and what it puts in their places."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from minipcax.utils import M, M_has, M_hasnot, M_is

Weight, State, Cache = pxnn.LayerParam, pxc.VodeParam, pxc.VodeParam.Cache


class Model(px.Module):
    frozen: pxnn.LayerParam

    def __init__(self) -> None:
        super().__init__()
        self.matrix = Weight(jnp.ones((2, 3)))
        self.vector = Weight(jnp.ones(3))
        self.frozen = Weight(jnp.ones(3))
        self.frozen.frozen = True
        self.cleared = State(None)
        self.cache = Cache()
        self.name = px.static("name")
        self.number = jnp.array(1.0)


NAMES = ["matrix", "vector", "frozen", "cleared", "cache", "name"]


def is_frozen(param: Any) -> bool:
    return getattr(param, "frozen", None) is True


SELECTIONS: dict[str, tuple[Callable[[], M], str]] = {
    "class": (lambda: M(Weight), "matrix vector frozen"),
    "base class": (lambda: M(px.Param), "matrix vector frozen cleared"),
    "marker class": (lambda: M(px.ParamCache), "cache"),
    "union": (lambda: M(State | Cache), "cleared cache"),
    "predicate": (lambda: M(is_frozen), "frozen"),
    "mask": (lambda: M(M(Weight).has(frozen=True)), "frozen"),
    "None": (lambda: M(None), "matrix vector frozen cleared cache name"),
    "nothing": (lambda: M(), "matrix vector frozen cleared cache name"),
    "and": (lambda: M(px.Param) & M(is_frozen), "frozen"),
    "or": (lambda: M(Weight) | M(Cache), "matrix vector frozen cache"),
    "not": (lambda: ~M(Weight), "cleared cache name"),
    "and with a class": (lambda: M(is_frozen) & Weight, "frozen"),
    "class and": (lambda: Weight & M(is_frozen), "frozen"),
    "or with a union": (lambda: M(is_frozen) | State | Cache, "frozen cleared cache"),
    "union or": (lambda: cast(Any, State | Cache) | M(is_frozen), "frozen cleared cache"),
    "or with a predicate": (lambda: M(Cache) | is_frozen, "frozen cache"),
    "predicate or": (lambda: is_frozen | M(Cache), "frozen cache"),
    "and None": (lambda: M(Weight) & None, "matrix vector frozen"),
    "None and": (lambda: None & M(Weight), "matrix vector frozen"),
    "or None": (lambda: M(Weight) | None, "matrix vector frozen cleared cache name"),
    "precedence": (lambda: ~M(Weight) & (M(State) | M(Cache)), "cleared cache"),
    "has": (lambda: M(Weight).has(frozen=True), "frozen"),
    "hasnot": (lambda: M(Weight).hasnot(frozen=True), "matrix vector"),
    "has not frozen": (lambda: M(Weight).has(frozen=False), "matrix vector"),
    "has all": (lambda: M(Weight).has(frozen=False, ndim=1), "vector"),
    "hasnot any": (lambda: M(Weight).hasnot(frozen=True, ndim=2), "vector"),
    "attributes of the array": (lambda: M(px.Param).has(ndim=1), "vector frozen"),
    "its shape": (lambda: M(px.Param).has(shape=(2, 3)), "matrix"),
    "its dtype": (lambda: M(px.Param).has(dtype="float32"), "matrix vector frozen"),
    "an attribute that is not there": (lambda: M(None).has(what=None), ""),
    "nor there": (lambda: M(Weight).hasnot(what=None), "matrix vector frozen"),
    "M_is": (lambda: M_is(Weight, is_frozen, M(px.Param)), "frozen"),
    "M_is of two classes": (lambda: M_is(Weight, Cache), ""),
    "M_is of a class and its base": (lambda: M_is(px.Param, State), "cleared"),
    "M_is with None": (lambda: M_is(State | Cache, None), "cleared cache"),
    "not M_is": (lambda: ~M_is(px.Param, M(None).hasnot(ndim=1)), "vector frozen cache name"),
    "M_is of one": (lambda: M_is(None), "matrix vector frozen cleared cache name"),
    "M_has": (lambda: M_has(Weight, frozen=True), "frozen"),
    "M_has of a union": (lambda: M_has(Weight | State, ndim=2), "matrix"),
    "M_hasnot": (lambda: M_hasnot(M(Weight) | State, frozen=True), "matrix vector cleared"),
    "M_has of all": (lambda: M_has(None, frozen=True), "frozen"),
    "M_has of no attribute": (lambda: M_has(Weight), "matrix vector frozen"),
}


@pytest.mark.parametrize(("build", "selected"), SELECTIONS.values(), ids=SELECTIONS)
def test_selection(build: Callable[[], M], selected: str) -> None:
    model = Model()
    mask = build()
    masked = mask(model)
    assert type(masked) is Model
    assert {name for name in NAMES if getattr(masked, name) is not None} == set(selected.split())
    assert all(getattr(masked, name) is getattr(model, name) for name in selected.split())
    assert masked.number is None
    assert [name for name in NAMES if mask.apply(getattr(model, name))] == selected.split()
    chosen = build().to(("no", "yes"))(model)
    assert [getattr(chosen, name) for name in NAMES] == ["yes" if name in selected.split() else "no" for name in NAMES]
    assert chosen.number is None


def test_to_gives_a_new_mask() -> None:
    mask = M(Weight)
    axes = mask.to((None, 0))
    answers = axes.to([False, True])
    model: Any = Model()
    for _ in range(2):
        assert (mask(model).matrix, mask(model).cache) == (model.matrix, None)
        assert (axes(model).matrix, axes(model).cache) == (0, None)
        assert (answers(model).matrix, answers(model).cache) == (True, False)
        assert (answers.to(None)(model).matrix, answers.to(None)(model).cache) == (model.matrix, None)
        axes.to((1, 2)), answers.to(None)  # the masks themselves do not change
    assert (axes & M(is_frozen))(model).matrix is None


def test_masks_cannot_be_changed() -> None:
    mask = M(Weight)
    for name, value in (("values", (None, 0)), ("target", State), ("other", 1)):
        with pytest.raises(AttributeError, match=f"cannot assign to field '{name}'"):
            setattr(mask, name, value)
    with pytest.raises(AttributeError, match="cannot delete field 'target'"):
        del mask.target
    assert pxl.WEIGHTS.to((False, True)) is not pxl.WEIGHTS
    assert pxl.WEIGHTS(pxnn.Linear(2, 2)).nn.weight.shape == (2, 2)


@pytest.mark.parametrize("values", [(), (1,), (1, 2, 3)])
def test_to_expects_two(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"M\.to expects two values, \(unselected, selected\), found \("):
        M(Weight).to(values)


@pytest.mark.parametrize("values", [3, "ab", {0, 1}, iter((0, 1))])
def test_to_expects_a_sequence(values: Any) -> None:
    with pytest.raises(TypeError, match=r"M\.to expects two values, \(unselected, selected\), or None, found"):
        M(Weight).to(values)


@pytest.mark.parametrize("module", [Model, Model(), pxnn.Linear, pxc.Vode])
def test_a_module_is_not_a_mask(module: Any) -> None:
    for build in (M, M_is, M_has, M_hasnot, lambda module: M(Weight) & module, lambda module: M(Weight) | module):
        with pytest.raises(TypeError, match=r"M selects parameters, found .*, which is a module: write the class of"):
            build(module)


@pytest.mark.parametrize("target", [int, bool, jax.Array, np.ndarray, Weight | float])
def test_a_class_of_other_objects_is_not_a_mask(target: Any) -> None:
    words = "M selects parameters, found the class .*, which is not a parameter: write the class"
    with pytest.raises(TypeError, match=words):
        M(target)
    assert M(object).apply(Weight(1.0))


def test_masks_are_combined_by_operators() -> None:
    for combine in (lambda a, b: a and b, lambda a, b: a or b, lambda a, b: not a):
        with pytest.raises(TypeError, match=r"cannot be used as a Python bool: combine them with &, \| and ~"):
            combine(M(Weight), M(State))


@pytest.mark.parametrize(
    "text",
    [
        "M(LayerParam)",
        "M(LayerParam).hasnot(frozen=True)",
        "M(LayerParam).has(ndim=1, frozen=False).to((None, 0))",
        "~(M(LayerParam) | M(VodeParam))",
        "(M(LayerParam) & ~M(VodeParam).has(ndim=0))",
    ],
)
def test_masks_are_printed_as_they_are_written(text: str) -> None:
    assert repr(eval(text, {"M": M, "LayerParam": pxnn.LayerParam, "VodeParam": pxc.VodeParam})) == text


def test_a_shared_parameter_is_selected_once_and_placeholders_never() -> None:
    p = Weight(jnp.ones(2))
    tree: list[Any] = [p, {"a": p}, (p, Weight(jnp.ones(1)))]
    masked = M(None)(tree)
    assert masked[0] is p
    assert masked[1:] == [{"a": None}, (None, tree[2][1])]
    assert M(Weight).to((0, 1))(tree) == [1, {"a": 0}, (0, 1)]
    reference = px.tree_ref(tree)[1]["a"]
    assert not any(mask.apply(reference) for mask in (M(None), M(px.BaseParam), M(lambda param: True), ~M(Weight)))
    assert M(None)(px.tree_ref(tree), is_pytree=True)[1] == {"a": None}


def test_apply_is_only_for_parameters() -> None:
    asked: list[object] = []

    def note(param: object) -> bool:
        asked.append(param)
        return True

    mask = M(note)
    assert not mask.apply(jnp.ones(1))
    assert not (~mask).apply("text")
    assert asked == []


def test_what_the_transforms_take() -> None:
    model = Model()

    @pxf.vmap({"model": M(Weight).hasnot(ndim=2).to((None, 0))})
    def shapes(*, model: Model) -> None:
        assert (model.matrix.shape, model.vector.shape, model.frozen.shape) == ((2, 3), (), ())

    shapes(model=model)

    @pxf.grad({"model": M(Weight).hasnot(frozen=True)})
    def total(*, model: Model) -> jax.Array:
        return model.matrix.sum() + 2 * model.vector.sum() + 3 * model.frozen.sum()

    grads = total(model=model)["model"]
    assert grads.vector.tolist() == [2, 2, 2]
    assert grads.frozen is None
    both = pxf.grad(M(Weight).has(frozen=True).to((False, True)))(lambda *, a, b: a.frozen.sum() * b.frozen.sum())
    found = both(a=Model(), b=Model())
    assert found["a"].frozen.tolist() == found["b"].frozen.tolist() == [3, 3, 3]
    assert found["a"].vector is None


BAD: dict[str, Callable[[], object]] = {
    "M": lambda: M(3),  # type: ignore[arg-type]  # tested on purpose, here and below
    "M_is": lambda: M_is(Weight, "no"),  # type: ignore[arg-type]
    "M_has": lambda: M_has(3, frozen=True),  # type: ignore[arg-type]
    "M_hasnot": lambda: M_hasnot(3, frozen=True),  # type: ignore[arg-type]
    "and": lambda: M(Weight) & 3,  # type: ignore[operator]
    "or": lambda: 3 | M(Weight),  # type: ignore[operator]
}


@pytest.mark.parametrize("build", BAD.values(), ids=BAD)
def test_other_objects_are_refused_at_once(build: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=r"expected a class, a union of classes, a predicate or an M .* found (3|'no')"):
        build()


FILTERS: dict[str, Any] = {"class": Weight, "union": Weight | State, "predicate": is_frozen, "M": M(Weight).has(ndim=1)}


@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
def test_wherever_a_filter_is_asked_for(filter: Any) -> None:
    expected = [name for name in NAMES if M(filter).apply(getattr(Model(), name))]

    class Energy(pxc.EnergyModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()

        def cleared(self) -> list[str]:
            present = {"matrix", "vector", "frozen"}
            return [name for name in NAMES if name in present and getattr(self.model, name).get() is None]

    expected = [name for name in expected if name != "cleared"]
    model = Energy()
    model.clear_params(filter)
    assert model.cleared() == expected
    model = Energy()
    with pxu.step(model, clear_params=filter):
        assert model.cleared() == []
    assert model.cleared() == expected
    original = Model()
    twin = pxnn.shared(original, filter)
    assert [name for name in expected if getattr(twin, name) is not getattr(original, name)] == []
    assert twin.cache is not original.cache

"""`step`: statuses and cleared parameters before, within and after a block."""

import re
from typing import Any

import jax.numpy as jnp
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from minipcax.predictive_coding import STATUS


class Model(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.vodes = [pxc.Vode(), {"inner": pxc.Vode()}]
        for vode in self.all()[1:]:
            vode.set("h", jnp.ones(1)).set("u", jnp.ones(1))

    def all(self) -> list[Any]:
        return [self, self.vodes[0], self.vodes[1]["inner"]]  # type: ignore[index]  # lists are of one type

    def statuses(self) -> list[str | None]:
        return [module.status for module in self.all()]

    def cleared(self) -> set[str]:
        values = {"h": self.all()[1].h.get(), "cache": self.all()[1].cache.get()}
        return {name for name, value in values.items() if value is None}


class Planted(Exception):
    """Raised on purpose."""


def test_every_energy_module_has_the_status_within_the_block() -> None:
    model = Model()
    model.all()[1].status = "own"
    with pxu.step(model, STATUS.INIT):
        assert model.statuses() == ["init"] * 3
    assert model.statuses() == [None, "own", None]


def test_any_tree_of_models() -> None:
    first, second = Model(), Model()
    with pxu.step([first, {"k": (second, px.static("x"), None)}], "a"):
        assert first.statuses() == second.statuses() == ["a"] * 3
    assert first.statuses() == second.statuses() == [None] * 3


def test_none_is_a_status_like_any_other() -> None:
    model = Model()
    for status in (None, (None, None)):
        with pxu.step(model, "outer"), pxu.step(model, status):
            assert model.statuses() == [None] * 3
    with pxu.step(model, "outer"):
        with pxu.step(model):
            assert model.statuses() == [None] * 3
        assert model.statuses() == ["outer"] * 3


def test_of_a_pair_the_second_is_set_afterwards() -> None:
    model = Model()
    with pxu.step(model, ("a", "b")):
        assert model.statuses() == ["a"] * 3
    assert model.statuses() == ["b"] * 3
    with pxu.step(model, (None, "c")):
        assert model.statuses() == [None] * 3
    assert model.statuses() == ["c"] * 3
    with pxu.step(model, ("a", None)):
        assert model.statuses() == ["a"] * 3
    assert model.statuses() == ["c"] * 3


def test_nested() -> None:
    model = Model()
    with pxu.step(model, "a"):
        with pxu.step(model, ("b", "c")):
            with pxu.step(model.vodes[0], "d"):
                assert model.statuses() == ["b", "d", "b"]
            assert model.statuses() == ["b"] * 3
        assert model.statuses() == ["c"] * 3
    assert model.statuses() == [None] * 3


@pytest.mark.parametrize(("status", "after"), [("a", None), (("a", "b"), "b"), (("a", None), None)])
def test_also_when_the_block_raises(status: Any, after: str | None) -> None:
    model = Model()
    with pytest.raises(Planted), pxu.step(model, status, clear_params=pxc.VodeParam.Cache):
        with pytest.raises(Planted), pxu.step(model, "inner", clear_params=(None, pxc.VodeParam)):
            raise Planted
        assert model.statuses() == ["a"] * 3
        assert model.cleared() == {"h"}
        raise Planted
    assert model.statuses() == [after] * 3
    assert model.cleared() == {"h", "cache"}


CLEARED: dict[str, tuple[Any, set[str], set[str]]] = {
    "nothing": (None, set(), set()),
    "after": (pxc.VodeParam.Cache, set(), {"cache"}),
    "after, both": (pxc.VodeParam | pxc.VodeParam.Cache, set(), {"h", "cache"}),
    "before": ((pxc.VodeParam.Cache, None), {"cache"}, {"cache"}),
    "before and after": ((pxc.VodeParam.Cache, pxc.VodeParam), {"cache"}, {"h", "cache"}),
    "a pair for after": ((None, pxc.VodeParam), set(), {"h"}),
    "a mask": (pxu.M(pxc.VodeParam), set(), {"h"}),
    "a predicate": (lambda param: isinstance(param, px.ParamCache), set(), {"cache"}),
}


@pytest.mark.parametrize(("clear_params", "within", "after"), CLEARED.values(), ids=CLEARED)
def test_clear_params(clear_params: Any, within: set[str], after: set[str]) -> None:
    model = Model()
    with pxu.step(model, clear_params=clear_params):
        assert model.cleared() == within
    assert model.cleared() == after


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"status": ("a", "b", "c")}, ValueError, "step expected a pair, found ('a', 'b', 'c')"),
        ({"status": ("a",)}, ValueError, "step expected a pair, found ('a',)"),
        ({"status": ["a", "b"]}, TypeError, "step expected a status, a string or None, or a pair of them, found ['a',"),
        ({"status": ("a", 3)}, TypeError, "found ('a', 3)"),
        ({"clear_params": pxc.Vode}, TypeError, "M selects parameters, found the class Vode, which is a module"),
        ({"clear_params": [pxc.VodeParam]}, TypeError, "expected a class, a union of classes, a predicate or an M"),
        (
            {"clear_params": (None, int)},
            TypeError,
            "M selects parameters, found the class int, which is not a parameter",
        ),
        ({"status": STATUS}, TypeError, "step expected a status, a string or None, or a pair of them, found <class"),
        ({"clear_params": (None, None, pxc.VodeParam)}, ValueError, "step expected a pair, found (None, None, "),
    ],
)
def test_wrong_arguments_change_nothing(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = Model()
    with pytest.raises(error, match=re.escape(message)), pxu.step(model, **arguments):
        pass
    assert model.statuses() == [None] * 3
    assert model.cleared() == set()


@pytest.mark.parametrize("clear_params", [3, (None, 3), (3, None)])
def test_what_is_no_filter_is_refused_before_the_block(clear_params: Any) -> None:
    model = Model()
    entered = False
    with (
        pytest.raises(TypeError, match=r"expected a class, a union of classes, a predicate or an M.*found 3"),
        pxu.step(model, "a", clear_params=clear_params),
    ):
        entered = True
    assert not entered
    assert model.statuses() == [None] * 3


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (pxnn.Linear(1, 1), "a Linear"),
        (Model, "the class Model"),
        (None, "a NoneType"),
        ([px.Module()], "a list"),
        (jnp.ones(1), "an ArrayImpl"),
    ],
)
def test_a_model_without_energy_modules_is_refused(model: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"with energy modules, found none in {found}"), pxu.step(model, "a"):
        pass


def test_a_status_set_inside_a_transform_does_not_escape() -> None:
    @pxf.jit
    def inside(*, model: Model) -> None:
        with pxu.step(model, ("a", "b")):
            assert model.statuses() == ["a"] * 3
        assert model.statuses() == ["b"] * 3

    model = Model()
    inside(model=model)
    assert model.statuses() == [None] * 3


def test_forward_initialisation() -> None:
    model = Model()
    vode = model.all()[1]
    with pxu.step(model, STATUS.INIT):
        assert vode(jnp.full(1, 7.0)).tolist() == [7]
    assert vode(jnp.zeros(1)).tolist() == [7]

"""The energy of a model: sums worked out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


def node(value: float, shape: tuple[int, ...] = ()) -> pxc.Vode[pxc.VodeParam]:
    """A node whose energy is ½value² for each element."""
    return pxc.Vode().set("h", jnp.full(shape, value)).set("u", jnp.zeros(shape))


class Inner(pxc.EnergyModule):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.vodes = [node(value) for value in values]


class Plain(px.BaseModule):
    def __init__(self, **children: Any) -> None:
        for name, child in children.items():
            setattr(self, name, child)


class Regularised(pxc.EnergyModule):
    """Has an energy of its own, in which its node counts twice."""

    def __init__(self) -> None:
        super().__init__()
        self.vode = node(2.0)

    def energy(self) -> Array:
        return 2 * self.vode.energy()


class Outer(pxc.EnergyModule):
    def __getattr__(self, name: str) -> Any:  # whatever it was made of
        raise AttributeError(name)

    def __init__(self, **children: Any) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


def test_the_sum_over_nodes_and_samples() -> None:
    model = Outer(a=node(2.0, (4, 3)), b=node(4.0, (4,)))
    energy = model.energy()
    assert isinstance(energy, jax.Array)
    assert energy.shape == ()
    assert float(energy) == 12 * 2.0 + 4 * 8.0


def test_without_nodes_it_is_zero() -> None:
    for model in (Outer(), Outer(layer=pxnn.Linear(2, 2)), Outer(inner=Outer())):
        assert isinstance(model.energy(), jax.Array)
        assert model.energy().shape == ()
        assert float(model.energy()) == 0.0


def test_it_looks_through_containers_and_other_modules() -> None:
    plain = Plain(c=node(6.0), d=px.static("no module"))
    model = Outer(a=[node(2.0), {"k": (node(4.0),)}], b=plain, e=pxnn.Linear(2, 2))
    assert float(model.energy()) == 2.0 + 8.0 + 18.0


def test_the_nearest_energy_modules_decide() -> None:
    model = Outer(inner=Inner(2.0, 4.0), own=Regularised())
    assert float(model.energy()) == (2.0 + 8.0) + 2 * 2.0


def test_a_module_reached_twice_counts_once() -> None:
    vode = node(2.0)
    assert float(Outer(a=vode, b=[vode]).energy()) == 2.0


def test_a_class_that_does_not_initialise_its_base() -> None:
    class Model(pxc.EnergyModule):
        def __init__(self) -> None:
            self.vode = node(2.0)

    model = Model()
    assert (model.status, model.mode()) == (None, None)
    assert float(model.energy()) == 2.0


@pytest.mark.parametrize("numbers", [True, False], ids=["numpy", "jax"])
def test_it_is_an_array_of_jax(numbers: bool) -> None:
    def custom(vode: Any) -> Any:
        return 3.0 if numbers else jnp.array(3.0)

    model = Outer(vode=pxc.Vode(custom))
    assert isinstance(model.energy(), jax.Array)
    assert float(model.energy()) == 3.0


def test_energies_by_path() -> None:
    model = Outer(inner=Inner(2.0, 4.0), own=Regularised(), batch=[node(2.0, (3, 5))])
    energies = model.energies()
    assert list(energies) == [".inner.vodes[0]", ".inner.vodes[1]", ".own", ".batch[0]"]
    assert [energy.tolist() for energy in energies.values()] == [2.0, 8.0, 4.0, [10.0, 10.0, 10.0]]
    assert sum(float(energy.sum()) for energy in energies.values()) == float(model.energy())
    assert float(node(2.0).energies()[""]) == 2.0
    assert Outer().energies() == {}


def test_energies_inside_vmap_are_of_one_sample() -> None:
    @pxf.vmap({"model": 0})
    def energies(*, model: Outer) -> dict[str, Array]:
        assert all(energy.shape == () for energy in model.energies().values())
        return model.energies()

    model = Outer(vode=node(2.0, (3, 5)))
    assert energies(model=model)[".vode"].tolist() == [10.0, 10.0, 10.0]


class Other(px.Param):
    """A parameter of one's own."""


def selections() -> dict[str, Any]:
    return {
        "class": pxc.VodeParam,
        "union": pxc.VodeParam | Other,
        "mask": pxu.M(pxc.VodeParam),
        "predicate": lambda param: isinstance(param, pxc.VodeParam),
    }


@pytest.mark.parametrize("filter", selections().values(), ids=selections())
def test_clear_params(filter: Any) -> None:
    model = Outer(vodes=[node(1.0), node(2.0)], layer=pxnn.Linear(2, 2), name=px.static("a"))
    model.clear_params(filter)
    assert all(vode.h.get() is None for vode in model.vodes)
    assert all(vode.cache.get() is not None for vode in model.vodes)
    assert model.layer.nn.weight.get() is not None
    model.clear_params(pxc.VodeParam.Cache)
    assert all(vode.cache.get() is None for vode in model.vodes)


def test_clearing_a_shared_parameter_and_never_a_static_one() -> None:
    layer = pxnn.Linear(2, 2)
    model = Outer(a=layer, b=pxnn.shared(layer), name=px.static("a"))
    model.clear_params(pxu.M(None))
    assert model.b.nn.weight is layer.nn.weight
    assert model.b.nn.weight.get() is None
    assert model.name == "a"


def test_clear_params_takes_only_filters() -> None:
    with pytest.raises(TypeError, match=r"expected a class, a union of classes, a predicate or an M.*found 3"):
        Outer().clear_params(3)  # type: ignore[arg-type]  # that is the point


def test_status_is_a_free_string_or_none() -> None:
    model = Outer(vode=node(1.0))
    assert model.status is None
    model.status = "anything"
    assert (model.status, model.vode.status) == ("anything", None)
    assert (pxc.STATUS.NONE, pxc.STATUS.INIT) == (None, "init")


def test_status_is_structure() -> None:
    traces = []

    @pxf.jit
    def status(*, model: Outer) -> None:
        traces.append(model.status)
        model.status = "inside"

    model = Outer()
    for value in (None, "a", "a", None):
        model.status = value
        status(model=model)
        assert model.status == value
    assert traces == [None, "a"]

"""Whatever goes through a model meets a shared parameter once, in whatever order the paths to it are."""

from itertools import permutations
from pathlib import Path
from typing import Any, Self

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


class Counted(pxnn.LayerParam):
    """A weight that counts how often it is set."""

    sets = 0  # of all of them

    def set(self, value: Any) -> Self:
        Counted.sets += 1
        return super().set(value)


class Uses(px.Module):
    """Holds a parameter among others: a shared one, one of its own, and a static."""

    def __init__(self, shared: Counted, own: float) -> None:
        super().__init__()
        self.name = px.static("uses")
        self.own = Counted(jnp.array(own))
        self.nested = {"weight": shared}


def models(order: tuple[int, ...]) -> tuple[pxc.EnergyModule, Counted]:
    """A model with four paths to one parameter: two modules, a list and an attribute, in this order."""
    shared = Counted(jnp.array(2.0))
    parts: list[Any] = [Uses(shared, 3.0), [shared, Counted(jnp.array(5.0))], shared, Uses(shared, 7.0)]

    class Model(pxc.EnergyModule):  # a class of its own, since the first instance fixes the order of the attributes
        def __init__(self) -> None:
            super().__init__()
            for number in order:
                setattr(self, f"part{number}", parts[number])

    return Model(), shared


ORDERS = pytest.mark.parametrize("order", [order for order in permutations(range(4)) if order[0] < order[-1]])
WEIGHTS = pxu.M(Counted)


@pytest.fixture(autouse=True)
def _count() -> None:
    Counted.sets = 0


def nodes(tree: object) -> list[Any]:
    """What is in the parameters' places."""
    return jax.tree.leaves(tree, is_leaf=lambda node: node is None or isinstance(node, px.BaseParam))


def first_of(model: object, param: Counted) -> int:
    return next(position for position, node in enumerate(nodes(model)) if node is param)


@ORDERS
def test_masks(order: tuple[int, ...]) -> None:
    model, shared = models(order)
    place = first_of(model, shared)
    assert [position for position, node in enumerate(nodes(WEIGHTS(model))) if node is shared] == [place]
    assert sum(node is not None for node in nodes(WEIGHTS(model))) == 4
    # The values of `to`: one of the four places of the shared parameter says that it is selected.
    values = nodes(pxu.M(lambda param: param is shared).to((0, 1))(model))
    assert [position for position, value in enumerate(values) if value == 1] == [place]


@ORDERS
def test_extract_and_inject(order: tuple[int, ...]) -> None:
    model, shared = models(order)
    params = px.tree_extract(model)
    expected = {id(node): node for node in nodes(model) if isinstance(node, Counted)}
    assert [id(param) for param in params] == list(expected)
    px.tree_inject(model, values=[10.0, 11.0, 12.0, 13.0])
    assert Counted.sets == 4
    assert [param.get() for param in params] == [10.0, 11.0, 12.0, 13.0]
    with pytest.raises(ValueError, match="expected 4, found number of values 8"):
        px.tree_inject(model, values=[0.0] * 8)  # as many as there are places
    assert shared.get() == 10.0 + list(expected).index(id(shared))


@ORDERS
def test_clearing(order: tuple[int, ...]) -> None:
    model, shared = models(order)
    model.clear_params(Counted)
    assert (Counted.sets, shared.get()) == (4, None)
    with pxu.step(model, clear_params=(Counted, Counted)):
        assert Counted.sets == 8
    assert Counted.sets == 12


@ORDERS
def test_an_optimiser(order: tuple[int, ...], tmp_path: Path) -> None:
    model, shared = models(order)

    @pxf.grad({"model": WEIGHTS})
    def gradient(*, model: Any) -> jax.Array:
        product: jax.Array = model.part0.nested["weight"] * model.part1[0] * model.part2 * model.part3.own
        return product

    optim = pxu.Optim(optax.sgd(0.1, momentum=0.9), WEIGHTS(model))
    assert len(jax.tree.leaves(optim)) == len(jax.tree.leaves(pxu.Optim(optax.sgd(0.1, momentum=0.9), model))) == 4
    grads = gradient(model=model)["model"]
    assert sum(isinstance(node, Counted) for node in nodes(grads)) == 4
    optim.step(model, grads)
    assert Counted.sets == 4
    # The product is s³ · 7, at s = 2.
    np.testing.assert_allclose(shared.get(), 2 - 0.1 * 3 * 2**2 * 7, rtol=1e-6)

    pxu.save_params(model, tmp_path / "model")
    assert len(pxu.saved_params(tmp_path / "model")) == 4
    pxu.load_params(model, tmp_path / "model")
    assert Counted.sets == 8


def test_an_optimiser_of_each_part() -> None:
    """The state is with the part that reaches the parameter first."""
    model, shared = models((0, 1, 2, 3))
    optim = pxu.OptimTree(optax.sgd(0.5, momentum=0.9), lambda node: isinstance(node, (Uses, list)), WEIGHTS(model))
    assert len(jax.tree.leaves(optim)) == 4
    grads = pxf.grad({"model": WEIGHTS})(lambda *, model: 3 * model.part2 + model.part3.own)(model=model)["model"]
    optim.step(model, grads)
    assert float(shared) == 2 - 0.5 * 3


def test_keywords_in_any_order() -> None:
    """They are walked in sorted order: what is selected, differentiated and stepped is at the first keyword."""
    for names in permutations("abc"):
        shared = Counted(jnp.array(2.0))
        keywords: dict[str, Any] = {name: Uses(shared, 3.0) for name in names}
        mask = WEIGHTS(dict(sorted(keywords.items())))
        assert mask["a"].nested["weight"] is shared
        assert mask["b"].nested["weight"] is mask["c"].nested["weight"] is None
        grads = pxf.grad(WEIGHTS)(
            lambda *, a, b, c: a.nested["weight"] * b.nested["weight"] * c.nested["weight"] * c.own
        )(**keywords)
        np.testing.assert_allclose(grads["a"].nested["weight"].get(), 3 * 2**2 * 3)
        assert grads["b"].nested["weight"] is grads["c"].nested["weight"] is None
        pxu.Optim(optax.sgd(1.0), mask).step(keywords, grads)
        assert float(shared) == 2 - 36

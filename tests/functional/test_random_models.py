"""Random models through the transforms, against the same program by hand on plain arrays.

The program goes through a model place by place, so that a shared parameter is read and written several times, and adds
up a scalar. By hand, a model is the list of its values and, for each place, a position in that list.
"""

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from minipcax.core.tree import is_param
from tests.dags import Bias, Block, Cache, Weight, occurrences, outline, random_dag, unique
from tests.functional.support import Function, check_no_tracer, copied

LANES = 2
X = jnp.array([0.5, -1.5])
DEPTH = 4
Values = list[Any]
ByHand = Callable[[Any, Values], tuple[Any, Values]]


def belongs_to_a_sample(cls: type[Any]) -> bool:
    return issubclass(cls, Weight | Cache)


class Program:
    """What to do at each place of a model of this seed."""

    def __init__(self, seed: int, model: Block) -> None:
        self.params = unique(model, px.DynamicParam)
        self.places = [
            next(number for number, other in enumerate(self.params) if other is param)
            for _, param in occurrences(model)
            if isinstance(param, px.DynamicParam)
        ]
        self.classes = [type(param) for param in self.params]
        draw = random.Random(seed)
        self.actions = [draw.choice(["read", "read", "scale", "add", "fill", "clear"]) for _ in self.places]

    def on_values(self, x: Any, values: Values) -> tuple[Any, Values]:
        values, total = list(values), jnp.sin(x)
        for place, action in zip(self.places, self.actions, strict=True):
            cls, value = self.classes[place], values[place]
            what = x if belongs_to_a_sample(cls) else jnp.array(0.25)
            if action == "scale":
                value = jax.tree.map(lambda array: array * 0.5, value)
            elif action == "add":
                value = jax.tree.map(lambda array, what=what: array + jnp.full_like(array, what), value)
            elif action == "fill" and issubclass(cls, Cache):
                value = {**(value or {}), "new": 2.0 * what}
            elif action == "fill" and value is None:
                value = 3.0 * what
            elif action == "clear":
                value = None
            values[place] = value
            for array in jax.tree.leaves(value):
                total = total + jnp.sum(jnp.sin(array))
        return total, values

    def on_model(self, x: Any, *, model: Block) -> Any:
        """The same, as one writes it for a model."""
        total = jnp.sin(x)
        params = [param for _, param in occurrences(model) if isinstance(param, px.DynamicParam)]
        for param, action in zip(params, self.actions, strict=True):
            what = x if isinstance(param, Weight | Cache) else jnp.array(0.25)
            if isinstance(param, Cache):
                if action == "clear":
                    param.set(None)
                elif action == "fill":
                    param["new"] = 2.0 * what
                for key in param.get() or {}:
                    if action == "scale":
                        param[key] = param[key] * 0.5
                    elif action == "add":
                        param[key] = param[key] + jnp.full_like(param[key], what)
            elif isinstance(param, px.Param):
                if action == "clear":
                    param.set(None)
                elif action == "fill" and param.get() is None:
                    param.set(3.0 * what)
                elif action == "scale" and isinstance(param.get(), jax.Array):
                    param *= 0.5
                elif action == "add" and isinstance(param.get(), jax.Array):
                    param += jnp.full_like(param.get(), what)
                elif action == "scale":
                    param.set(jax.tree.map(lambda array: array * 0.5, param.get()))
                elif action == "add":
                    param.set(jax.tree.map(lambda array, what=what: array + jnp.full_like(array, what), param.get()))
            for array in jax.tree.leaves(param.get()):
                total = total + jnp.sum(jnp.sin(array))
        return total


def agree(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


class Case:
    """A model, its program, and all that must be as it was after a call."""

    def __init__(self, seed: int) -> None:
        self.model = random_dag(seed, depth=DEPTH)
        self.program = Program(seed, self.model)
        self.params = self.program.params
        self.outline = outline(self.model)
        self.keep()

    def keep(self) -> None:
        self.values = jax.tree.map(jnp.asarray, [param.get() for param in self.params])
        self.before = copied(self.values)

    def stack(self) -> None:
        """Gives the parameters of a sample a first axis of lanes that differ."""
        for param in self.params:
            if belongs_to_a_sample(type(param)):
                param.set(jax.tree.map(lambda array: jnp.stack([array, 2.0 * array]), param.get()))
        self.keep()

    def lane(self, values: Values, lane: int) -> Values:
        return [
            jax.tree.map(lambda array: array[lane], value) if belongs_to_a_sample(cls) else value
            for cls, value in zip(self.program.classes, values, strict=True)
        ]

    def alone(self) -> tuple[Any, Values]:
        return self.program.on_values(X[0], self.values)

    def lanes(self, on_lane: ByHand | None = None) -> tuple[Any, Values]:
        """A loop over lanes."""
        on_lane = on_lane or self.program.on_values
        results = [on_lane(X[lane], self.lane(self.values, lane)) for lane in range(LANES)]
        output = jax.tree.map(lambda *rows: jnp.stack(rows), *[output for output, _ in results])
        after = [
            jax.tree.map(lambda *rows: jnp.stack(rows), *rows) if belongs_to_a_sample(cls) else rows[0]
            for cls, *rows in zip(self.program.classes, *[after for _, after in results], strict=True)
        ]
        return output, after

    def differentiable(self) -> list[int]:
        return [number for number, cls in enumerate(self.program.classes) if issubclass(cls, px.Param)]

    def with_gradients(self, x: Any = X[0], values: Values | None = None) -> tuple[Any, Values]:
        """The value, the gradients by parameter, and the values afterwards, by jax alone."""
        chosen, values = self.differentiable(), values or self.values

        def loss(selected: list[Any]) -> tuple[Any, Values]:
            inputs = list(values)
            for number, value in zip(chosen, selected, strict=True):
                inputs[number] = value
            return self.program.on_values(x, inputs)

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)([values[number] for number in chosen])
        return (value, grads), after

    def lanes_with_gradients(self) -> tuple[Any, Values]:
        return self.lanes(self.with_gradients)

    def gradients_over_lanes(self) -> tuple[Any, Values]:
        """The gradient of a sum over lanes: each lane's own, or, for what all lanes share, their sum."""
        (value, grads), after = self.lanes_with_gradients()
        for number, index in enumerate(self.differentiable()):
            if not belongs_to_a_sample(self.program.classes[index]):
                grads[number] = jax.tree.map(lambda array: array.sum(0), grads[number])
        return (value.sum(), grads), after

    def gradients(self, grads: dict[str, Any]) -> list[Any]:
        """The gradients by parameter; they must be at the first place of each, and nowhere else."""
        first: dict[int, str] = {}
        found: dict[int, Any] = {}
        for path, param in occurrences(self.model):
            node = eval(f"grads['model']{path}", {"grads": grads})
            if not isinstance(param, px.Param):
                assert node is None or isinstance(node, px.StaticParam)
            elif first.setdefault(id(param), path) == path:
                assert type(node) is type(param)
                assert vars(node) == vars(param)
                found[id(param)] = node.get()
            else:
                assert node is None
        return [found[id(self.params[number])] for number in self.differentiable()]

    def check(self, after: Values) -> None:
        """The same parameters in the same places, with new values."""
        assert outline(self.model) == self.outline
        assert all(a is b for a, b in zip(unique(self.model, px.DynamicParam), self.params, strict=True))
        now = [param.get() for param in self.params]
        agree(now, after)
        for value, cls, expected in zip(now, self.program.classes, after, strict=True):
            assert (value is None) == (expected is None)
            assert not issubclass(cls, Cache) or (value or {}).keys() == (expected or {}).keys()
        agree(self.values, self.before)


def seeds(first: int, cases: int, size: int = 1) -> list[range]:
    return [range(first + size * n, first + size * (n + 1)) for n in range(cases)]


def axes(tree: Any) -> Any:
    """A mask by hand: the first axis for the parameters of a sample."""

    def axis(node: Any) -> int | None:
        return 0 if belongs_to_a_sample(type(node)) else None

    return jax.tree.map(axis, tree, is_leaf=is_param)


def params(tree: Any) -> Any:
    """A mask by hand: all Params."""
    return jax.tree.map(lambda node: isinstance(node, px.Param), tree, is_leaf=is_param)


def test_a_program_goes_through_a_model_place_by_place() -> None:
    """The model [p, q, p] has the values [p, q]; what is written at its first place is read at its third."""
    p, q = Weight(jnp.array(1.0)), Bias(jnp.array(2.0))

    @pxf.jit
    def step(x: jax.Array, *, model: Block) -> Any:
        first, second, third = (getattr(model, name) for name in "abc")
        first *= 3.0
        second += x
        return first + second + third

    assert float(step(jnp.array(10.0), model=Block([p, q, p]))) == 3.0 + 12.0 + 3.0
    assert (float(p), float(q)) == (3.0, 12.0)


def grad_of_vmap(program: Function) -> Function:
    mapped = pxf.vmap({"model": axes})(program)
    return pxf.value_and_grad({"model": params})(lambda x, *, model: mapped(x, model=model).sum())


# Transforms, the same by hand, and the seeds of each case; the masks come in several forms.
WAYS: dict[str, tuple[Function, Callable[[Case], tuple[Any, Values]], list[range]]] = {
    "jit": (pxf.jit, Case.alone, seeds(0, 40)),
    "vmap": (pxf.vmap({"model": axes}), Case.lanes, seeds(1000, 10, 12)),
    "value_and_grad": (pxf.value_and_grad({"model": params}), Case.with_gradients, seeds(2000, 10, 8)),
    "jit of vmap": (lambda f: pxf.jit(pxf.vmap({"model": axes})(f)), Case.lanes, seeds(3000, 15)),
    "jit of value_and_grad of jit": (
        lambda f: pxf.jit(pxf.value_and_grad(params)(pxf.jit(f))),
        Case.with_gradients,
        seeds(4000, 15),
    ),
    "vmap of value_and_grad": (
        lambda f: pxf.vmap(axes)(pxf.value_and_grad({("model",): params})(f)),
        Case.lanes_with_gradients,
        seeds(5000, 20),
    ),
    "value_and_grad of vmap": (grad_of_vmap, Case.gradients_over_lanes, seeds(6000, 20)),
}


# Every second group of seeds is for longer runs.
SWEEPS = [
    pytest.param(way, group, marks=[pytest.mark.slow] * (number % 2))
    for way in WAYS
    for number, group in enumerate(WAYS[way][2])
]


@pytest.mark.parametrize(("way", "seeds"), SWEEPS)
def test_equals_the_program_by_hand(way: str, seeds: range) -> None:
    transform, by_hand, _ = WAYS[way]
    for seed in seeds:
        case = Case(seed)
        if "vmap" in way:
            case.stack()
        expected, after = by_hand(case)
        found = transform(case.program.on_model)(X if "vmap" in way else X[0], model=case.model)
        agree((found[0], case.gradients(found[1])) if "grad" in way else found, expected)
        case.check(after)
    check_no_tracer()


@pytest.mark.parametrize("seed", range(7000, 7010))
def test_repeated_calls_are_traced_once(seed: int) -> None:
    case = Case(seed)
    traces: list[None] = []

    @pxf.jit
    def read(*, model: Block) -> Any:
        traces.append(None)
        return [param.get() for param in unique(model, px.DynamicParam)]

    for _ in range(2):
        agree(read(model=case.model), case.values)
    twin = random_dag(seed, depth=DEPTH)
    agree(read(model=twin), case.values)
    assert len(traces) == 1
    other = random_dag(seed + 1, depth=DEPTH)
    agree(read(model=other), [param.get() for param in unique(other, px.DynamicParam)])
    assert len(traces) == 2

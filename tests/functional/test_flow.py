"""Loops and branches, against `jax.lax` with the state passed by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.oracles import changed


class Counter(px.Module):
    """A weight that is read, a count that is written, and a place that may be cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.w = px.Param(jnp.array([1.0, -2.0]))
        self.count = px.Param(jnp.array(0))
        self.last = px.Param(jnp.zeros(2))
        self.empty = px.Param(None)
        self.entries = px.ParamDict()

    def advance(self, x: Array) -> Array:
        self.count += 1
        self.last.set(self.w * x + self.last)
        return self.last.sum()


XS = jnp.arange(8.0).reshape(4, 2)


def by_hand(xs: np.ndarray) -> tuple[list[float], np.ndarray]:
    """What `advance` does with each x in turn, in numpy."""
    last, out = np.zeros(2), []
    for x in xs:
        last = np.array([1.0, -2.0]) * x + last
        out.append(float(last.sum()))
    return out, last


def advance(x: Array, total: Array, *, model: Counter) -> tuple[tuple[Array], Array]:
    y = model.advance(x)
    return (total + y,), y


def test_a_loop_writes_to_the_model() -> None:
    """A running sum, whose steps the model counts."""

    def add(x: Array, total: Array, *, count: px.Param) -> tuple[Array, Array]:
        count += 1
        return total + x, total + x

    count, xs = px.Param(jnp.array(0)), jnp.array([1.0, 2.0, 3.0])
    (total,), sums = pxf.scan(add, xs)(jnp.array(0.0), count=count)
    raw_total, raw_sums = jax.lax.scan(lambda total, x: (total + x, total + x), jnp.array(0.0), xs)
    assert float(total) == float(raw_total) == 6.0
    assert sums.tolist() == raw_sums.tolist() == [1.0, 3.0, 6.0]
    assert int(count) == 3


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("wrap", [lambda f: f, pxf.jit], ids=["bare", "jit"])
def test_scan(reverse: bool, unroll: int, wrap: Callable[[Any], Any]) -> None:
    model = Counter()
    params = px.tree_extract(model)
    (total,), ys = wrap(pxf.scan(advance, XS, reverse=reverse, unroll=unroll))(jnp.array(0.0), model=model)
    order = slice(None, None, -1) if reverse else slice(None)
    expected, last = by_hand(np.asarray(XS)[order])
    np.testing.assert_allclose(ys[order], expected, rtol=1e-6)
    np.testing.assert_allclose(total, np.sum(expected), rtol=1e-6)
    np.testing.assert_allclose(model.last.get(), last, rtol=1e-6)
    assert int(model.count) == 4
    assert all(now is before for now, before in zip(px.tree_extract(model), params, strict=True))
    np.testing.assert_array_equal(model.w.get(), [1.0, -2.0])


def test_scan_without_xs_and_with_a_bare_carry() -> None:
    def double(x: None, value: Array) -> tuple[Array, Array]:
        assert x is None
        return 2 * value, value

    carry, ys = pxf.scan(double, length=5)(jnp.array(1.0))
    assert isinstance(carry, tuple) and len(carry) == 1
    assert carry[0].item() == 32
    assert ys.tolist() == [1, 2, 4, 8, 16]


def test_scan_with_several_carries() -> None:
    def fibonacci(x: Array, a: Array, b: Array) -> tuple[tuple[Array, Array], Array]:
        return (b, a + b), x * a

    (a, b), ys = pxf.scan(fibonacci, jnp.array([1, 10, 100, 1000]))(jnp.array(0), jnp.array(1))
    assert (a.item(), b.item(), ys.tolist()) == (3, 5, [0, 10, 100, 2000])


def test_a_loop_carries_only_what_changes() -> None:
    model = Counter()
    loop = pxf.scan(advance, XS)
    program = jax.make_jaxpr(lambda w: _with_w(w, loop, model))(model.w.get()).jaxpr
    (scan,) = [equation for equation in program.eqns if equation.primitive.name == "scan"]
    outputs = zip(scan.outvars, scan.params["jaxpr"].jaxpr.outvars, strict=True)
    carried = [outer for outer, inner in outputs if outer.aval.shape == inner.aval.shape]
    assert len(carried) == 3  # total, count and last; w is a constant of the loop
    assert not isinstance(model.w.get(), jax.core.Tracer)


def _with_w(w: Array, loop: Any, model: Counter) -> Any:
    copy = pxnn.shared(model, lambda param: False)
    copy.w.set(w)
    return loop(jnp.array(0.0), model=copy)[1]


def test_shared_parameter_in_a_loop_is_written_once() -> None:
    p = px.Param(jnp.array(1.0))

    def step(x: Array, *, a: px.Param, b: px.Param) -> tuple[tuple[()], None]:
        a += x
        b *= 2  # the same parameter
        return (), None

    pxf.scan(step, jnp.arange(3.0))(a=p, b=p)
    assert p.item() == ((1 + 0) * 2 + 1) * 2 * 2 + 2 * 2  # (((1+0)·2+1)·2+2)·2


def test_random_draws_in_a_loop_advance_the_global_key() -> None:
    def draw(x: Array) -> tuple[tuple[()], Array]:
        return (), px.RKG()

    px.RKG.seed(3)
    _, keys = pxf.jit(pxf.scan(draw, jnp.arange(3)))()
    state = jax.random.PRNGKey(3)
    for key in keys:
        state, expected = jax.random.split(state)
        np.testing.assert_array_equal(key, expected)
    np.testing.assert_array_equal(px.RKG.key.get(), state)


def test_gradient_through_a_loop() -> None:
    model = Counter()

    @pxf.value_and_grad({"model": lambda tree: jax.tree.map(lambda p: p is tree.w, tree, is_leaf=_is_param)})
    def loss(*, model: Counter) -> Array:
        (total,), _ = pxf.scan(advance, XS)(jnp.array(0.0), model=model)
        return total

    def pure(w: Array) -> Array:
        def step(carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], None]:
            last, total = carry
            last = w * x + last
            return (last, total + last.sum()), None

        return jax.lax.scan(step, (jnp.zeros(2), jnp.array(0.0)), XS)[0][1]

    value, grads = loss(model=model)
    expected_value, expected = jax.value_and_grad(pure)(jnp.array([1.0, -2.0]))
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(grads["model"].w.get(), expected, rtol=1e-6)
    assert int(model.count) == 4


def _is_param(node: object) -> bool:
    return isinstance(node, px.BaseParam)


@pytest.mark.parametrize("wrap", [lambda f: f, pxf.jit], ids=["bare", "jit"])
def test_while_loop(wrap: Callable[[Any], Any]) -> None:
    model = Counter()

    def step(n: Array, *, model: Counter) -> tuple[Array]:
        model.advance(jnp.ones(2))
        return (n + 1,)

    def below_five(n: Array, *, model: Counter) -> Array:
        model.last.set(jnp.full(2, jnp.nan))  # what a condition writes or draws is not kept
        px.RKG()
        return model.count < 5

    key = px.RKG.key.get()
    (n,) = wrap(pxf.while_loop(step, below_five))(jnp.array(10), model=model)
    assert (n.item(), int(model.count)) == (15, 5)
    np.testing.assert_allclose(model.last.get(), [5.0, -10.0])
    np.testing.assert_array_equal(px.RKG.key.get(), key)


def test_a_parameter_as_the_condition() -> None:
    def step(n: Array, *, going: px.Param) -> tuple[Array]:
        going.set(n < 2)
        return (n + 1,)

    def goes_on(n: Array, *, going: px.Param) -> Any:
        return going

    (n,) = pxf.while_loop(step, goes_on)(jnp.array(0), going=px.Param(jnp.array(True)))
    assert int(n) == 3


def test_while_loop_with_a_bare_carry() -> None:
    assert pxf.while_loop(lambda n: 2 * n, lambda n: n < 100)(jnp.array(1)) == (128,)


@pytest.mark.parametrize("predicate", [True, False])
@pytest.mark.parametrize("wrap", [lambda f: f, pxf.jit], ids=["bare", "jit"])
def test_cond(predicate: bool, wrap: Callable[[Any], Any]) -> None:
    model = Counter()

    def fill(x: Array, *, model: Counter) -> Array:
        model.empty.set(x)
        model.entries["a"] = 2 * x
        return model.advance(x)

    def fill_otherwise(x: Array, *, model: Counter) -> Array:
        model.empty.set(-x)
        model.entries["a"] = x
        return x.sum() + px.RKG()[0].astype(float) * 0

    key = px.RKG.key.get()
    x = jnp.array([1.0, 2.0])
    y = wrap(pxf.cond(fill, fill_otherwise))(jnp.array(predicate), x, model=model)
    assert y.item() == (-3.0 if predicate else 3.0)
    assert int(model.count) == predicate
    assert model.empty.tolist() == ([1, 2] if predicate else [-1, -2])
    assert model.entries["a"].tolist() == ([2, 4] if predicate else [1, 2])
    after = key if predicate else jax.random.split(key)[0]
    np.testing.assert_array_equal(px.RKG.key.get(), after)


@pytest.mark.parametrize(("index", "taken"), [(-3, 0), (0, 0), (1, 1), (2, 2), (9, 2)])
def test_switch_clamps_its_index(index: int, taken: int) -> None:
    p = px.Param(jnp.array(0.0))

    def branch(number: int) -> Callable[..., Array]:
        def run(x: Array, *, p: px.Param) -> Array:
            p.set(jnp.array(float(number)))
            return x + number

        return run

    y = pxf.switch([branch(0), branch(1), branch(2)])(index, jnp.array(10), p=p)
    assert (y.item(), p.item()) == (10 + taken, taken)


def test_branches_that_are_methods_of_different_models() -> None:
    a, b = pxnn.Linear(2, 2), pxnn.Linear(2, 2)
    assert a.nn.bias is not None
    b.nn.bias = a.nn.bias
    choose = pxf.jit(pxf.cond(a, b))
    x = jnp.ones(2)
    np.testing.assert_allclose(choose(True, x), a.nn.weight @ x + a.nn.bias, rtol=1e-6)
    np.testing.assert_allclose(choose(False, x), b.nn.weight @ x + a.nn.bias, rtol=1e-6)


def test_branches_that_are_methods_of_one_model_write_to_it() -> None:
    model = Counter()
    rest = lambda x: model.last.sum() if False else x.sum()  # noqa: E731  # a plain function beside a method
    assert pxf.cond(model.advance, rest)(True, jnp.ones(2)).item() == -1
    assert int(model.count) == 1
    pxf.cond(model.advance, model.advance)(False, jnp.ones(2))
    assert int(model.count) == 2


def test_a_parameter_decides_and_is_an_argument_too() -> None:
    p: Any = px.Param(jnp.array(True))  # a type checker wants an array as the predicate
    negated = pxf.cond(lambda p: ~p, lambda p: p.get())(p, p)
    assert not negated


class Tally(px.Module):
    """A total that is added to."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.total = px.Param(jnp.array(start))

    def add(self, x: Array) -> Array:
        self.total += x
        return self.total * x

    def add_and_carry(self, x: Array) -> tuple[Array, Array]:
        return x, self.add(x)

    def is_below(self, x: Array) -> Array:
        return x < self.total


NUMBER = jnp.array(3.0)
AROUND: dict[str, Callable[[Any], Any]] = {
    "jit": pxf.jit,
    "value_and_grad": lambda fn: lambda *args: pxf.value_and_grad({})(fn)(*args)[0],
    "switch": lambda fn: lambda *args: pxf.switch([lambda *args: NUMBER, fn])(1, *args),
    "jit of jit": lambda fn: pxf.jit(pxf.jit(fn)),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_functions_that_are_bound_to_models_inside_other_transforms(around: Callable[[Any], Any]) -> None:
    a, b = Tally(0.0), Tally(5.0)
    choose = around(pxf.cond(a.add, b.add))
    for start in (1.0, 10.0):  # the second is set after the function was compiled
        a.total.set(jnp.array(start))
        assert choose(jnp.array(True), NUMBER).item() == 3 * (start + 3)
        assert (a.total.item(), b.total.item()) == (start + 3, 5.0)


def test_gradients_of_the_models_that_branches_are_bound_to() -> None:
    a, b = Tally(1.0), Tally(5.0)
    grads = pxf.grad({"self (1)": True, "self (2)": True})(pxf.cond(a.add, b.add))(jnp.array(True), NUMBER)
    assert [grads[f"self ({number})"].total.item() for number in (1, 2)] == [3.0, 0.0]


def test_a_switch_over_bound_functions_in_a_scan() -> None:
    a, b = Tally(1.0), Tally(5.0)
    _, ys = pxf.scan(pxf.switch([a.add_and_carry, b.add_and_carry]), jnp.array([0, 1, 0]))(NUMBER)
    assert ys.tolist() == [3 * 4, 3 * 8, 3 * 7]
    assert (a.total.item(), b.total.item()) == (7.0, 8.0)


def test_a_while_loop_over_bound_functions_in_a_jit() -> None:
    a, limit = Tally(1.0), Tally(20.0)
    loop = pxf.jit(pxf.while_loop(a.add, limit.is_below))  # 3 · 4, and then 12 · 16
    assert loop(NUMBER)[0].item() == 192
    assert a.total.item() == 16


def test_a_default_that_a_call_replaces_is_not_tracked() -> None:
    default, other = Tally(1.0), Tally(5.0)

    def add(x: Array, model: Tally = default) -> Array:
        return model.add(x)

    choose = pxf.jit(pxf.cond(add, add))
    assert choose(jnp.array(True), NUMBER).item() == 3 * 4
    assert choose(jnp.array(True), NUMBER, model=other).item() == 3 * 8
    assert choose(jnp.array(True), NUMBER, model=default).item() == 3 * 7


def test_exceptions_leave_everything_as_it_was() -> None:
    model = Counter()
    before = [param.get() for param in px.tree_extract(model)]
    key = px.RKG.key.get()

    def fail(*args: Any, model: Counter) -> Any:
        model.advance(jnp.ones(2))
        model.entries["a"] = jnp.ones(1)
        px.RKG()
        raise RuntimeError("planted")

    while_loop: Any = pxf.while_loop  # with functions of no precise type
    calls: list[Callable[[], Any]] = [
        lambda: pxf.scan(fail, XS)(model=model),
        lambda: while_loop(fail, lambda *, model: True)(model=model),
        lambda: while_loop(lambda *, model: (), fail)(model=model),
        lambda: pxf.cond(fail, fail)(True, model=model),
        lambda: pxf.switch([lambda *, model: None, fail])(0, model=model),
        lambda: pxf.jit(pxf.scan(fail, XS))(model=model),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="planted"):
            call()
        for param, value in zip(px.tree_extract(model), before, strict=True):
            assert param.get() is value
        assert px.RKG.key.get() is key


def changing(statement: str) -> Callable[..., Any]:
    """A step or a branch that changes its model."""

    def run(*args: Any, model: Counter) -> Any:
        changed(model, statement, globals())
        return (), None

    return run


nothing, grow, clear = map(changing, ("", "model.last.set(jnp.zeros(3))", "model.last.set(None)"))
CHANGES = [
    (grow, "model.last", r"float32\[2\]", r"float32\[3\]"),
    (changing("model.last.set(model.last.astype(jnp.int32))"), "model.last", r"float32\[2\]", r"int32\[2\]"),
    (changing("model.empty.set(jnp.zeros(3))"), "model.empty", "cleared", r"float32\[3\]"),
    (changing("model.entries['a'] = jnp.zeros(3)"), "model.entries", "cleared", r"float32\[3\]"),
    (clear, "model.last", r"float32\[2\]", "cleared"),
]


@pytest.mark.parametrize(("change", "path", "expected", "found"), CHANGES)
def test_parameters_keep_their_form(change: Any, path: str, expected: str, found: str) -> None:
    model = Counter()
    loops: list[Callable[..., Any]] = [
        pxf.scan(change, XS),
        pxf.while_loop(lambda *, model: change(model=model)[0], lambda *, model: True),
    ]
    for loop in loops:
        with pytest.raises(ValueError, match=f"(?s){path} does not keep its form.*{expected}.*{found}"):
            loop(model=model)
    either = f"{expected}.*{found}|{found}.*{expected}"
    for branch in (pxf.cond(change, nothing), pxf.cond(nothing, change), pxf.switch([nothing, nothing, change])):
        with pytest.raises(ValueError, match=f"(?s){path} does not keep its form.*({either})"):
            branch(0, model=model)


def test_branches_may_change_the_form_alike() -> None:
    model = Counter()
    pxf.cond(grow, grow)(True, model=model)
    assert model.last.shape == (3,)
    pxf.cond(clear, clear)(True, model=model)
    assert model.last.get() is None


def test_an_empty_dict_counts_as_cleared() -> None:
    model = Counter()

    def empty(*args: Any, model: Counter) -> tuple[tuple[()], None]:
        model.entries.set({})
        return (), None

    pxf.scan(empty, XS)(model=model)
    pxf.cond(empty, nothing)(True, model=model)
    assert not model.entries.get()


def test_a_switch_needs_branches() -> None:
    with pytest.raises(ValueError, match="at least one branch"):
        pxf.switch([])


def test_repr() -> None:
    def body(*args: Any) -> Any:
        return (), None

    def other(*args: Any) -> Any: ...

    assert repr(pxf.jit(pxf.scan(body))) == "Jit(fn=Scan(fn=body))"
    assert repr(pxf.while_loop(body, other)) == "WhileLoop(fn=body, cond_fun=other)"
    assert repr(pxf.cond(body, other)) == "Cond(fn=body, other)"
    assert repr(pxf.switch([body, other, body])) == "Switch(fn=body, other, body)"

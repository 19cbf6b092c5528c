"""`jacrev`, `jacfwd` and `hessian` against those of JAX, and closed forms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.functional.support import Holder, Net, Snapshot, State, Traces, Weight, X, refused
from tests.oracles import close

Y = jnp.array([-1.0, 0.5])
W = jnp.array([[1.0, 2.0], [3.0, 4.0]])
MODES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "reverse": (pxf.jacrev, jax.jacrev),
    "forward": (pxf.jacfwd, jax.jacfwd),
}
each_mode = pytest.mark.parametrize("mode", MODES)


def test_the_jacobian_of_a_layer() -> None:
    """∂(Wx)_i / ∂W_jk = δ_ij x_k, and that of x by position is W."""

    @pxf.jacobian({"w": True}, argnums=0)
    def layer(x: jax.Array, *, w: px.Param) -> Any:
        return w @ x

    by_x, by_w = layer(X, w=Weight(W))
    np.testing.assert_array_equal(by_x, W)
    np.testing.assert_array_equal(by_w["w"].get(), np.einsum("ij,k->ijk", np.eye(2), X))
    assert type(by_w["w"]) is Weight


def test_jacobian_is_jacrev_as_in_jax() -> None:
    assert pxf.jacobian is pxf.jacrev


def test_the_hessian_of_a_quartic() -> None:
    """Of |p|⁴: 8 p pᵀ + 4 |p|² I."""
    p = px.Param(X)
    found = pxf.hessian({"p": True})(lambda *, p: jnp.sum(p**2) ** 2)(p=p)["p"]["p"]
    np.testing.assert_allclose(found.get(), 8 * np.outer(X, X) + 4 * np.sum(X**2) * np.eye(2))


@each_mode
@pytest.mark.parametrize("argnums", [(), 0, 1, -1, [0], (1, 0), (-1, 0)])
@pytest.mark.parametrize("has_aux", [False, True])
def test_all_forms_of_the_result(mode: str, argnums: Any, has_aux: bool) -> None:
    ours, raw = MODES[mode]

    def outputs(w: Any, x: Any, y: Any) -> Any:
        return {"a": jnp.tanh(w @ x), "b": (jnp.sum(x * y), None)}

    def fn(x: Any, y: Any, *, w: px.Param) -> Any:
        return (outputs(w.get(), x, y), x, {"y": y}) if has_aux else outputs(w.get(), x, y)

    numbers = [argnums] if isinstance(argnums, int) else list(argnums)

    def arranged(by_argument: Any) -> Any:
        by_w, *positional = by_argument
        tracked = {"w": Weight(by_w)}
        if isinstance(argnums, int):
            return positional[0], tracked
        return (tuple(positional), tracked) if argnums else tracked

    plain = raw(outputs, (0, *(n % 2 + 1 for n in numbers)))(W, X, Y)
    expected: Any = {"a": arranged(plain["a"]), "b": (arranged(plain["b"][0]), None)}
    found = ours({"w": True}, argnums=argnums, has_aux=has_aux)(fn)(X, Y, w=Weight(W))
    close(found, (expected, (X, {"y": Y})) if has_aux else expected)


@pytest.mark.thorough
@pytest.mark.parametrize("argnums", [(), 0, (1, 0)])
@pytest.mark.parametrize("has_aux", [False, True])
def test_all_forms_of_a_hessian(argnums: Any, has_aux: bool) -> None:
    def value(w: Any, x: Any, y: Any) -> Any:
        return jnp.sum(jnp.tanh(w @ x["x"]) ** 2 * y) + jnp.sum(x["x"]) * w[0, 1] ** 3

    def fn(x: Any, y: Any, *, w: px.Param) -> Any:
        return (value(w.get(), x, y), y) if has_aux else value(w.get(), x, y)

    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    point = [W, {"x": X}, Y]
    chosen = [0, *(n + 1 for n in numbers)]
    plain: Any = jax.hessian(value, tuple(chosen))(*point)

    def arranged(by_argument: Any) -> Any:
        by_w, *positional = by_argument
        tracked = {"w": Weight(by_w)}
        if isinstance(argnums, int):
            return positional[0], tracked
        return (tuple(positional), tracked) if argnums else tracked

    inner = [jax.tree.map(arranged, row, is_leaf=lambda node: isinstance(node, tuple)) for row in plain]
    by_w, *positional = inner
    outer: Any = {"w": by_w}
    if argnums != ():
        outer = (positional[0] if isinstance(argnums, int) else tuple(positional)), outer
    hessian: Any = pxf.hessian({"w": True}, argnums=argnums, has_aux=has_aux)(fn)  # type: ignore[call-overload]
    close(hessian({"x": X}, Y, w=Weight(W)), (outer, (Y,)) if has_aux else outer)


@pytest.mark.parametrize("has_aux", [False, True])
@pytest.mark.parametrize("mask", [{"w": False, "cleared": True}, pxu.M(Weight)])
@each_mode
def test_where_nothing_is_differentiated_the_structure_remains(mode: str, mask: Any, has_aux: bool) -> None:
    w, count, cleared = px.Param(X), px.Param(jnp.array(0)), px.Param(None)

    def value(*, w: px.Param, count: px.Param, cleared: px.Param) -> Any:
        count += 1
        return {"a": w * 2.0, "b": (jnp.sum(w.get()), None)}

    def fn(**tracked: Any) -> Any:
        return (value(**tracked), "aux") if has_aux else value(**tracked)

    found = MODES[mode][0](mask, has_aux=has_aux)(fn)(w=w, count=count, cleared=cleared)
    derivatives, aux = found if has_aux else (found, ("aux",))
    assert aux == ("aux",)
    for each in (derivatives["a"], derivatives["b"][0]):
        kept = each.pop("cleared")
        assert each == {"w": None, "count": None}
        assert kept.get() is None if isinstance(mask, dict) else kept is None
    assert derivatives["b"][1] is None
    assert int(count) == 1, "what the function writes is written"


def test_a_hessian_of_nothing_has_the_structure_of_the_keywords() -> None:
    w, count = px.Param(X), px.Param(jnp.array(0))

    @pxf.hessian({"w": False}, has_aux=True)
    def fn(*, w: px.Param, count: px.Param) -> Any:
        count += 1
        return jnp.sum(w**2), w.get()

    derivatives, (aux,) = fn(w=w, count=count)
    assert derivatives == {"w": None, "count": None}
    close(aux, X)
    assert int(count) == 1


@each_mode
def test_a_shared_parameter_is_differentiated_once_at_its_first_occurrence(mode: str) -> None:
    model = Net()

    def raw(first: Any, second: Any, x: Any) -> Any:
        return jnp.tanh(second @ jnp.tanh(first @ x))

    ours, plain = MODES[mode]
    found = ours({"model": pxu.M(Weight)})(lambda x, *, model: model(x))(X, model=model)["model"]
    by_first, by_second = plain(raw, (0, 1))(model.first.get(), model.layers[1].weight.get(), X)
    close(found.first.get(), by_first)
    close(found.layers[1].weight.get(), by_second)
    assert found.layers[0].weight is None
    assert found.state is None
    assert found.layers[0].act_fn is None


def test_the_hessian_of_a_shared_parameter_is_that_of_all_its_uses() -> None:
    p = Weight(jnp.array(3.0))
    model = Holder(first=[p], second={"p": p}, other=px.Param(jnp.array(2.0)))
    found = pxf.hessian({"model": True})(lambda *, model: model.first[0] * model.second["p"] ** 2 * model.other)(
        model=model
    )["model"]
    inner = found.first[0]["model"]
    assert float(inner.first[0]) == 36.0, "of 2 p³: 12 p"
    assert float(inner.other) == 27.0, "of p³: 3 p²"
    assert inner.second == {"p": None}
    assert found.second == {"p": None}
    assert float(found.other["model"].other) == 0.0


def test_the_hessian_of_parameters_that_hold_trees_of_bare_arrays_and_of_arguments() -> None:
    p, q, cleared, bare = px.Param({"a": X, "b": (Y, None)}), px.Param(jnp.array(2.0)), px.Param(None), jnp.array(3.0)

    def value(a: Any, b: Any, q: Any, bare: Any) -> Any:
        return jnp.sum(a * b) * q * bare + jnp.sum(a) ** 2 * q

    @pxf.hessian({("p", "cleared", "bare"): True}, argnums=0)
    def fn(q: px.Param, *, p: px.Param, cleared: px.Param, bare: Any) -> Any:
        return value(p.get()["a"], p.get()["b"][0], q, bare)

    by_q, found = fn(q, p=p, cleared=cleared, bare=bare)
    expected: Any = jax.hessian(value, (0, 1, 2, 3))(X, Y, q.get(), bare)

    def arranged(row: Any) -> Any:
        by_p = px.Param({"a": row[0], "b": (row[1], None)})
        return px.Param(row[2]), {"bare": row[3], "cleared": px.Param(None), "p": by_p}

    rows = [arranged(row) for row in expected]
    close(by_q, rows[2])
    close(found, {"bare": rows[3], "cleared": None, "p": {"a": rows[0], "b": (rows[1], None)}})


def test_outputs_that_are_parameters_count_as_their_values() -> None:
    p = px.Param(X)
    found = pxf.jacrev({"p": True})(lambda *, p: {"p": p, "twice": [2.0 * p, p]})(p=p)
    eye = px.Param(jnp.eye(2))
    close(found, {"p": {"p": eye}, "twice": [{"p": px.Param(2 * jnp.eye(2))}, {"p": eye}]})


def test_parameters_that_hold_trees_and_bare_arrays() -> None:
    p, cache, cleared = px.Param({"a": X, "b": (Y, None)}), px.ParamDict({"u": X}), px.Param(None)

    @pxf.jacfwd({("p", "cache", "bare", "cleared"): True})
    def fn(*, p: px.Param, cache: px.ParamDict, cleared: px.Param, bare: jax.Array) -> Any:
        return jnp.stack([jnp.sum(p.get()["a"] * p.get()["b"][0]), jnp.sum(cache["u"] * bare)])

    found = fn(p=p, cache=cache, cleared=cleared, bare=Y)
    zero = jnp.zeros(2)
    close(found["p"].get(), {"a": jnp.stack([Y, zero]), "b": (jnp.stack([X, zero]), None)})
    close((found["cache"].get(), found["bare"]), ({"u": jnp.stack([zero, Y])}, jnp.stack([zero, X])))
    assert found["cleared"].get() is None


@pytest.mark.parametrize("transform", [pxf.jacrev, pxf.jacfwd, pxf.hessian])
def test_writes_come_back_once_and_draws_advance_the_key_once(transform: Callable[..., Any]) -> None:
    px.RKG.seed(3)
    after, drawn = jax.random.split(jax.random.PRNGKey(3))
    p, count = px.Param(jnp.array(2.0)), px.Param(jnp.array(0))
    traces = Traces()

    def fn(*, p: px.Param, count: px.Param) -> Any:
        traces()
        count += 1
        p *= 3.0  # the derivatives are those at the value before
        return p**2 * jax.random.normal(px.RKG())

    found = transform({"p": True})(fn)(p=p, count=count)["p"]
    noise = jax.random.normal(drawn)
    close(
        (found["p"] if transform is pxf.hessian else found).get(),
        18.0 * noise * (1.0 if transform is pxf.hessian else 2.0),
    )
    assert (float(p), int(count), traces.new()) == (6.0, 1, 1)
    np.testing.assert_array_equal(px.RKG.key.get(), after)


@pytest.mark.parametrize("transform", [pxf.jacrev, pxf.jacfwd, pxf.hessian])
def test_nothing_changes_if_the_function_raises(transform: Any) -> None:
    model = Net()
    before = Snapshot(model)

    def fn(*, model: Net) -> Any:
        model.state *= 2.0
        model.cache["u"] = model.state.get()
        px.RKG()
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        transform({"model": pxu.M(Weight)})(fn)(model=model)
    before.check()


def test_methods_and_bound_models() -> None:
    class Squares(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = px.Param(X)

        @pxf.jacrev({"self": True})
        def squares(self) -> Any:
            return self.p**2

        def __call__(self) -> Any:
            return self.p**2

    model = Squares()
    expected = jnp.diag(2 * X)
    close(model.squares()["self"].p.get(), expected)
    close(pxf.jacfwd({"self": True})(model)()["self"].p.get(), expected)


def test_in_jit_and_vmap() -> None:
    weight, states = Weight(W), State(jnp.stack([X, Y, X - Y]))

    def raw(w: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.sum((w @ s) ** 3)

    @pxf.jit
    @pxf.vmap({"weight": None, "state": 0})
    @pxf.hessian({"state": True})
    def curvature(*, weight: Weight, state: State) -> Any:
        return raw(weight.get(), state.get())

    found = curvature(weight=weight, state=states)["state"]["state"].get()
    close(found, jax.vmap(jax.hessian(raw, 1), (None, 0))(W, states.get()))


def test_a_compiled_hessian_is_traced_once() -> None:
    traces, model = Traces(), Net()

    @pxf.jit
    @pxf.hessian({"model": pxu.M(State)})
    def fn(x: jax.Array, *, model: Net) -> Any:
        traces()
        return jnp.sum(model(model.state.get()) * x)

    for x in (X, Y):
        fn(x, model=model)
    assert traces.new() == 1


def test_forward_through_a_while_loop() -> None:
    def power(*, p: px.Param) -> Any:
        return pxf.while_loop(lambda n, y, *, p: (n + 1, y * p), lambda n, y, *, p: n < 3)(0, jnp.array(1.0), p=p)[1]

    assert float(pxf.jacfwd({"p": True})(power)(p=px.Param(jnp.array(2.0)))["p"]) == 12.0  # of p³


def test_a_hessian_of_a_network_equals_jax() -> None:
    layer = pxnn.Linear(3, 2, rkg=px.RandomKeyGenerator(1))
    x = jnp.array([0.3, -0.5, 1.0])

    def raw(weight: Any, bias: Any) -> Any:
        return jnp.sum(jnp.tanh(weight @ x + bias) ** 2)

    found = pxf.hessian({"layer": pxu.M(pxnn.LayerParam)})(lambda *, layer: jnp.sum(jnp.tanh(layer(x)) ** 2))(
        layer=layer
    )
    outer = found["layer"].nn
    blocks = [[getattr(getattr(outer, a)["layer"].nn, b).get() for b in ("weight", "bias")] for a in ("weight", "bias")]
    close(blocks, [[*row] for row in jax.hessian(raw, (0, 1))(layer.nn.weight.get(), px.get(layer.nn.bias))])


def test_mistakes() -> None:
    model = Holder(p=px.Param(X), count=[px.Param(jnp.array(3))])
    before = Snapshot(model)

    def vector(*, model: Holder) -> Any:
        return model.p.get()

    both = pxu.M(px.Param)
    cases: list[tuple[Any, type[Exception], str]] = [
        (
            pxf.jacrev({"model": both})(vector),
            TypeError,
            r"mask of jacobian selects model\.count\[0\].*int32.*leave it",
        ),
        (pxf.hessian({"model": both})(vector), TypeError, r"mask of hessian selects model\.count\[0\].*int32"),
        (
            pxf.jacfwd({"model": lambda tree: jax.tree.map(lambda _: 0, tree)})(vector),
            TypeError,
            r"mask of jacobian gives 0 for model\.p: expected True",
        ),
        (
            pxf.hessian({})(vector),
            TypeError,
            r"hessian expected .* a scalar, found an array of shape \(2,\).*jacfwd of jac",
        ),
        (pxf.hessian({}, has_aux=True)(vector), TypeError, r"with has_aux, hessian expected .* value, \*aux"),
        (pxf.jacrev(argnums=1)(vector), ValueError, "argnums of jacobian names the positional argument 1"),
        (
            pxf.jacrev({})(lambda *, model: [model.p.get(), (1, 2)]),
            TypeError,
            r"found int32 at output\[1\]\[0\].*has_aux",
        ),
        (pxf.jacfwd({})(lambda *, model: {"a": "text"}), TypeError, r"found str at output\['a'\].*has_aux"),
        (pxf.jacrev({"modle": True})(vector), ValueError, r"'modle'.*\['model'\]"),
    ]
    for fn, error, words in cases:
        with refused(words, error):
            fn(model=model)
    with refused(r'"reverse" or "forward", found \'both\''):
        pxf.Jacobian(vector, mode="both")  # type: ignore[arg-type]
    with refused(r"jacrev\(\.\.\.\) expected the function to transform, found \(ArrayImpl, model=", TypeError):
        pxf.jacrev()(X, model=model)  # type: ignore[call-arg, arg-type]
    with refused(r"hessian\(\.\.\.\) expected the function to transform", TypeError):
        pxf.hessian()(X)  # type: ignore[arg-type]
    before.check()

"""`jvp` and `vjp` against those of JAX, and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.utils as pxu
from tests.functional.support import Holder, Net, Snapshot, State, Traces, Weight, X, refused
from tests.oracles import close

Y = jnp.array([-1.0, 0.5])
W = jnp.array([[1.0, 2.0], [3.0, 4.0]])
V = jnp.array([[0.5, -1.0], [2.0, 0.0]])


def outputs(w: Any, x: Any, y: Any) -> Any:
    return {"a": jnp.tanh(w @ x), "b": (jnp.sum(x * y), None)}


def test_a_product_with_a_vector_from_the_left_and_from_the_right() -> None:
    """Of y = Wx: dy = dW x, and the pullback of c is c xᵀ."""

    def layer(x: jax.Array, *, w: px.Param) -> Any:
        return w @ x

    w = Weight(W)
    value, change = pxf.jvp({"w": True})(layer)({"w": Weight(V)}, X, w=w)
    close((value, change), (W @ X, V @ X))
    value, pullback = pxf.vjp({"w": True})(layer)(X, w=w)
    close((value, pullback(Y)), (W @ X, {"w": Weight(jnp.outer(Y, X))}))
    close(pullback(2 * Y), {"w": Weight(jnp.outer(2 * Y, X))})
    np.testing.assert_array_equal(w.get(), W)


@pytest.mark.parametrize("argnums", [(), 0, 1, -1, [0], (1, 0), (-1, 0)])
@pytest.mark.parametrize("has_aux", [False, True])
def test_all_forms(argnums: Any, has_aux: bool) -> None:
    def fn(x: Any, y: Any, *, w: px.Param) -> Any:
        return (outputs(w.get(), x, y), x, {"y": y}) if has_aux else outputs(w.get(), x, y)

    numbers = [argnums % 2] if isinstance(argnums, int) else [n % 2 for n in argnums]
    point = [W, X, Y]
    directions = [V, X + 1, Y - 2]

    def raw(w: Any, *chosen: Any) -> Any:
        by_number = {0: X, 1: Y} | dict(zip(numbers, chosen, strict=True))
        return outputs(w, by_number[0], by_number[1])

    def arranged(by_argument: Any) -> Any:
        by_w, *positional = by_argument
        tracked = {"w": Weight(by_w)}
        if isinstance(argnums, int):
            return positional[0], tracked
        return (tuple(positional), tracked) if argnums else tracked

    chosen = [0, *(n + 1 for n in numbers)]
    primals, tangents = [point[n] for n in chosen], [directions[n] for n in chosen]
    aux = ((X, {"y": Y}),) if has_aux else ()
    forward: Any = pxf.jvp({"w": True}, argnums=argnums, has_aux=has_aux)(fn)  # type: ignore[call-overload]
    close(forward(arranged(tangents), X, Y, w=Weight(W)), (*jax.jvp(raw, tuple(primals), tuple(tangents)), *aux))

    cotangent = {"a": jnp.array([2.0, -1.0]), "b": (jnp.array(3.0), None)}
    backward: Any = pxf.vjp({"w": True}, argnums=argnums, has_aux=has_aux)(fn)  # type: ignore[call-overload]
    value, pullback, *found_aux = backward(X, Y, w=Weight(W))
    expected, pull = jax.vjp(raw, *primals)
    close((value, pullback(cotangent), tuple(found_aux)), (expected, arranged(pull(cotangent)), aux))


def test_a_gradient_is_a_direction() -> None:
    """The change of a loss along its gradient is the gradient's squared norm."""
    model = Net()
    mask = {"model": pxu.M(Weight | State)}

    def loss(x: jax.Array, *, model: Net) -> Any:
        return jnp.sum(model(model.state * x) ** 2)

    grads = pxf.grad(mask)(loss)(X, model=model)
    _, change = pxf.jvp(mask)(loss)(grads, X, model=model)
    close(change, sum(jnp.sum(array**2) for array in jax.tree.leaves(grads)))


def test_a_product_of_a_hessian_and_a_direction() -> None:
    def raw(p: Any) -> Any:
        return jnp.sum(p) ** 2 * jnp.sum(p**2)

    mask = {"p": True}
    gradient = pxf.grad(mask)(lambda *, p: raw(p.get()))
    _, product = pxf.jvp(mask)(gradient)({"p": px.Param(Y)}, p=px.Param(X))
    close(product, {"p": px.Param(jax.hessian(raw)(X) @ Y)})


def test_tangents_may_be_bare_arrays_and_numbers() -> None:
    fn = pxf.jvp({"a": True, "b": True})(lambda *, a, b: a * b.get())
    close(fn({"a": 1.0, "b": jnp.array(2.0)}, a=jnp.array(3.0), b=px.Param(5.0)), (15.0, 1.0 * 5.0 + 3.0 * 2.0))
    close(fn({"b": 1, "a": np.float32(0.0)}, a=3.0, b=px.Param(jnp.array(5.0))), (15.0, 3.0))


def test_a_shared_parameter_has_one_tangent_and_one_cotangent() -> None:
    p = Weight(jnp.array(3.0))
    model = Holder(first=[p], second={"p": p}, other=px.Param(jnp.array(2.0)))

    def cube(*, model: Holder) -> Any:
        return model.first[0] * model.second["p"] ** 2 * model.other

    value, pullback = pxf.vjp({"model": True})(cube)(model=model)
    grads = pullback(jnp.array(10.0))["model"]
    assert (float(value), float(grads.first[0]), float(grads.other)) == (54.0, 540.0, 270.0)
    assert grads.second == {"p": None}

    direction = jax.tree.map(jnp.ones_like, model)  # which has what is shared once, as JAX is given it
    for tangents in (direction, grads):
        _, change = pxf.jvp({"model": True})(cube)({"model": tangents}, model=model)
        assert float(change) == 54.0 * float(tangents.first[0]) + 27.0 * float(tangents.other)


def test_arguments_that_share() -> None:
    p = px.Param(jnp.array(2.0))
    one, two = Holder(p=p), Holder(p=[p])

    def product(one: Holder, two: Holder) -> Any:
        return one.p * two.p[0]

    (first, second), _ = pxf.vjp(argnums=(0, 1))(product)(one, two)[1](jnp.array(1.0))
    assert float(first.p) == 4.0
    assert first.p is second.p[0]
    _, change = pxf.jvp(argnums=(0, 1))(product)(((first, second), {}), one, two)
    assert float(change) == 16.0


def test_outputs_keep_their_sharing() -> None:
    p = px.Param(X)
    value, change = pxf.jvp({"p": True})(lambda *, p: [p, {"again": p}])({"p": Y}, p=p)
    assert value[0] is value[1]["again"]
    assert value[0] is not p
    assert change[0] is change[1]["again"]
    close((value[0].get(), change[0].get()), (X, Y))
    value, pullback = pxf.vjp({"p": True})(lambda *, p: [p, {"again": p}])(p=p)
    assert value[0] is value[1]["again"]
    close(pullback(value), {"p": px.Param(X)})


def run_jvp(fn: Any, **tracked: Any) -> Any:
    return pxf.jvp({"p": True})(fn)({"p": jnp.array(1.0)}, **tracked)[1]


def run_vjp(fn: Any, **tracked: Any) -> Any:
    return pxf.vjp({"p": True})(fn)(**tracked)[1](jnp.array(1.0))["p"].get()


@pytest.mark.parametrize("product", [run_jvp, run_vjp])
def test_writes_come_back_once_and_draws_advance_the_key_once(product: Any) -> None:
    px.RKG.seed(3)
    after, drawn = jax.random.split(jax.random.PRNGKey(3))
    p, count, traces = px.Param(jnp.array(2.0)), px.Param(jnp.array(0)), Traces()

    def fn(*, p: px.Param, count: px.Param) -> Any:
        traces()
        count += 1
        p *= 3.0
        return p**2 * jax.random.normal(px.RKG())

    close(product(fn, p=p, count=count), 36.0 * jax.random.normal(drawn))
    assert (float(p), int(count), traces.new()) == (6.0, 1, 1)
    np.testing.assert_array_equal(px.RKG.key.get(), after)


@pytest.mark.parametrize("product", [run_jvp, run_vjp])
def test_nothing_changes_if_the_function_raises(product: Any) -> None:
    model, p = Net(), px.Param(jnp.array(2.0))
    before = Snapshot(model, p)

    def fn(*, p: px.Param, model: Net) -> Any:
        p *= 2.0
        model.cache["u"] = p.get()
        px.RKG()
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        product(fn, p=p, model=model)
    before.check()


def test_a_refused_cotangent_leaves_what_was_written() -> None:
    p = px.Param(jnp.array(2.0))

    def fn(*, p: px.Param) -> Any:
        p += 1.0
        return p * X

    _, pullback = pxf.vjp({"p": True})(fn)(p=p)
    with refused(r"like the output, found float32\[\] at the top: expected float32\[2\]", TypeError):
        pullback(jnp.array(1.0))
    assert float(p) == 3.0


def test_in_jit_vmap_and_scan() -> None:
    weight, states = Weight(W), State(jnp.stack([X, Y, X - Y]))

    def raw(w: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.tanh(w @ s)

    def fn(*, weight: Weight, state: State) -> Any:
        return raw(weight.get(), state.get())

    push = pxf.jit(pxf.vmap({"weight": None, "state": 0})(pxf.jvp({"state": True})(fn)))
    pull = pxf.jit(pxf.vmap({"weight": None, "state": 0})(pxf.vjp({"state": True})(fn)))
    directions = jnp.stack([Y, Y, X])

    def by_hand(w: jax.Array, s: jax.Array, v: jax.Array) -> Any:
        return jax.jvp(lambda s: raw(w, s), (s,), (v,))

    expected = jax.vmap(by_hand, (None, 0, 0))(W, states.get(), directions)
    close(push({"state": directions}, weight=weight, state=states), expected)
    _, pullback = pull(weight=weight, state=states)
    expected = jax.vmap(lambda s, c: jax.vjp(lambda s: raw(W, s), s)[1](c)[0])(states.get(), directions)
    close(pxf.vmap()(lambda pullback, c: pullback(c))(pullback, directions), {"state": State(expected), "weight": None})

    def step(v: jax.Array, *, p: px.Param) -> Any:
        _, change = pxf.jvp({"p": True})(lambda *, p: p**2)({"p": v}, p=p)
        p += 1.0
        return (), change

    p = px.Param(jnp.array(1.0))
    _, changes = pxf.scan(step, jnp.array([1.0, 10.0]))(p=p)
    assert changes.tolist() == [2.0, 40.0]
    assert float(p) == 3.0


def test_a_compiled_pullback_is_traced_once() -> None:
    traces, p = Traces(), px.Param(X)

    @pxf.jit
    @pxf.vjp({"p": True})
    def cube(*, p: px.Param) -> Any:
        traces()
        return p**3

    for c in (X, Y):
        close(cube(p=p)[1](c), {"p": px.Param(3 * X**2 * c)})
    assert traces.new() == 1


def test_the_position_of_arguments_in_a_transform_around_it() -> None:
    """The tangents come before the arguments of the function, of which one is static."""
    fn = pxf.jit(static_argnames="n")(pxf.jvp({"p": True})(lambda x, n, *, p: x * p**n))
    close(fn({"p": jnp.array(1.0)}, jnp.array(3.0), 2, p=px.Param(jnp.array(5.0))), (75.0, 30.0))
    close(fn({"p": jnp.array(1.0)}, jnp.array(3.0), n=2, p=px.Param(jnp.array(5.0))), (75.0, 30.0))


def test_mistakes_of_tangents() -> None:
    model = Net()
    before = Snapshot(model)
    mask = {"model": pxu.M(State)}
    fn = pxf.jvp(mask)(lambda x, *, model: model(model.state * x))
    whole = jax.tree.map(jnp.ones_like, model)
    grads = pxf.grad(mask)(lambda x, *, model: jnp.sum(model(model.state * x)))(X, model=model)
    grads["model"].state.set(jnp.ones(3))
    halves = {"model": Holder(state=jnp.ones(2, jnp.float16))}
    pair = pxf.jvp(mask, argnums=(0,))(lambda x, *, model: model(model.state * x))
    one = pxf.jvp(mask, argnums=0)(lambda x, *, model: model(model.state * x))
    cases: list[tuple[Any, tuple[Any, ...], str]] = [
        (fn, (), r"Jvp\(fn=<lambda>\) expected the tangents as its first argument, found no arguments"),
        (fn, (X, X), "jvp expected a dict of tangents by keyword, as grad returns gradients, found"),
        (fn, ({}, X), r"found None at model\.state: expected float32\[2\]"),
        (fn, ({"model": whole}, X), "found an entry at .*, where nothing is differentiated"),
        (fn, (grads, X), r"found float32\[3\] at model\.state: expected float32\[2\]"),
        (fn, (halves, X), r"found float16\[2\] at model\.state: expected float32\[2\]"),
        (fn, ({"model": Holder(state="up")}, X), r"found 'up' at model\.state"),
        (fn, ({"model": Holder(state=1.0)}, X), r"found float32\[\] at model\.state: expected float32\[2\]"),
        (pair, ({}, X), "jvp expected a pair of positional and tracked tangents"),
        (pair, ((X, {}), X), "tangents for 1 positional arguments"),
        (
            one,
            ((jnp.ones(3), {"model": Holder(state=X)}), X),
            r"found float32\[3\] at argument 0: expected float32\[2\]",
        ),
        (one, (({"a": X}, {"model": Holder(state=X)}), X), r"entry at argument 0\['a'\]"),
        (pxf.jvp({"model": pxu.M(px.Param)})(lambda *, model: 1.0), ({},), r"mask of jvp selects model\.n.*int32"),
    ]
    for transformed, args, words in cases:
        tracked = Holder(n=px.Param(jnp.array(1))) if "int32" in words else model
        with refused(words, TypeError):
            transformed(*args, model=tracked)
    before.check()


def test_mistakes_of_cotangents() -> None:
    fn = pxf.vjp({"p": True})(lambda *, p: {"a": p.get(), "b": [p.sum()]})
    _, pullback = fn(p=px.Param(X))
    cases: list[tuple[Any, str]] = [
        (X, "found an entry at the top, where"),
        ({"a": X}, r"found None at \['b'\]\[0\]: expected float32\[\]"),
        ({"a": X, "b": [X]}, r"found float32\[2\] at \['b'\]\[0\]: expected float32\[\]"),
        ({"a": X, "b": [jnp.array(1)]}, r"found int32\[\] at \['b'\]\[0\]: expected float32\[\]"),
    ]
    for cotangent, words in cases:
        with refused(words, TypeError):
            pullback(cotangent)
    close(pullback({"a": X, "b": [1]}), {"p": px.Param(X + 1)})
    with refused(r"vjp expected .* floating-point arrays, found int32 at output\[1\].*has_aux", TypeError):
        pxf.vjp({"p": True})(lambda *, p: (p.sum(), 3))(p=px.Param(X))
    with refused(r"vjp\(\.\.\.\) expected the function to transform", TypeError):
        pxf.vjp()(X)  # type: ignore[arg-type]

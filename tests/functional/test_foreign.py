"""Transforms of JAX, and of libraries on top of it, around functions that write to what they were not given.

They would leave tracers behind. They are refused where they do, and the model is as it was.
"""

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.functional.support import Net, Snapshot, check_no_tracer

X = jnp.array([1.0, -2.0])
WORDS = r"would leave a tracer in this \w+.*plain JAX is not told.*minipcax\.functional.*keyword"
SPEC = jax.sharding.PartitionSpec()  # type: ignore[no-untyped-call]  # jax
LAYER = pxnn.Linear(2, 2, rkg=px.RandomKeyGenerator(0))
STATIC: px.StaticParam[Any] = px.static("before")
Write = Callable[[jax.Array], jax.Array]


def test_a_parameter_from_outside_is_not_written_in_jax_jit() -> None:
    p = px.Param(jnp.zeros(2))

    @jax.jit
    def wrong(x: jax.Array) -> jax.Array:
        p.set(p + x)
        return x

    with pytest.raises(RuntimeError, match=r"a tracer in this Param, .*plain JAX is not told.*minipcax\.functional"):
        wrong(X)
    assert p.tolist() == [0.0, 0.0]

    @pxf.jit
    def right(x: jax.Array, *, p: px.Param) -> jax.Array:
        p.set(p + x)
        return x

    right(X, p=p)
    assert p.tolist() == X.tolist()


def diffrax_solve(f: Write) -> Any:
    diffrax: Any = pytest.importorskip("diffrax")
    term = diffrax.ODETerm(lambda t, y, args: f(y))
    return diffrax.diffeqsolve(term, diffrax.Heun(), t0=0.0, t1=1.0, dt0=0.5, y0=X)


def optimistix_solve(f: Write) -> Any:
    optimistix: Any = pytest.importorskip("optimistix")
    return optimistix.fixed_point(lambda y, args: 0.1 * f(y), optimistix.FixedPointIteration(1e-3, 1e-3), X)


# What runs a function of an array under a transform that minipcax knows nothing of.
FOREIGN: dict[str, Callable[[Write], Any]] = {
    "jit": lambda f: jax.jit(f)(X),
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(X),
    "value_and_grad": lambda f: jax.value_and_grad(lambda x: f(x).sum())(X),
    "jvp": lambda f: jax.jvp(f, (X,), (X,)),
    "vjp": lambda f: jax.vjp(f, X)[1](X),
    "linearize": lambda f: jax.linearize(f, X)[1](X),
    "jacfwd": lambda f: jax.jacfwd(f)(X),
    "jacrev": lambda f: jax.jacrev(f)(X),
    "hessian": lambda f: jax.hessian(lambda x: f(x).sum())(X),
    "vmap": lambda f: jax.vmap(f)(jnp.stack([X, X])),
    "checkpoint": lambda f: jax.grad(lambda x: jax.checkpoint(f)(x).sum())(X),
    "eval_shape": lambda f: jax.eval_shape(f, X),
    "make_jaxpr": lambda f: jax.make_jaxpr(f)(X),
    "scan": lambda f: jax.lax.scan(lambda carry, x: (f(carry), x), X, jnp.zeros(2)),
    "fori_loop": lambda f: jax.lax.fori_loop(0, 2, lambda _, x: f(x), X),
    "while_loop": lambda f: jax.lax.while_loop(lambda x: x[0] > 0.9, f, X),
    "cond": lambda f: jax.lax.cond(True, f, lambda x: x, X),
    "switch": lambda f: jax.lax.switch(1, [lambda x: x, f], X),
    "map": lambda f: jax.lax.map(f, jnp.stack([X, X])),
    "associative_scan": lambda f: jax.lax.associative_scan(lambda a, b: jax.vmap(f)(a + b), jnp.stack([X, X])),
    "checkify": lambda f: checkify.checkify(jax.jit(f))(X),
    "shard_map": lambda f: jax.shard_map(f, mesh=jax.make_mesh((1,), ("i",)), in_specs=SPEC, out_specs=SPEC)(X),
    "vmap in jit": lambda f: jax.jit(jax.vmap(f))(jnp.stack([X, X])),
    "diffrax": diffrax_solve,
    "optimistix": optimistix_solve,
    "jit, around that of minipcax": lambda f: jax.jit(pxf.jit(f))(X),
}


def writes(model: Net) -> dict[str, Write]:
    """The ways to write an array into a model, each a function that gives an array of that shape."""

    def write(to: Callable[[jax.Array], object], x: jax.Array) -> jax.Array:
        to(x)
        return 0.5 * x

    def augment(x: jax.Array) -> None:
        model.state += x

    def through_a_transform(x: jax.Array) -> None:
        pxf.jit(lambda x, *, model: model.state.set(x))(x, model=model)

    return {
        "set": partial(write, model.state.set),
        "value": partial(write, lambda x: setattr(model.state, "value", x)),
        "+=": partial(write, augment),
        "an entry of a dict": partial(write, lambda x: model.cache.__setitem__("u", x)),
        "px.set": partial(write, lambda x: px.set(model.state, x)),
        "tree_inject": partial(write, lambda x: px.tree_inject([model.state], values=[x])),
        "a transform's write-back": partial(write, through_a_transform),
        "a new parameter": partial(write, lambda x: setattr(model, "more", px.Param(x))),
        "a shared weight of a layer": partial(write, lambda x: setattr(LAYER.nn, "bias", pxnn.LayerParam(x))),
        "a static": partial(write, lambda x: STATIC.set(x)),
        "a bare array": partial(write, lambda x: setattr(model, "more", x)),
    }


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_no_tracer_is_left_behind(foreign: Callable[[Write], Any]) -> None:
    model = Net()
    px.RKG.seed(0)
    before = Snapshot(model)
    foreign(lambda x: 0.5 * x)
    for name, write in writes(model).items():
        with pytest.raises((RuntimeError, TypeError), match=r"(?s)tracer in |a value that it is tracing"):
            foreign(write)
            pytest.fail(f"{name} was not refused")
    before.check()


def test_the_global_key_is_not_drawn_from_where_it_cannot_be_given_back() -> None:
    px.RKG.seed(0)
    for draw in (jax.jit(lambda _: px.RKG()), lambda x: jax.lax.map(lambda _: px.RKG(), x)):
        with pytest.raises(RuntimeError, match="a tracer in this RKGState"):
            draw(X)  # type: ignore[no-untyped-call]  # jax
    assert px.RKG.key.tolist() == [0, 0]


def test_it_is_drawn_from_where_jax_differentiates_inside_a_transform() -> None:
    def noisy(x: jax.Array) -> jax.Array:
        return x.sum() * px.RKG()[0].astype(jnp.float32)

    px.RKG.seed(0)
    found = pxf.jit(jax.grad(noisy))(X)
    keys = jax.random.split(jax.random.PRNGKey(0))
    np.testing.assert_array_equal(found, jnp.full(2, keys[1][0].astype(jnp.float32)))
    np.testing.assert_array_equal(px.RKG.key.get(), keys[0])


def mlp() -> Any:
    model = pxl.ResidualNetwork(2, 4, 1, depth=2, rkg=px.RandomKeyGenerator(0))
    return model, pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))


@pytest.mark.thorough
def test_a_training_step_under_a_foreign_transform_is_refused_and_destroys_nothing() -> None:
    xs, ys = jnp.ones((2, 4, 2)), jnp.ones((2, 4, 1))
    step = pxl.PC(2)
    for foreign in (
        lambda f: jax.jit(f)(xs[0], ys[0]),
        lambda f: jax.lax.scan(lambda carry, batch: (carry, f(*batch)), 0.0, (xs, ys)),
        lambda f: jax.vmap(f)(xs, ys),
        lambda f: jax.grad(f)(xs[0], ys[0]),
        lambda f: jax.hessian(f)(xs[0], ys[0]),
    ):
        model, nodes, weights = mlp()
        before = pxl.predict(xs[0], model)
        closed = partial(step, model=model, nodes=nodes, weights=weights)
        with pytest.raises(RuntimeError, match=f"(?s){WORDS}"):
            foreign(lambda x, y, closed=closed: closed(x, y).loss)
        check_no_tracer()
        np.testing.assert_array_equal(pxl.predict(xs[0], model), before)
        step(xs[0], ys[0], model=model, nodes=nodes, weights=weights).check()
        assert not np.array_equal(pxl.predict(xs[0], model), before)


def in_a_thread(f: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(f()))
    thread.start()
    thread.join()
    return results[0]


def made_inside(x: jax.Array) -> px.Param:
    """A parameter that was made in the trace is that trace's own."""
    p = px.Param(x)
    p.set(p + 1)
    p += 1
    return p


def copied_inside(x: jax.Array, model: Net) -> jax.Array:
    twin = copy.deepcopy(model)
    twin.state.set(x)
    total: jax.Array = twin.state + jax.tree.map(lambda a: a, model).state
    return total


def negate(*, model: Net) -> None:
    model.state.set(-model.state.get())


def nested(x: jax.Array, *, model: Net) -> jax.Array:
    """Writes in every trace that it goes through."""
    model.state.set(2 * x)

    @pxf.value_and_grad({"model": lambda tree: pxu.M(px.Param).has(shape=(2,)).to((False, True))(tree)})
    def loss(*, model: Net) -> jax.Array:
        model.state.set(model.state * x)
        pxf.cond(negate, lambda *, model: None)(True, model=model)
        squares: jax.Array = (model.state**2).sum()
        return squares

    value, _ = loss(model=model)
    return value + model.state.sum()


def test_what_is_legal_goes_on_working() -> None:
    model = Net()
    x = X
    np.testing.assert_array_equal(jax.jit(made_inside)(x).get(), x + 2)
    np.testing.assert_array_equal(jax.vmap(made_inside)(x[None]).get(), x[None] + 2)
    assert jax.eval_shape(made_inside, x).shape == (2,)
    np.testing.assert_array_equal(jax.jit(copied_inside)(x, model), x + model.state.get())
    np.testing.assert_array_equal(jax.jit(lambda x: model.state + x)(x), model.state.get() + x)
    np.testing.assert_array_equal(jax.grad(lambda x: (model.state * x).sum())(x), model.state.get())
    # 2x, then -2x·x by the loss: its value and the sum of what it leaves
    expected = ((2 * x * x) ** 2).sum() + (-2 * x * x).sum()
    for call in (pxf.jit(nested), nested):
        np.testing.assert_allclose(call(x, model=Net()), expected, rtol=1e-6)
    with jax.disable_jit():
        np.testing.assert_allclose(pxf.jit(nested)(x, model=Net()), expected, rtol=1e-6)
    with jax.checking_leaks():
        np.testing.assert_allclose(pxf.jit(nested)(x, model=Net()), expected, rtol=1e-6)
    np.testing.assert_allclose(in_a_thread(lambda: pxf.jit(nested)(x, model=model)), expected, rtol=1e-6)
    np.testing.assert_array_equal(model.state.get(), -2 * x * x)
    made = jax.jit(lambda: pxnn.Linear(2, 2, rkg=px.RandomKeyGenerator(0)))()
    made.nn.weight.set(jnp.zeros((2, 2)))  # it is outside now, and so is what it holds
    in_a_thread(lambda: made.nn.weight.set(jnp.ones((2, 2))))
    with pytest.raises(RuntimeError, match=f"(?s){WORDS}"):
        jax.jit(lambda x: made.nn.weight.set(x))(x)
    with jax.ensure_compile_time_eval():
        made.nn.weight.set(jnp.ones((2, 2)))
    jax.jit(lambda x: (made.nn.weight.set(np.zeros((2, 2))), x)[1])(x)  # numbers are no tracers
    assert float(made.nn.weight.sum()) == 0
    check_no_tracer()

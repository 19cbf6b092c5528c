"""What a function reads, is bound to, or holds beside its arguments: it is carried, named, or refused."""

import copy
import functools
import pickle
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn

X = jnp.array(2.0)
A, B, C = (px.Param(jnp.array(value)) for value in (2.0, 3.0, 100.0))
untyped: Any = pxf  # what a type checker would refuse as well
GLOBAL = pxnn.Linear(1, 1, rkg=px.RandomKeyGenerator(0))


def affine(x: jax.Array, *, model: px.Param, model_: Any = 0.0) -> jax.Array:
    y: jax.Array = x * model + model_
    return y


# Functions of a number that run the second of two functions of one.
SECOND: dict[str, Any] = {
    "cond": lambda f, g: partial(pxf.cond(f, g), False),
    "switch": lambda f, g: partial(pxf.switch([f, g]), 1),
}


def test_a_function_may_be_bound_to_a_model() -> None:
    model = px.Param(jnp.array(2.0))
    step = pxf.jit(partial(lambda x, *, model: x * model, model=model))
    assert float(step(jnp.array(3.0))) == 6.0


@pytest.mark.parametrize("choose", SECOND.values(), ids=SECOND)
def test_each_function_keeps_what_it_is_bound_to(choose: Any) -> None:
    f = choose(partial(affine, model=A), partial(affine, model=B))
    assert float(f(X)) == 6.0
    assert float(f(X, model_=C)) == 106.0, "a keyword of the caller's own"
    assert float(f(X, model=C)) == 200.0, "which takes the place of what a function is bound to, as in Python"
    one_is_bound = choose(partial(affine, model=A), lambda x, **given: x + len(given))
    assert float(one_is_bound(X)) == 2.0, "the other is not given it"


def test_loops_keep_what_their_functions_are_bound_to() -> None:
    def step(n: jax.Array, *, model: px.Param, model_: Any = 0.0) -> tuple[jax.Array]:
        return (n + model + model_,)

    def below(n: jax.Array, *, model: px.Param, model_: Any = 0.0) -> jax.Array:
        return n < model

    loop = pxf.while_loop(partial(step, model=A), partial(below, model=C))
    assert float(loop(jnp.array(0.0))[0]) == 100.0
    assert float(loop(jnp.array(0.0), model_=B)[0]) == 100.0
    assert float(loop(jnp.array(0.0), model=B)[0]) == 3.0


def test_what_a_branch_has_by_default_is_written() -> None:
    calls = px.Param(jnp.array(0))

    def count(x: jax.Array, calls: px.Param = calls) -> jax.Array:
        calls += 1
        return x

    pxf.cond(count, count)(True, X)
    pxf.scan(lambda x, calls=calls: ((), count(x, calls)), jnp.arange(3.0))()
    assert int(calls) == 4


def scaled(x: jax.Array) -> jax.Array:
    return GLOBAL(x)


def test_a_model_that_a_compiled_function_reads_is_named() -> None:
    model = pxnn.Linear(1, 1, rkg=px.RandomKeyGenerator(0))
    models = {"of": [model]}

    def inner(x: jax.Array) -> jax.Array:
        return (lambda x: models["of"][0](x))(x)

    x = jnp.ones(1)
    for fn, name in ((lambda x: model(x), "model"), (inner, "models"), (scaled, "GLOBAL"), (partial(scaled), "GLOBAL")):
        with pytest.warns(UserWarning, match=rf"reads {name} from around it.*once and for all.*{name}={name}"):
            pxf.jit(fn)(x)
    with pytest.warns(UserWarning, match="reads model from around it"):
        pxf.jit(pxf.grad(argnums=0)(lambda x: model(x).sum()))(x)


class Trainer:
    def __init__(self) -> None:
        self.layer = pxnn.Linear(1, 1, rkg=px.RandomKeyGenerator(0))

    def forward(self, x: jax.Array) -> jax.Array:
        return self.layer(x)

    def step(self, x: jax.Array, *, given: pxnn.Linear) -> jax.Array:
        return given(x)


def wrapped(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


def test_nor_is_one_in_an_object_or_behind_a_decorator() -> None:
    trainer = Trainer()
    for fn, name in ((wrapped(lambda x: trainer.forward(x)), "fn"), (lambda x: trainer.forward(x), "trainer")):
        with pytest.warns(UserWarning, match=rf"reads {name} from around it.*make its class a Module"):
            pxf.jit(fn)(jnp.ones(1))


def test_nor_is_one_in_the_object_that_a_method_is_bound_to() -> None:
    trainer, x = Trainer(), jnp.ones(1)
    for fn in (trainer.forward, partial(trainer.forward), pxf.checkpoint(trainer.forward)):
        with pytest.warns(UserWarning, match=r"Trainer\.forward reads layer from around it.*make its class a Module"):
            pxf.jit(fn)(x)
    assert jnp.array_equal(pxf.jit(trainer.step)(x, given=trainer.layer), trainer.layer(x))  # which is given
    trainer.layer.frozen = True  # it is not to change
    assert jnp.array_equal(pxf.jit(trainer.forward)(x), trainer.layer(x))


def test_what_is_no_closed_over_model_is_not_warned_of() -> None:
    model, factor = pxnn.Linear(1, 1, rkg=px.RandomKeyGenerator(0)), jnp.ones(1)

    @pxf.jit
    def outer(x: jax.Array, *, model: pxnn.Linear) -> jax.Array:
        y: jax.Array = pxf.jit(lambda x: model(x) * factor)(x)  # a copy that was made in the trace
        return y + px.RKG()[0].astype(jnp.float32)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outer(jnp.ones(1), model=model)
        pxf.jit(model.__call__)(jnp.ones(1))
        pxf.vmap()(lambda x: model(x))(jnp.ones((2, 1)))  # not compiled: read in every call
        with jax.disable_jit():
            pxf.jit(lambda x: model(x))(jnp.ones(1))
        model.frozen = True  # it is not to change
        pxf.jit(lambda x: model(x))(jnp.ones(1))


class Plain:
    def __init__(self, held: Any) -> None:
        self.held = held


HOLDERS: dict[str, tuple[Any, str]] = {
    "a module": (GLOBAL, r"found a Linear that holds a parameter at \.nn\.weight"),
    "a parameter": (A, "found a Param, which"),
    "a list": ([1, GLOBAL], r"at \[1\]\.nn\.weight"),
    "a dict in a tuple": (({"a": A},), r"at \[0\]\['a'\]"),
    "a plain object": (Plain([A]), r"found a Plain that holds a parameter at \.held\[0\].*make that class a Module"),
    "a method": (GLOBAL.__call__, r"at \.__self__\.nn\.weight"),
    "a partial": (partial(affine, model=A), r"at \.keywords\['model'\]"),
    "a closure": ((lambda a: lambda x: a * x)(A), r"at \(a\)"),
    "a default": (lambda x, a=A: a * x, r"at \.__defaults__\[0\]"),
    "a transform": (pxf.jit(GLOBAL.__call__), r"at \.fn\.__self__"),
    "a generator": (px.RandomKeyGenerator(0), r"at \.key"),
}


@pytest.mark.parametrize(("value", "words"), HOLDERS.values(), ids=HOLDERS)
def test_nothing_static_holds_a_parameter(value: Any, words: str) -> None:
    with pytest.raises(TypeError, match=rf"(?s)static\(\.\.\.\) is for what JAX must not trace.*{words}"):
        px.static(value)
    static = px.static("before")
    if not isinstance(value, px.Param):  # which set takes the value of
        with pytest.raises(TypeError, match=words):
            static.set(value)
    assert static == "before"


class Declared(px.Module, static=("block",)):
    block: Any


def test_nor_does_an_attribute_that_a_class_says_is_static() -> None:
    model = Declared()
    with pytest.raises(TypeError, match=r"Declared\.block, which its class says is static.*at \.held\.nn\.weight"):
        model.block = Plain(GLOBAL)
    assert not hasattr(model, "block")
    model.block = Plain("nothing")
    px.static([px.RKG, jax.nn.relu, Plain(jnp.ones(2))])  # RKG goes along with every call


def test_a_plain_object_in_a_model_is_to_become_a_module() -> None:
    model = px.Module()
    setattr(model, "block", Plain(GLOBAL))  # noqa: B010  # it is not declared
    with pytest.raises(TypeError, match=r"model\.block is a Plain, which JAX cannot carry.*make its class a Module"):
        pxf.jit(lambda *, model: None)(model=model)
    setattr(model, "block", Plain(3))  # noqa: B010
    with pytest.raises(TypeError, match=r"model\.block is a Plain, which JAX cannot carry.*wrap it in static"):
        pxf.jit(lambda *, model: None)(model=model)


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.relu, jax.nn.gelu, jnp.add, len, px.get])
def test_functions_of_jax_are_pickled_by_name(function: Any) -> None:
    static = px.static(function)
    vars(static)["frozen"] = True
    for found in (pickle.loads(pickle.dumps(static)), copy.copy(static), copy.deepcopy(static)):
        assert found.get() is function
        assert vars(found) == {"frozen": True}


class Answers(px.Module):
    """A model whose class has a __call__, and so has a tree of answers for it."""

    def __init__(self, a: Any, b: Any) -> None:
        super().__init__()
        self.a, self.b = a, b

    def __call__(self, x: jax.Array) -> jax.Array:
        y: jax.Array = self.a * x + self.b
        return y


@pytest.mark.parametrize("mask", [Answers(True, False), Answers(True, None), lambda tree: Answers(True, False)])
def test_a_tree_of_answers_is_one_whatever_its_class(mask: Any) -> None:
    model = Answers(px.Param(jnp.array(2.0)), px.Param(jnp.array(3.0)))
    grads = pxf.grad({"model": mask})(lambda x, *, model: model(x))(X, model=model)["model"]
    assert float(grads.a) == 2.0
    assert grads.b is None


@pytest.mark.parametrize("axes", [Answers(0, None), lambda tree: Answers(0, None)])
def test_axes_too(axes: Any) -> None:
    model = Answers(px.Param(jnp.arange(3.0)), px.Param(jnp.array(3.0)))
    assert pxf.vmap({"model": axes}, in_axes=None)(lambda x, *, model: model(x))(X, model=model).tolist() == [3, 5, 7]


def test_masks_and_functions_that_were_swapped_are_named() -> None:
    model = Answers(A, B)
    words = r"grad\(\.\.\.\) expected the function to transform, found \(ArrayImpl\).*@grad\(\)"
    with pytest.raises(TypeError, match=words):
        untyped.grad(lambda x: x**2)(X)
    with pytest.raises(TypeError, match=r"vmap\(\.\.\.\).*found \(ArrayImpl, model=\.\.\.\).*write @vmap\(\)"):
        untyped.vmap(lambda x, *, model: model(x))(X, model=model)
    with pytest.raises(TypeError, match=r"value_and_grad\(\.\.\.\).*found \(\)"):
        untyped.value_and_grad({"model": True})()


def test_the_order_of_jax_is_noticed_in_loops() -> None:
    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return carry + x, carry

    with pytest.raises(TypeError, match=r"order of jax\.lax\.scan.*swap x and carry"):
        pxf.scan(step, jnp.arange(4.0))
    with pytest.raises(TypeError, match=r"order of jax\.lax\.scan"):
        untyped.scan(lambda x, total: (total + x, x), X, jnp.arange(4.0))
    with pytest.raises(TypeError, match=r"cond_fun to return a scalar bool.*the step comes first"):
        pxf.while_loop(lambda n: n < 3, lambda n: n + 1)(jnp.array(0))
    with pytest.raises(TypeError, match=r"cond_fun to return a scalar bool"):
        pxf.while_loop(lambda n: n + 1, lambda n: n < jnp.arange(3))(jnp.array(0))


def test_static_keywords() -> None:
    traces: list[Any] = []

    @pxf.jit(static_argnames=("mode", "sizes"))
    def f(x: jax.Array, mode: str = "plus", *, model: px.Param, sizes: Any = None) -> jax.Array:
        traces.append((mode, sizes))
        model += 1
        return x + model if mode == "plus" else x - model

    p = px.Param(jnp.array(0.0))
    assert [float(f(X, model=p)), float(f(X, "minus", model=p)), float(f(X, mode="minus", model=p))] == [3, 0, -1]
    assert float(f(X, model=p, sizes={"a": [1, 2]})) == 6.0
    count = len(traces)
    f(X, model=p, sizes={"a": [1, 2]})
    assert len(traces) == count, "an equal value compiles nothing anew"
    f(X, model=p, sizes={"a": [1, 3]})
    assert len(traces) == count + 1


def test_a_parameter_shows_its_value_where_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    @pxf.jit
    def show(*, p: px.Param) -> None:
        jax.debug.print("p = {p}", p=p)

    show(p=px.Param(jnp.array([1.0, 2.0])))
    jax.effects_barrier()  # type: ignore[no-untyped-call]  # jax
    assert capsys.readouterr().out == "p = [1. 2.]\n"
    assert f"{px.Param(None)}" == "Param(None)"


def test_a_key_is_split_as_its_generator_draws() -> None:
    one, two = px.RandomKeyGenerator(3), px.RandomKeyGenerator(3)
    assert jnp.array_equal(one.key.split(2), two(2))
    assert jnp.array_equal(one.key.get(), two.key.get())


def test_freezing_a_module_freezes_what_is_below() -> None:
    layers = [pxnn.Linear(1, 1), pxnn.Linear(1, 1)]
    model = px.Module()
    setattr(model, "layers", layers)  # noqa: B010  # it is not declared
    model.frozen = True
    assert layers[0].nn.weight.frozen
    assert model.frozen
    layers[1].frozen = False
    assert (layers[0].frozen, layers[1].frozen, model.frozen) == (True, False, False)
    assert not layers[1].nn.weight.frozen

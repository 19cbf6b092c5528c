"""Each misuse is refused with the words that a person needs: where, what was expected and found, what to do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.functional.support import WRAPPERS, Head, Holder, Net, Snapshot, Weight, X, change, refused
from tests.oracles import close


def call_through(name: str, fn: Callable[..., Any], **keywords: Any) -> None:
    def step(x: jax.Array, **keywords: Any) -> jax.Array:
        fn(**keywords)
        return x

    WRAPPERS[name](step)(X[0], **keywords)


through = pytest.mark.parametrize("call", [partial(call_through, name) for name in WRAPPERS], ids=WRAPPERS)


def nothing(**keywords: Any) -> None:
    """Does nothing."""


def test_a_misspelt_or_missing_keyword() -> None:
    def step(x: jax.Array, *, model: Net) -> jax.Array:
        return x

    wrong: Any = pxf.jit(step)
    with pytest.raises(TypeError, match="modle"):
        wrong(X, modle=Net())
    with pytest.raises(TypeError, match="model"):
        wrong(X)


TWICE = "Head is reached by two paths, {0} and {1}, .*split it in two.*nn.shared"


@through
def test_a_module_reached_twice(call: Any) -> None:
    head = Head(Weight(jnp.ones((2, 2))))
    with refused(TWICE.format(r"model\.a", r"model\.b\[1\]\['c'\]"), ValueError):
        call(nothing, model=Holder(a=head, b=[1.0, {"c": head}]))
    with refused(TWICE.format(r"first\.a", "second"), ValueError):
        call(nothing, first=Holder(a=head), second=head)
    with refused(TWICE.format(r"model\[0\]", r"model\[1\]"), ValueError):
        call(nothing, model=[head, head])
    inner = pxf.jit(nothing)
    with refused(TWICE.format("a", "b"), ValueError):
        call(lambda *, head: inner(a=head, b=head), head=head)


@through
def test_a_module_that_holds_itself(call: Any) -> None:
    model = Holder()
    model.layers = [model]
    with refused(r"Holder is reached by two paths, model and model\.layers\[0\]", ValueError):
        call(nothing, model=model)


@through
def test_the_advice_works(call: Any) -> None:
    head = Head(Weight(jnp.ones((2, 2))))
    model = Holder(a=head, b=pxnn.shared(head))

    def step(*, model: Holder) -> None:
        model.a.weight *= 2.0
        model.b.weight += 1.0

    call(step, model=model)
    close(head.weight.get(), 3 * np.ones((2, 2)))


def test_the_global_generator_may_be_reached_often() -> None:
    px.RKG.seed(0)
    model = Holder(a=Holder(rkg=px.RKG), b=Holder(rkg=px.RKG), rkg=px.RKG)
    key = pxf.jit(lambda *, model, rkg: model.b.rkg())(model=model, rkg=px.RKG)
    close(key, jax.random.split(jax.random.PRNGKey(0))[1])


class List(list[Any]):
    """Not one of the lists that JAX looks into."""


@through
@pytest.mark.parametrize(
    "attribute, kind",
    [
        (jnp.tanh, "a ufunc|a function|a PjitFunction"),
        (lambda x: x, "a function"),
        ("relu", "a str"),
        (object(), "an object"),
        (Net, "the class Net"),
        ({1, 2}, "a set"),
        (List([X]), "a List"),
    ],
    ids=["jax function", "lambda", "str", "object", "class", "set", "list subclass"],
)
def test_an_attribute_that_jax_cannot_carry(call: Any, attribute: Any, kind: str) -> None:
    model = Net()
    before = Snapshot(model)
    with refused(rf"model\.layers\[1\]\['name'\] is ({kind}), which JAX cannot carry.*static\(\.\.\.\)", TypeError):
        call(nothing, model=Holder(layers=[model, {"name": attribute}]))
    with refused(rf"^other is ({kind}), which JAX cannot carry.*static\(\.\.\.\)", TypeError):
        call(nothing, model=model, other=attribute)
    call(nothing, model=Holder(layers=[model, {"name": px.StaticParam(attribute)}]))
    before.check()


def test_it_is_noticed_when_it_comes_later() -> None:
    model, step = Net(), pxf.jit(nothing)
    step(model=model)
    setattr(model, "name", "net")  # noqa: B010  # it is not declared
    with refused(r"model\.name is a str", TypeError):
        step(model=model)
    delattr(model, "name")
    step(model=model)
    model.layers.append(model.layers[0])
    with refused(r"model\.layers\[0\] and model\.layers\[2\]", ValueError):
        step(model=model)


@through
@pytest.mark.parametrize(
    "statement, path",
    [
        ("model.scale = X", r"model\.scale"),
        ("model.inner[0].offset = model.inner[0].offset + 1.0", r"model\.inner\[0\]\.offset"),
        ("model.more = X", r"model\.more"),
        ("model.numbers[1] = X[0]", r"model\.numbers\[1\]"),
        ("model.numbers.append(X)", r"model\.numbers\[2\]"),
        ("model.nothing = X", r"model\.nothing"),
    ],
)
def test_bare_arrays_are_read_only(call: Any, statement: str, path: str) -> None:
    model = Holder(scale=2.0, inner=[Holder(offset=X)], numbers=[1.0, 2.0], p=px.Param(X), nothing=None)
    before = Snapshot(model)
    with refused(rf"^{path} was assigned a bare array inside a transform.*read-only.*Param.*\.set", TypeError):
        call(lambda *, model: change(model, statement), model=model)
    before.check()
    assert model.scale == 2.0
    assert model.numbers == [1.0, 2.0]
    assert not hasattr(model, "more")


@through
@pytest.mark.parametrize(
    "statement, words",
    [
        ("model.p = px.Param(X)", r"model\.p was replaced"),
        ("model.ps[0] = X", r"model\.ps\[0\] was replaced.*expected Param"),
        ("del model.p", r"model\.p was removed"),
        ("model.p = None", r"model\.p was removed"),
        ("model.q = px.Param(X)", r"model\.q was created"),
        ("model.ps.append(px.Param(X))", r"model\.ps\[2\] was created"),
        ("model.ps[0], model.ps[1] = model.ps[1], model.ps[0]", r"model\.ps\[0\] was replaced"),
    ],
)
def test_which_parameters_there_are_does_not_change_inside(call: Any, statement: str, words: str) -> None:
    model = Holder(p=px.Param(X), ps=[px.Param(X), px.Param(X)])
    before = Snapshot(model)
    with refused(rf"{words}.*do this outside, and use \.set inside", ValueError):
        call(lambda *, model: change(model, statement), model=model)
    before.check()


@through
def test_an_array_in_the_place_of_a_parameter(call: Any) -> None:
    model = Net()
    before = Snapshot(model)

    def assign(*, model: Any) -> None:
        model.state = X

    with refused(r"Net\.state holds a State.*\.state\.set\(\.\.\.\)", TypeError):
        call(assign, model=model)
    before.check()


def test_a_cleared_parameter_in_arithmetic() -> None:
    with refused("State is cleared", AttributeError):
        pxf.jit(lambda *, model: model.cleared + 1.0)(model=Net())


def test_a_donated_array_used_again() -> None:
    model, x = Holder(inner=Holder(p=px.Param(X + 0.0))), X + 0.0

    def step(x: jax.Array, *, model: Holder) -> jax.Array:
        model.inner.p *= 2.0
        return 3.0 * x

    donating = pxf.jit(donate_argnames="model", donate_argnums=0)(step)
    old = model.inner.p.get()
    donating(x, model=model)
    stale = Holder(inner=Holder(p=px.Param(old)))
    for call in (pxf.jit(step), donating):
        for path, arguments in ((r"model\.inner\.p", (X + 0.0, stale)), ("argument 0", (x, model))):
            words = f"^{path} holds an array that was donated to an earlier call.*do not donate"
            with refused(words, RuntimeError):
                call(arguments[0], model=arguments[1])
    close(model.inner.p.get(), 2 * X)


def test_what_is_no_array() -> None:
    step = pxf.jit(lambda x, *, model: None)
    with refused("^argument 0 is or holds a str, .*expected arrays or numbers.*static_argnums", TypeError):
        step({"name": "relu"}, model=Net())
    with refused(r"^model\.ps\[1\] is or holds a function, .*expected arrays.*static\(\.\.\.\)", TypeError):
        step(X, model=Holder(ps=[px.Param(X), px.Param(lambda x: x)]))


@pytest.mark.parametrize("use", [jnp.zeros, range, bool])
def test_a_number_that_should_be_structure(use: Callable[[Any], Any]) -> None:
    model = Holder(inner=Holder(steps=3), p=px.Param(X), x=X)
    inner = pxf.value_and_grad({})(lambda *, model: (use(model.inner.steps), jnp.zeros(()))[1])
    with pytest.raises(TypeError) as caught:
        pxf.jit(lambda *, model: inner(model=model))(model=model)
    (note,) = [note for note in caught.value.__notes__ if "static" in note]
    assert note.startswith("model.inner.steps: traced, as numbers are; wrap a size or flag in static(...)")


@through
def test_a_parameter_set_to_what_is_no_array(call: Any) -> None:
    model = Holder(ps=[px.Param(X), px.Param(X)])
    before = Snapshot(model)
    with refused(r"parameter model\.ps\[1\] was set to 'relu'.*expected an array.*static\(\.\.\.\)", TypeError):
        call(lambda *, model: model.ps[1].set("relu"), model=model)
    before.check()


@pytest.mark.parametrize(
    "output, found",
    [(X, r"an array of shape \(2,\)"), ((X[0], X), "a tuple"), (None, "a NoneType")],
    ids=["array", "tuple", "None"],
)
def test_a_loss_that_is_no_scalar(output: Any, found: str) -> None:
    model = Net()
    before = Snapshot(model)
    with refused(f"expected the function to return a scalar, found {found}: sum or average it.*has_aux", TypeError):
        pxf.grad({"model": True})(lambda *, model: output)(model=model)
    before.check()


none_given: Any = pxf.cond(jnp.sum, jnp.sum)


@pytest.mark.parametrize(
    "loop, words",
    [
        (lambda: pxf.scan(lambda x, c: (X, x), X)(X[0]), r"carry of scan changes.*float32\[\].*float32\[2\]"),
        (lambda: pxf.scan(lambda x, c: ((c, c), x), X)(X[0]), r"carry of scan changes.*float32\[\]"),
        (lambda: pxf.scan(lambda x, c: c, X)(X), r"scan expected the function to return \(carry, y\)"),
        (lambda: pxf.while_loop(lambda c: c > 0, lambda c: c < 0)(X[0]), r"carry of while_loop changes.*float32.*bool"),
        (
            lambda: pxf.cond(lambda x: x, lambda x: (x, x))(True, X),
            "branches return different outputs: expected float32",
        ),
        (
            lambda: pxf.switch([jnp.sum, jnp.negative])(0, X),
            r"different outputs: expected float32\[\], found float32\[2\]",
        ),
        (none_given, "a predicate or index as its first argument, found no arguments"),
    ],
)
def test_control_flow_keeps_its_form(loop: Callable[[], Any], words: str) -> None:
    with refused(words, TypeError) as caught:
        loop()
    assert "state" not in str(caught.value)


def test_a_python_number_in_control_flow_takes_on_any_type() -> None:
    close(pxf.scan(lambda x, total: (total + x, None), X)(0)[0], (3.0,))
    close(pxf.while_loop(lambda n: n + 1.5, lambda n: n < 3)(0), (3.0,))
    close(pxf.cond(lambda x: x, lambda x: 7)(False, jnp.array(1)), 7)


def test_axes_that_do_not_fit() -> None:
    with refused(r"in_axes of vmap does not fit argument 1: .*found \{'a': 0\}", ValueError):
        pxf.vmap(in_axes=(0, {"a": 0}))(lambda x, y: x)(X, {"b": X})
    with refused("in_axes of vmap gives 'a' for argument 0: expected an axis", TypeError):
        pxf.vmap(in_axes=("a",))(lambda x: x)(X)
    model = Holder(p=px.Param(None))
    with refused(r"expected model\.p to have axis 1, but the function writes a value of shape \(\)", ValueError):
        pxf.vmap({"model": 1})(lambda x, *, model: model.p.set(x))(X, model=model)
    assert model.p.get() is None


@pytest.mark.parametrize(
    "transformed",
    [
        pxf.jit,
        lambda fn: pxf.scan(lambda x, c: (fn(c), x), X),
        lambda fn: pxf.while_loop(fn, lambda c: c > 0),
        lambda fn: pxf.while_loop(lambda c: c, fn),
        lambda fn: lambda x: pxf.cond(fn, lambda x: x)(x > 0, x),
        lambda fn: lambda x: pxf.switch([fn, fn])(0, x),
    ],
)
def test_messages_of_jax_name_the_function_of_the_user(transformed: Callable[[Any], Any]) -> None:
    def decides(x: jax.Array) -> jax.Array:
        return jnp.where(bool(x > 0), x, x)

    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        transformed(decides)(jnp.array(1.0))
    assert "test_messages.py" in str(caught.value)
    assert "minipcax" not in str(caught.value).replace(__file__, "")

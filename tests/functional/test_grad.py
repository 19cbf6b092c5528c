"""`value_and_grad` and `grad` against `jax.value_and_grad`, and closed forms."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.utils as pxu
from tests.functional.support import Holder, Net, Snapshot, State, Weight, X, refused
from tests.oracles import close

Y = jnp.array([-1.0, 0.5])
W = jnp.array([[1.0, 2.0], [3.0, 4.0]])


DERIVATIVES: dict[str, Any] = {
    "grad": pxf.grad,
    "value_and_grad": pxf.value_and_grad,
    "vjp": pxf.vjp,
    "jacrev": pxf.jacrev,
    "jacfwd": pxf.jacfwd,
    "hessian": pxf.hessian,
    "jvp": lambda *mask, **options: lambda fn: partial(pxf.jvp(*mask, **options)(fn), {}),
}


def by_hand(w: Any, x: Any, y: Any) -> jax.Array:
    return jnp.sum(jnp.tanh(w @ x) * y**2)


def test_the_gradients_are_those_of_jax() -> None:
    """Of (wx)², with respect to the parameters that the mask selects."""

    @pxf.value_and_grad({"w": True})
    def loss(x: jax.Array, *, w: px.Param) -> jax.Array:
        return (w * x) ** 2

    w = px.Param(jnp.array(2.0))
    value, grads = loss(jnp.array(3.0), w=w)
    expected, by_w = jax.value_and_grad(lambda w: (w * 3.0) ** 2)(2.0)
    assert float(value) == expected == 36.0
    assert float(grads["w"]) == by_w == 2 * (2.0 * 3.0) * 3.0
    assert float(w) == 2.0, "the model is as it was"


@pytest.mark.parametrize("argnums", [(), 0, 1, -1, -2, [0], (0, 1), [1, 0], (-1, 0)])
@pytest.mark.parametrize("has_aux", [False, True])
def test_all_forms_of_the_result(argnums: Any, has_aux: bool) -> None:
    def loss(x: Any, y: Any, *, w: px.Param) -> Any:
        value = by_hand(w.get(), x, y)
        return (value, x, {"y": y}) if has_aux else value

    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    raw: Any = jax.value_and_grad(by_hand, (0, *(n % 2 + 1 for n in numbers)))
    value, (grad_w, *grads) = raw(W, X, Y)
    expected: Any = {"w": Weight(grad_w)}
    if isinstance(argnums, int):
        expected = (grads[0], expected)
    elif argnums:
        expected = (tuple(grads), expected)

    both: Any = pxf.value_and_grad({"w": True}, argnums=argnums, has_aux=has_aux)(loss)  # type: ignore[call-overload]
    only: Any = pxf.grad({"w": True}, argnums=argnums, has_aux=has_aux)(loss)  # type: ignore[call-overload]
    aux = (X, {"y": Y})
    close(both(X, Y, w=Weight(W)), (((value, aux) if has_aux else value), expected))
    close(only(X, Y, w=Weight(W)), (expected, aux) if has_aux else expected)


@pytest.mark.parametrize("transform", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize("options", [{}, {"argnums": ()}, {"has_aux": False}])
def test_neither_a_mask_nor_argnums(transform: Any, options: dict[str, Any]) -> None:
    """JAX differentiates the first argument by default; here there is no default, in the call if not before."""
    w, calls = px.Param(jnp.array(2.0)), px.Param(jnp.array(0))

    def square(x: Any, *, w: px.Param, calls: px.Param) -> Any:
        calls += 1
        return w * x**2

    name = "jacobian|hessian|grad|vjp|jvp"
    with refused(rf"^({name}) was not told what to differentiate: .*argnums=0.*mask", TypeError):
        transform(**options)(square)(3.0, w=w, calls=calls)
    assert int(calls) == 0


@pytest.mark.parametrize("mask", [{}, {"w": None}, lambda tree: dict.fromkeys(tree)])
def test_a_mask_that_selects_nothing_is_no_mistake(mask: Any) -> None:
    value, grads = pxf.value_and_grad(mask)(lambda x, *, w: w * x)(3.0, w=px.Param(jnp.array(2.0)))
    assert (float(value), grads) == (6.0, {"w": None})


def test_positional_trees_and_parameters() -> None:
    tree, p = {"a": X, "b": (Y, None)}, State(jnp.array(2.0))

    @pxf.grad(argnums=(0, 1))
    def loss(tree: Any, p: px.Param) -> Any:
        p *= 3.0
        return p * jnp.sum(tree["a"] * tree["b"][0])

    positional, tracked = loss(tree, p)
    close(positional, ({"a": 6.0 * Y, "b": (6.0 * X, None)}, State(3.0 * jnp.sum(X * Y))))
    assert tracked == {}
    assert float(p) == 2.0


@pytest.mark.parametrize("argnums, count", [(2, 2), (-3, 2), ([0, 5], 2), (0, 0)])
def test_argnums_beyond_the_arguments(argnums: Any, count: int) -> None:
    def loss(*args: jax.Array) -> jax.Array:
        return jnp.sum(args[0])

    with pytest.raises(ValueError, match=rf"argnums .* argument \S+, but the call has {count} of them"):
        pxf.Grad(loss, argnums=argnums)(*[X, Y][:count])


def test_the_gradients_have_the_structure_of_the_keywords() -> None:
    model = Net()
    model.state.note = "kept"  # type: ignore[attr-defined]  # any attribute may be set
    extra = [State(jnp.array(2.0)), {"a": (px.Param(jnp.array(3.0)),)}]

    @pxf.grad({"model": pxu.M(State | px.ParamDict), "extra": True})
    def loss(*, model: Net, extra: Any, x: jax.Array) -> Any:
        return jnp.sum(model(model.state.get()) + model.cache["u"]) * extra[0] * extra[1]["a"][0] * x

    def raw(state: Any, cache: Any, first: Any, second: Any) -> Any:
        head = jnp.diag(jnp.array([0.5, 0.5]))
        return jnp.sum(jnp.tanh(head @ jnp.tanh(W @ state)) + cache["u"]) * first * second

    grads: dict[str, Any] = loss(model=model, extra=extra, x=jnp.array(1.0))
    expected = jax.grad(raw, (0, 1, 2, 3))(model.state.get(), model.cache.get(), jnp.array(2.0), jnp.array(3.0))
    assert list(grads) == ["extra", "model", "x"]
    found = grads["model"]
    assert type(found) is Net
    assert type(found.state) is State
    assert found.state is not model.state
    assert vars(found.state) == {"note": "kept"}
    assert type(found.cache) is px.ParamDict
    assert found.first is None
    assert [layer.weight for layer in found.layers] == [None, None]
    assert type(found.cleared) is State
    assert found.cleared.get() is None
    assert grads["x"] is None
    assert type(grads["extra"][0]) is State
    assert type(grads["extra"][1]["a"][0]) is px.Param
    parts = found.state.get(), found.cache.get(), grads["extra"][0].get(), grads["extra"][1]["a"][0].get()
    close(parts, expected)


def test_a_shared_parameter_gets_the_sum_at_its_first_occurrence() -> None:
    p = Weight(jnp.array(3.0))
    model = Holder(first=[px.Param(jnp.array(2.0)), p], second={"p": p}, third=p)

    @pxf.value_and_grad(pxu.M(px.Param).to((False, True)))
    def loss(*, b: Holder, a: px.Param) -> Any:
        return a * b.first[1] * b.second["p"] * b.third

    value, grads = loss(a=model.first[0], b=model)
    assert float(value) == 54.0
    # d(2 p³)/dp = 6 p², d(a p³)/da = p³
    assert float(grads["a"]) == 27.0
    assert grads["b"].first[0] is None
    assert float(grads["b"].first[1]) == 54.0
    assert type(grads["b"].first[1]) is Weight
    assert grads["b"].second == {"p": None}
    assert grads["b"].third is None


@pytest.mark.parametrize("transform", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize(
    "mask, answers",
    [
        ({"head": True}, "None and True"),
        ({"backbone": True}, "True and None"),
        ({"backbone": False, "head": True}, "False and True"),
        ({"head": pxu.M(px.Param).to((False, True))}, "None and True"),
        ({"head": pxu.M(px.Param)}, "None and True"),
        ({("head", "backbone"): True, "backbone": None}, "None and True"),
    ],
)
def test_a_parameter_that_one_keyword_selects_and_another_does_not_is_refused(
    transform: Any, mask: Any, answers: str
) -> None:
    w = px.Param(jnp.array(3.0))
    with refused(rf"gives {answers} to one parameter, .* at backbone\['w'\] and head\['w'\]: .*in all .*once"):
        transform(mask)(lambda *, backbone, head: head["w"] ** 2)(backbone={"w": w}, head={"w": w})


@pytest.mark.parametrize(
    "mask",
    [
        {("backbone", "head"): True},
        {"backbone": pxu.M(px.Param), "head": True},
        {"backbone": pxu.M(px.Param).to((False, True)), "head": {"w": True}},
        pxu.M(px.Param),
    ],
)
def test_a_parameter_that_all_keywords_select_has_its_gradient_in_the_first(mask: Any) -> None:
    w = px.Param(jnp.array(3.0))
    grads = pxf.grad(mask)(lambda *, backbone, head: backbone["w"] * head["w"])(backbone={"w": w}, head={"w": w})
    assert float(grads["backbone"]["w"]) == jax.grad(lambda w: w**2)(3.0)
    assert grads["head"] == {"w": None}
    unselected = pxf.grad({"backbone": None, "head": False})(lambda *, backbone, head: head**2)(backbone=w, head=w)
    assert unselected == {"backbone": None, "head": None}


def all_true(tree: Any) -> Any:
    return jax.tree.map(lambda node: True, tree, is_leaf=lambda node: isinstance(node, px.BaseParam))


class Mask:
    """Any callable will do."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, tree: Any) -> Any:
        self.calls.append(tree)
        return all_true(tree)


class PytreeMask(Mask):
    def __call__(self, tree: Any, *, is_pytree: bool = False) -> Any:
        assert is_pytree
        return super().__call__(tree)


@pytest.mark.parametrize(
    "mask, chosen",
    [
        ({}, ""),
        ({"a": True}, "a"),
        ({"a": None, "b": False, "c": True}, "c"),
        ({("a", "c"): True}, "ac"),
        ({("a",): True, "b": all_true}, "ab"),
        ({("b", "c"): all_true, "a": pxu.M(Weight)}, "abc"),
        (all_true, "abc"),
        (pxu.M(Weight), "a"),
        (pxu.M(Weight | State).to((False, True)), "ab"),
        (pxu.M(Weight | State).to((None, True)), "ab"),
        (~pxu.M(Weight), "bc"),
        (lambda tree: {"a": None, "b": tree["b"], "c": None}, "b"),
        (lambda tree: {**dict.fromkeys(tree), "c": all_true(tree["c"])}, "c"),
        ({("a", "b"): lambda tree: jax.tree.map(lambda array: bool(array[0] < 0), tree)}, "b"),
        (Mask(), "abc"),
        (PytreeMask(), "abc"),
    ],
)
def test_every_form_of_a_mask(mask: Any, chosen: str) -> None:
    params = {"a": Weight(X), "b": State(Y), "c": px.Param(X + Y)}
    grads = pxf.grad(mask)(lambda *, a, b, c: jnp.sum(a * b * c))(**params)
    expected = {"a": Y * (X + Y), "b": X * (X + Y), "c": X * Y}
    assert "".join(name for name in grads if grads[name] is not None) == chosen
    for name in chosen:
        close(grads[name].get(), expected[name])


def test_a_mask_is_called_once_on_all_keywords() -> None:
    mask, p = Mask(), Weight(X)
    pxf.grad(mask)(lambda *, b, a: jnp.sum(a * b["p"]))(b={"p": p}, a=p)
    (tree,) = mask.calls
    assert sorted(tree) == ["a", "b"]
    # The parameter once, in sorted order, and a placeholder that is no dynamic parameter in the other place.
    assert tree["a"] is p
    assert isinstance(tree["b"]["p"], px.BaseParam)
    assert not isinstance(tree["b"]["p"], px.DynamicParam)


def test_a_mask_for_a_keyword_is_called_once_on_its_subtree() -> None:
    mask, model = Mask(), Net()
    model.layers = []
    pxf.grad({("model",): mask})(lambda *, model, x: jnp.sum(model.first @ x))(model=model, x=X)
    assert [type(tree) for tree in mask.calls] == [Net]
    assert mask.calls[0].first is model.first


def test_bare_arrays_have_gradients_too() -> None:
    grads = pxf.grad({"x": True})(lambda *, x, y: x * y)(x=jnp.array(2.0), y=jnp.array(3.0))
    assert float(grads["x"]) == 3.0
    assert grads["y"] is None


def test_parameters_that_hold_trees() -> None:
    p = px.Param({"a": X, "b": (Y, None)})
    grads = pxf.grad({"p": True})(lambda *, p: jnp.sum(p.get()["a"] * p.get()["b"][0]))(p=p)
    close(grads["p"].get(), {"a": Y, "b": (X, None)})


def test_cleared_parameters_are_cleared_in_the_gradients() -> None:
    p, q, cache = px.Param(None), px.Param(jnp.array(2.0)), px.ParamDict()

    @pxf.value_and_grad({("p", "q", "cache"): True})
    def loss(*, p: px.Param, q: px.Param, cache: px.ParamDict) -> Any:
        p.set(2.0 * q)
        cache["x"] = q.get()
        return p * q

    value, grads = loss(p=p, q=q, cache=cache)
    assert (float(value), float(grads["q"]), float(p)) == (8.0, 8.0, 4.0)
    assert grads["p"].get() is None
    assert grads["cache"].get() is None
    close(cache.get(), {"x": np.array(2.0)})


def test_the_value_may_be_a_parameter() -> None:
    value, grads = pxf.value_and_grad({"p": True})(lambda *, p: p)(p=px.Param(jnp.array(2.0)))
    assert isinstance(value, jax.Array)
    assert float(grads["p"]) == 1.0


def test_aux_may_hold_parameters() -> None:
    p = px.Param(jnp.array(2.0))

    @pxf.value_and_grad({"p": True}, has_aux=True)
    def loss(*, p: px.Param) -> tuple[Any, px.Param, None]:
        p *= 2.0
        return p * p, p, None

    (value, (copy, nothing)), grads = loss(p=p)
    assert (float(value), float(copy), nothing, float(grads["p"])) == (16.0, 4.0, None, 16.0)
    assert copy is not p


def test_draws_in_a_differentiated_function() -> None:
    px.RKG.seed(3)
    state, key = jax.random.split(jax.random.PRNGKey(3))
    grads = pxf.grad({"p": True})(lambda *, p: p * jax.random.normal(px.RKG()))(p=px.Param(jnp.array(1.0)))
    close(grads["p"].get(), jax.random.normal(key))
    assert jnp.array_equal(px.RKG.key.get(), state)


def cube(*, p: px.Param) -> Any:
    return p**3


def test_grad_of_jit_and_jit_of_grad() -> None:
    p = px.Param(jnp.array(2.0))
    for fn in (
        pxf.grad({"p": True})(pxf.jit(cube)),
        pxf.jit(pxf.grad({"p": True})(cube)),
        pxf.jit(pxf.grad({"p": True})(pxf.jit(cube))),
    ):
        grads = fn(p=p)
        assert float(grads["p"]) == 12.0
        assert type(grads["p"]) is px.Param
        assert grads["p"] is not p


def test_second_derivatives() -> None:
    p = px.Param(jnp.array(2.0))

    def slope(*, p: px.Param) -> Any:
        return pxf.grad({"p": True})(cube)(p=p)["p"]

    assert float(pxf.grad({"p": True})(slope)(p=p)["p"]) == 12.0  # 6 p
    assert float(pxf.jit(pxf.grad({"p": True})(pxf.jit(slope)))(p=p)["p"]) == 12.0

    def curvature(*, p: px.Param) -> Any:
        return pxf.grad({"p": True})(slope)(p=p)["p"].get()

    assert float(pxf.grad({"p": True})(curvature)(p=p)["p"]) == 6.0


def test_mixed_second_derivatives() -> None:
    a, b = px.Param(jnp.array(2.0)), px.Param(jnp.array(5.0))

    def slope(*, a: px.Param, b: px.Param) -> Any:
        return pxf.grad({"b": True})(lambda *, a, b: a**3 * b**2)(a=a, b=b)["b"]

    assert float(pxf.grad({"a": True})(slope)(a=a, b=b)["a"]) == 120.0  # 6 a² b


def test_a_hessian_by_vmap_of_grad_of_grad() -> None:
    p = px.Param(X)

    def quartic(x: jax.Array) -> jax.Array:
        return jnp.sum(x) ** 2 * jnp.sum(x**2)

    def along(direction: jax.Array, *, p: px.Param) -> Any:
        grads = pxf.grad({"p": True})(lambda *, p: quartic(p.get()))(p=p)
        return grads["p"] @ direction

    rows = pxf.vmap({"p": None})(pxf.grad({"p": True})(along))(jnp.eye(2), p=p)
    close(rows["p"].get(), jax.hessian(quartic)(X))


def test_vmap_of_grad_with_parameters_of_a_sample_and_of_all() -> None:
    weight, state = Weight(W), State(jnp.stack([X, Y, X - Y]))

    def raw(w: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.sum((w @ s) ** 3)

    @pxf.vmap({"weight": None, "state": 0})
    @pxf.value_and_grad({("weight", "state"): True})
    def loss(*, weight: Weight, state: State) -> Any:
        return raw(weight.get(), state.get())

    value, grads = loss(weight=weight, state=state)
    expected = jax.vmap(jax.value_and_grad(raw, (0, 1)), (None, 0))(W, state.get())
    close((value, (grads["weight"].get(), grads["state"].get())), expected)
    assert (type(grads["weight"]), type(grads["state"])) == (Weight, State)


def test_grad_of_vmap() -> None:
    weight, state = Weight(W), State(jnp.stack([X, Y, X - Y]))

    @pxf.value_and_grad({("weight", "state"): True})
    def loss(*, weight: Weight, state: State) -> Any:
        mapped = pxf.vmap({"weight": None, "state": 0})(lambda *, weight, state: jnp.sum((weight @ state) ** 3))
        return mapped(weight=weight, state=state).sum()

    def raw(w: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.sum((s @ w.T) ** 3)

    value, grads = loss(weight=weight, state=state)
    close((value, (grads["weight"].get(), grads["state"].get())), jax.value_and_grad(raw, (0, 1))(W, state.get()))


def test_the_gradient_is_of_the_value_before_the_writes() -> None:
    p = px.Param(jnp.array(2.0))

    @pxf.value_and_grad({"p": True})
    def loss(*, p: px.Param) -> Any:
        p *= 3.0  # p is now 3 times what the gradient is with respect to
        return p * p

    value, grads = loss(p=p)
    assert (float(value), float(grads["p"]), float(p)) == (36.0, 36.0, 6.0)


def test_stop_gradient_and_custom_derivatives() -> None:
    @jax.custom_jvp
    def clipped(x: Any) -> Any:
        return jnp.clip(x, -1.0, 1.0)

    clipped.defjvp(lambda primals, tangents: (clipped(*primals), tangents[0]))

    @pxf.grad({"p": True})
    def loss(*, p: px.Param) -> Any:
        return clipped(p.get()) * jax.lax.stop_gradient(p.get())

    assert float(loss(p=px.Param(jnp.array(5.0)))["p"]) == 5.0


def test_masks_that_do_not_fit() -> None:
    def loss(*, model: Net, x: jax.Array) -> jax.Array:
        return jnp.sum(model.state.get())

    model = Net()
    before = Snapshot(model)
    masks: list[tuple[Any, type[Exception], str]] = [
        ({"modle": True}, ValueError, r"'modle'.*\['model', 'x'\]"),
        ({("model", "y"): True}, ValueError, r"'y'.*\['model', 'x'\]"),
        (3, TypeError, "callable or a dict.*found 3"),
        (lambda tree: True, ValueError, r"\['model', 'x'\].*found True"),
        (lambda tree: {"model": True}, ValueError, r"\['model', 'x'\].*found \{'model': True\}"),
        (lambda tree: {"model": [True], "x": None}, ValueError, "'model' does not fit.*same structure.*found"),
        ({"model": lambda tree: {"a": True}}, ValueError, "'model' does not fit.*same structure.*found"),
        ({"model": 0}, TypeError, r"gives 0 for model\.first: expected True, False or None"),
        ({"model": lambda tree: jax.tree.map(lambda p: "yes", tree)}, TypeError, r"gives 'yes' for model\.first"),
    ]
    for mask, error, words in masks:
        with refused(words, error):
            pxf.grad(mask)(loss)(model=model, x=X)
    before.check()


def test_integers_have_no_gradients() -> None:
    model = Holder(p=px.Param(X), count=[px.Param(jnp.array(3))], cache=px.ParamDict({"n": jnp.array(1)}))
    with refused(r"selects model\.count\[0\], whose dtype is int32.*leave it out of the mask", TypeError):
        pxf.grad({"model": pxu.M(px.Param)})(lambda *, model: jnp.sum(model.p.get()))(model=model)
    with refused(r"selects model\.cache, whose dtype is int32", TypeError):
        pxf.grad({"model": pxu.M(px.ParamDict)})(lambda *, model: jnp.sum(model.p.get()))(model=model)


def test_functions_that_return_something_else() -> None:
    p = px.Param(X)
    with refused("scalar", TypeError):
        pxf.grad({"p": True})(lambda *, p: p.get())(p=p)
    with refused(r"has_aux.*value, \*aux", TypeError):
        pxf.grad({"p": True}, has_aux=True)(lambda *, p: p.sum())(p=p)
    empty: Any = lambda *, p: ()  # noqa: E731  # a type checker sees that this is wrong
    with refused(r"has_aux.*value, \*aux", TypeError):
        pxf.grad({"p": True}, has_aux=True)(empty)(p=p)


def test_what_is_not_differentiated_has_none_for_gradient() -> None:
    model = {"w": Weight(W), "state": State(X), "act": px.static(jnp.tanh), "twice": px.static(2)}

    @pxf.grad({"model": pxu.M(Weight)})
    def loss(*, model: dict[str, Any]) -> jax.Array:
        return jnp.sum(model["act"](model["w"] @ X))

    gradient = loss(model=model)["model"]
    assert type(gradient.pop("w")) is Weight
    assert gradient == dict.fromkeys(("state", "act", "twice"))

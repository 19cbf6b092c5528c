"""Methods, callable modules, bound and default arguments, and what transforms show of themselves."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from tests.functional.support import Traces, check_no_tracer, differentiated
from tests.oracles import close


class Counter(px.Module):
    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.count = px.Param(jnp.array(start))
        self.step_size = px.static(1.0)

    @pxf.jit
    def add(self, x: Any, times: float = 1.0) -> Any:
        """Adds."""
        self.count += times * x * self.step_size.get()
        return 10.0 * self.count

    def plain(self, x: Any, *, scale: float = 1.0) -> Any:
        self.count += x * scale
        return self.count.get()

    @pxf.jit
    def decorated(self, x: Any) -> Any:
        return self.plain(x)

    @pxf.jit
    @pxf.value_and_grad({"self": True})
    def slope(self, x: Any) -> Any:
        self.plain(x)
        return self.count**2

    @pxf.jit
    def twice(self, x: Any) -> Any:
        self.add(x)
        return self.add(x, 2.0)

    def __call__(self, x: Any) -> Any:
        return self.plain(x)

    @property
    @pxf.jit
    def doubled(self) -> Any:
        return 2.0 * self.count

    @staticmethod
    @pxf.jit
    def tripled(x: Any) -> Any:
        return 3.0 * x


class Child(Counter):
    @pxf.jit
    def add(self, x: Any, times: float = 1.0) -> Any:
        return -super().add(x, times)


class Compiled(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = px.Param(jnp.array(0.0))

    @pxf.jit
    def __call__(self, x: Any) -> Any:
        self.count += x
        return self.count.get()


def test_decorated_methods_track_self() -> None:
    model = Counter()
    assert float(model.add(2.0)) == 20.0
    assert float(model.add(2.0, 3.0)) == 80.0
    assert float(model.add(x=2.0, times=1.0)) == 100.0
    assert float(model.count) == 10.0
    assert float(model.twice(1.0)) == 130.0
    assert float(model.count) == 13.0
    check_no_tracer()


def test_methods_of_two_models_do_not_mix() -> None:
    a, b = Counter(), Counter(100.0)
    a.add(1.0)
    b.add(2.0)
    add = a.add
    add(1.0)
    assert (float(a.count), float(b.count)) == (2.0, 102.0)


def test_a_method_called_on_the_class_with_self_by_keyword() -> None:
    model = Counter()
    add: Any = Counter.add  # a type checker wants self first
    add(1.0, self=model)
    assert float(model.count) == 1.0


class Everything(px.Module):
    """A method through every transform."""

    def __init__(self) -> None:
        super().__init__()
        self.p = px.Param(jnp.array(2.0))

    def change(self, x: Any, times: int = 1) -> Any:
        self.p *= x * times
        return self.p**2

    jit = pxf.jit(change)
    jit_of_static = pxf.jit(static_argnums=1)(change)
    checkpoint = pxf.checkpoint(change)
    grad = pxf.grad({"self": True}, argnums=0)(change)
    vjp = pxf.vjp({"self": True})(change)
    jvp = pxf.jvp(argnums=0)(change)
    jacfwd = pxf.jacfwd({"self": True})(change)
    hessian = pxf.hessian({"self": True})(change)
    switch = pxf.switch([change, change])
    nested = pxf.jit(pxf.value_and_grad({"self": True})(pxf.checkpoint(change)))

    def reset(self, x: Any) -> Any:
        self.p.set(jnp.array(5.0))
        return x * self.p

    vmap = pxf.vmap(in_axes=(0,))(reset)
    of_others = pxf.jit(lambda x: 3.0 * x)

    def scanned(self, x: Any, total: Any) -> Any:
        self.p += x
        return total + self.p, None

    scan: Any = pxf.jit(pxf.scan(scanned, jnp.arange(3.0)))  # type: ignore[misc]  # mypy takes self for x
    while_loop = pxf.while_loop(lambda self, x: self.change(x), lambda self, x: self.p < 100.0)


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "jit_of_static": (3.0, 2),
    "jvp": ((jnp.array(1.0), {}), jnp.array(3.0)),
    "vmap": (jnp.arange(3.0),),
    "switch": (1, 3.0),
    "scan": (0.0,),
    "while_loop": (jnp.array(3.0),),
}
METHODS = [
    name for name, value in vars(Everything).items() if hasattr(value, "fn") and name not in ("of_others", "vmap")
]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_called_through_its_class_is_that_of_the_instance(name: str) -> None:
    by_class, by_instance = Everything(), Everything()
    args = ARGUMENTS.get(name, (jnp.array(3.0),))
    found, expected = getattr(Everything, name)(by_class, *args), getattr(by_instance, name)(*args)
    if name == "vjp":
        (value, found), (same, expected) = found, expected
        found, expected = (value, found(value)), (same, expected(same))
    close(found, expected)
    assert float(by_class.p) == float(by_instance.p) != 2.0
    check_no_tracer()


def test_a_subclass_that_calls_the_method_of_its_base_by_the_name_of_the_class() -> None:
    class Loud(Counter):
        def add(self, x: Any, times: float = 1.0) -> Any:
            return -Counter.add(self, x, times=times)

        @pxf.jit
        def decorated(self, x: Any) -> Any:
            return -Counter.decorated(self, x)

    model = Loud()
    assert [float(model.add(1.0)), float(model.add(1.0, 2.0)), float(model.decorated(4.0))] == [-10.0, -30.0, -7.0]
    assert float(model.count) == 7.0


def test_a_transform_that_a_class_gives_is_what_it_was() -> None:
    assert Counter.add is Counter.add
    assert isinstance(Counter.add, pxf.Jit)
    assert isinstance(Everything.nested.fn, pxf.ValueAndGrad)
    assert repr(Everything.nested) == "Jit(fn=ValueAndGrad(fn=Checkpoint(fn=change(times=1))))"
    assert repr(pxf.vmap()(Counter.slope)) == "Vmap(fn=Jit(fn=ValueAndGrad(fn=slope)))"
    assert [*inspect.signature(Counter.add).parameters] == ["self", "x", "times"]
    assert Counter.add.__wrapped__ is Counter.add.fn is vars(Counter)["add"].fn  # type: ignore[attr-defined]  # set by functools
    assert "func" in Counter.add.lower(Counter(), 1.0).as_text()
    assert float(Everything.of_others(2.0)) == 6.0


def test_nested_transforms_as_methods() -> None:
    model = Counter(2.0)
    value, grads = model.slope(1.0)
    assert (float(value), float(grads["self"].count)) == (9.0, 6.0)
    assert float(model.count) == 3.0
    assert type(grads["self"]) is Counter


def test_inheritance_properties_and_static_methods() -> None:
    child = Child()
    assert float(child.add(1.0)) == -10.0
    assert float(child.count) == 1.0
    assert float(child.doubled) == 2.0
    tripled: Any = [child.tripled, Counter.tripled]  # mypy takes them for methods
    assert [float(fn(2.0)) for fn in tripled] == [6.0, 6.0]


def test_a_compiled_call_operator() -> None:
    model = Compiled()
    assert [float(model(1.0)), float(model(1.0))] == [1.0, 2.0]
    assert float(pxf.jit(model)(1.0)) == 3.0
    assert float(pxf.vmap({"self": None})(model).fn(1.0)) == 4.0  # the model itself
    assert float(model.count) == 4.0


def statics_only() -> Any:
    class Scale(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = px.static(2.0)

        def __call__(self, x: Any) -> Any:
            return self.factor.get() * x

    return Scale()


def test_a_bound_model_is_current_although_it_has_no_parameters() -> None:
    model, traces = statics_only(), Traces()
    compiled = pxf.jit(model)
    method = pxf.jit(model.__call__)
    assert (float(compiled(1.0)), float(method(1.0))) == (2.0, 2.0)
    model.factor.set(3.0)
    assert (float(compiled(1.0)), float(method(1.0))) == (3.0, 3.0)

    @pxf.jit
    def in_training(*, model: Any) -> Any:
        traces()
        return 1.0 if model.is_train else 0.0

    in_training(model=model)
    model.train()
    assert float(in_training(model=model)) == 1.0


def add_to(x: Any, *, p: px.Param) -> Any:
    p += x
    return p.get()


def plain(x: Any, *, c: Counter, scale: float = 1.0) -> Any:
    return c.plain(x * scale)


def by_default(model: Counter) -> Callable[..., Any]:
    return lambda x, *, c=model: c.plain(x)


# Ways to bind a function to a model.
BINDINGS: dict[str, Callable[[Counter], Any]] = {
    "bound_method": lambda model: model.plain,
    "callable_module": lambda model: model,
    "decorated_method": lambda model: model.decorated,
    "partial_keyword": lambda model: partial(plain, c=model),
    "partial_of_partial": lambda model: partial(partial(plain, c=model), scale=1.0),
    "partial_overriding": lambda model: partial(partial(plain, c=Counter(50.0)), c=model),
    "partial_of_a_method": lambda model: partial(model.plain, scale=1.0),
    "keyword_default": by_default,
    "positional_default": lambda model: lambda x, c=model: c.plain(x),
    "overridden_default": lambda model: partial(by_default(Counter(70.0)), c=model),
    "containers": lambda model: partial(lambda x, *, cs: cs["a"][0].plain(x), cs={"a": [model]}),
    "one_parameter": lambda model: partial(add_to, p=model.count),
}
TRANSFORMS: dict[str, Any] = {
    "jit": pxf.jit,
    "jit-jit": lambda fn: pxf.jit(pxf.jit(fn)),
    "value_and_grad": differentiated,
    "jit-value_and_grad": lambda fn: differentiated(pxf.jit(fn)),
    "partial-jit": lambda fn: pxf.jit(partial(pxf.jit(fn))),
}


@pytest.mark.parametrize("bind", BINDINGS.values(), ids=BINDINGS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_bound_models_are_tracked(bind: Any, transform: str) -> None:
    model = Counter()
    fn = TRANSFORMS[transform](bind(model))
    assert [float(fn(jnp.array(1.0))) for _ in range(3)] == [1.0, 2.0, 3.0]
    model.count.set(jnp.array(100.0))
    assert float(fn(jnp.array(1.0))) == 101.0
    assert float(model.count) == 101.0


@pytest.mark.parametrize("bind", BINDINGS.values(), ids=BINDINGS)
def test_bound_models_are_tracked_by_vmap(bind: Any) -> None:
    model = Counter()
    lanes = pxf.vmap(in_axes=0)(bind(model))

    def same(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x, (2,))

    with pytest.raises(ValueError, match=r"count has axis None|p has axis None"):
        lanes(jnp.array([1.0, 2.0]))
    assert float(model.count) == 0.0
    model.count.set(same(jnp.array(5.0)))
    mapped = pxf.vmap(lambda tree: jax.tree.map(lambda count: 0, tree))(bind(model))
    for fn in (mapped, pxf.jit(mapped)):
        model.count.set(jnp.array([5.0, 6.0]))
        assert fn(jnp.array([1.0, 2.0])).tolist() == [6.0, 8.0]
        assert model.count.tolist() == [6.0, 8.0]


def test_a_call_overrides_what_is_bound() -> None:
    bound, default, given = Counter(), Counter(), Counter()

    def step(x: Any, c: Counter = default, *, k: Counter = default) -> Any:
        return c.plain(x) + k.plain(x)

    fn = pxf.jit(partial(step, k=bound))
    fn(1.0, k=given)
    assert [float(c.count) for c in (bound, default, given)] == [0.0, 1.0, 1.0]
    fn(1.0, c=given)
    assert [float(c.count) for c in (bound, default, given)] == [1.0, 1.0, 2.0]
    fn(1.0, given)  # by position, where it is a copy
    assert [float(c.count) for c in (bound, default, given)] == [2.0, 1.0, 2.0]
    fn(1.0)
    assert [float(c.count) for c in (bound, default, given)] == [3.0, 2.0, 2.0]


def test_what_is_bound_without_parameters_stays_a_python_value() -> None:
    def step(name: str, x: Any, *, power: int = 2, c: Counter) -> Any:
        assert name == "name"
        return c.plain(x**power)

    model = Counter()
    fn = pxf.jit(partial(step, "name", power=3))
    assert float(fn(2.0, c=model)) == 8.0
    assert float(pxf.jit(partial(step, "name"))(2.0, c=model)) == 12.0


def test_parameters_bound_by_position_are_refused() -> None:
    def step(c: Counter, x: Any) -> Any:
        return c.plain(x)

    with pytest.raises(TypeError, match=r"(?s)step.* bound to parameters by position.*bind them by keyword"):
        pxf.jit(partial(step, Counter()))


def test_the_global_generator_as_a_default_is_no_keyword() -> None:
    px.RKG.seed(0)
    state, key = jax.random.split(jax.random.PRNGKey(0))

    @pxf.value_and_grad(lambda tree: dict.fromkeys(tree, True))
    def step(x: Any, rkg: px.RandomKeyGenerator = px.RKG, *, other: Any = px.RKG) -> Any:
        return x * jax.random.normal(rkg())

    value, grads = step(1.0)
    assert grads == {}
    np.testing.assert_allclose(value, jax.random.normal(key), rtol=1e-6)
    assert jnp.array_equal(px.RKG.key.get(), state)


def scaled(x: Any, *, factor: float = 2.0) -> Any:
    return factor * x


def shifted(x: Any, by: int = 1, *, factor: float = 2.0, name: str = "n") -> Any:
    return factor * x + by


def loss(x: Any, *, p: px.Param) -> Any:
    return p * x


@pytest.mark.parametrize(
    "transform, expected",
    [
        (pxf.jit(loss), "Jit(fn=loss)"),
        (pxf.jit(pxf.value_and_grad({})(loss)), "Jit(fn=ValueAndGrad(fn=loss))"),
        (pxf.jit(scaled), "Jit(fn=scaled(*, factor=2.0))"),
        (pxf.jit(partial(scaled, factor=3.0)), "Jit(fn=scaled(*, factor=3.0))"),
        (pxf.vmap()(partial(shifted, factor=3.0)), "Vmap(fn=shifted(by=1, *, factor=3.0, name='n'))"),
        (pxf.jit(partial(shifted, 5.0, 7)), "Jit(fn=shifted(5.0, 7, *, factor=2.0, name='n'))"),
        (pxf.grad({})(pxf.vmap({})(pxf.jit(loss))), "Grad(fn=Vmap(fn=Jit(fn=loss)))"),
        (pxf.jit(Counter()), "Jit(fn=Counter)"),
        (pxf.jit(Counter().plain), "Jit(fn=plain(*, scale=1.0))"),
        (pxf.jit(lambda x: x), "Jit(fn=<lambda>)"),
        (pxf.jit(abs), "Jit(fn=abs)"),
        (pxf.jit(max), "Jit(fn=max)"),
        (Counter.slope, "Jit(fn=ValueAndGrad(fn=slope))"),
        (pxf.vmap()(Counter().slope), "Vmap(fn=Jit(fn=ValueAndGrad(fn=slope)))"),
        (pxf.jit(partial(pxf.vmap()(loss), p=px.Param(None))), "Jit(fn=Vmap(fn=loss))"),
    ],
)
def test_repr_names_every_layer(transform: Any, expected: str) -> None:
    assert repr(transform) == expected


def test_a_transform_looks_like_its_function() -> None:
    assert vars(Counter)["add"].__name__ == Counter.add.__name__ == "add"  # type: ignore[attr-defined]  # set by functools
    assert Counter.add.__doc__ == "Adds."
    compiled = pxf.jit(pxf.vmap()(shifted))
    assert inspect.signature(compiled) == inspect.signature(shifted)
    assert (compiled.__name__, compiled.__module__) == ("shifted", __name__)  # type: ignore[attr-defined]  # set by functools
    assert compiled.__wrapped__.__wrapped__ is shifted  # type: ignore[attr-defined]  # set by functools
    assert pxf.jit(shifted).fn is shifted

"""`jit`: its options, what its program returns, donation, and arrays on several devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
from tests.functional.support import Holder, Net, Snapshot, Traces, Weight, X, check_no_tracer, copied, refused
from tests.oracles import close, run_on_devices


def test_equals_jax() -> None:
    model = Net()
    weights = [p.get() for p in px.tree_extract(model)][:2]

    def by_hand(weights: list[Any], x: Any) -> Any:
        return jnp.tanh(weights[1] @ jnp.tanh(weights[0] @ x))

    compiled = pxf.jit(lambda x, *, model: model(x))
    close(compiled(X, model=model), jax.jit(by_hand)(weights, X))


@pytest.mark.parametrize("decorate", [pxf.jit, pxf.jit(), pxf.jit(keep_unused=True), pxf.jit(inline=True)])
def test_bare_and_with_options(decorate: Any) -> None:
    fn = decorate(lambda x, *, p: x * p)
    assert isinstance(fn, pxf.Jit)
    assert float(fn(2.0, p=px.Param(jnp.array(3.0)))) == 6.0


@pytest.mark.parametrize(
    "static_argnums, args",
    [
        (0, ("double", X)),
        (-2, ("double", X)),
        (1, (X, "double")),
        (-1, (X, "double")),
        ((0, 2), ("double", X, ("also", None))),
        ((-1, 0), ("double", X, ("also", None))),
    ],
)
@pytest.mark.parametrize("donate", [(), "p"])
def test_static_argnums(static_argnums: Any, args: tuple[Any, ...], donate: Any) -> None:
    traces = Traces()

    @pxf.jit(static_argnums=static_argnums, donate_argnames=donate)
    def step(*args: Any, p: px.Param) -> Any:
        traces()
        (x,) = [arg for arg in args if isinstance(arg, jax.Array)]
        assert "double" in args
        p += x
        return 2.0 * x

    p = px.Param(jnp.zeros(2))
    for _ in range(2):
        close(step(*args, p=p), 2 * X)
    close(p.get(), 2 * X)
    assert traces.new() == 1


def test_another_static_argument_retraces() -> None:
    traces = Traces()

    @pxf.jit(static_argnums=0)
    def power(n: int, x: jax.Array, *, p: px.Param) -> Any:
        traces()
        return p.get() * x**n

    p = px.Param(jnp.array(1.0))
    assert [float(power(n, jnp.array(2.0), p=p)) for n in (1, 2, 1, 3, 2)] == [2.0, 4.0, 2.0, 8.0, 4.0]
    assert traces.new() == 3


def test_a_static_name_that_is_not_given_leaves_what_is_shared_shared() -> None:
    p = px.Param(jnp.array(1.0))

    @pxf.jit(static_argnames="flag")
    def same(params: list[px.Param], flag: bool = True) -> jax.Array:
        return jnp.array(params[0] is params[1])

    assert same([p, p])


def several(x: Any, n: Any = 2, *, p: Any = None, mode: Any = None) -> Any:
    return x * n if isinstance(n, int) else 1j  # a traced number is not an int


OPTIONS: list[dict[str, Any]] = [
    {"static_argnums": 1},
    {"static_argnums": (0, 1)},
    {"static_argnames": "n"},
    {"static_argnames": ["mode", "n"]},
    {"static_argnames": "mode"},
    {"static_argnums": 1, "static_argnames": "mode"},
    {"static_argnums": 7},
    {"static_argnums": -7},
    {"static_argnums": "n"},
    {"static_argnames": "q"},
    {"static_argnames": ("n", "q")},
    {"static_argnames": 3},
    {"static_argnames": [3]},
    {"static_argnames": "n", "donate_argnums": 1},
    {"static_argnames": "n", "donate_argnames": "n"},
    {"donate_argnums": 9},
    {"donate_argnames": "q"},
]
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((2.0,), {}),
    ((2.0, 3), {}),
    ((2.0,), {"n": 3}),
    ((2.0,), {"mode": "m", "n": 3}),
    ((2.0, 3), {"mode": "m"}),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_static_and_donated_arguments_are_those_of_jax(options: dict[str, Any]) -> None:
    """Also what is named by its position and given by keyword, or the other way around, and every mistake."""

    def outcome(jit: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        try:
            compiled = jit(several, **options)
        except (TypeError, ValueError) as error:
            return type(error), str(error)
        try:
            return complex(compiled(*args, **keywords))
        except (TypeError, ValueError) as error:
            return type(error)

    def compiled(fn: Any, **options: Any) -> Any:
        return pxf.jit(**options)(fn)

    for args, keywords in CALLS:
        assert outcome(compiled, args, keywords) == outcome(jax.jit, args, keywords)


def test_static_arguments_of_methods_and_of_control_flow() -> None:
    class Power(px.Module):
        @pxf.jit(static_argnames="n")
        def by_name(self, x: Any, n: int) -> Any:
            return x**n if n > 1 else x

        @pxf.jit(static_argnums=1)
        def by_number(self, x: Any, n: int) -> Any:
            return x**n if n > 1 else x

    x, power = jnp.array(2.0), Power()
    assert [float(y) for y in (power.by_name(x, 3), power.by_name(x, n=3), power.by_number(x, n=3))] == [8.0] * 3
    with refused(r"static_argnums=\(2,\).* only accepts 2 positional arguments"):
        pxf.jit(static_argnums=2)(Power.by_number.fn)  # the function itself

    branches = pxf.jit(static_argnames="n")(pxf.cond(lambda x, n: x**n, lambda x, n: x * n))
    assert (float(branches(True, x, 3)), float(branches(False, x, 3))) == (8.0, 6.0)
    choice = pxf.jit(static_argnums=2)(pxf.switch([lambda x, n: x**n, lambda x, n: x * n]))
    assert (float(choice(0, x, 3)), float(choice(1, x, n=3))) == (8.0, 6.0)

    def step(x: Any, total: Any, *, times: Any) -> Any:
        return (total + x * range(times.get())[-1],), None

    loop = pxf.jit(donate_argnums=0)(pxf.scan(step, jnp.arange(3.0)))
    assert float(loop(jnp.array(0.0), times=px.static(3))[0][0]) == 6.0
    with refused(r"donate_argnums=\(1,\).* only accepts 1 positional"):
        pxf.jit(donate_argnums=1)(pxf.scan(step, jnp.arange(3.0)))


def test_static_arguments_that_would_never_change_again() -> None:
    layer, p = pxnn.Linear(2, 2), px.Param(X)
    cases: list[tuple[dict[str, Any], tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        (
            {"static_argnums": 1},
            (X, layer),
            {},
            TypeError,
            r"argument 1 is a static .* a Linear that holds a p.*weight",
        ),
        ({"static_argnames": "n"}, (X,), {"n": [layer]}, TypeError, r"n is a static .* a list that holds .*\[0\]\.nn"),
        ({"static_argnames": "n"}, (X,), {"n": p}, TypeError, r"n is a static argument of jit, found a Param"),
        ({"static_argnames": "n"}, (X,), {"n": X}, ValueError, r"n is a static .* found an ArrayImpl.*leave it out"),
        ({"static_argnames": "n"}, (X,), {"n": np.ones(2)}, ValueError, r"n is a static .* found a ndarray"),
        ({"static_argnums": 1}, (X, X), {}, ValueError, "(?i)non-hashable static arguments"),
    ]
    for options, args, keywords, error, words in cases:
        with refused(words, error):
            pxf.jit(**options)(lambda x, n: x)(*args, **keywords)


def changed(lowered: jax.stages.Lowered) -> list[Any]:
    """The parameters that a program returns."""
    *_, changes = lowered.out_info
    return jax.tree.leaves(changes)


def test_a_program_returns_only_the_parameters_that_change() -> None:
    model = Net()

    @pxf.jit
    def read(x: jax.Array, *, model: Net) -> jax.Array:
        return model(x)

    @pxf.jit
    def write(x: jax.Array, *, model: Net) -> jax.Array:
        model.state += x
        model.first.set(model.first.get())
        model.cache["u"] = model.cache["u"]
        return x

    assert changed(read.lower(X, model=model)) == []
    (state,) = changed(write.lower(X, model=model))
    assert (state.shape, state.dtype) == ((2,), jnp.float32)
    before = copied([p.get() for p in px.tree_extract(model)])
    read(X, model=model)
    jax.tree.map(np.testing.assert_array_equal, [p.get() for p in px.tree_extract(model)], before)


def test_a_parameter_that_does_not_change_keeps_its_very_array() -> None:
    model = Net()
    values = {id(p): p.get() for p in px.tree_extract(model)}
    cache = model.cache.get()

    @pxf.jit
    def write(x: jax.Array, *, model: Net) -> None:
        model.state += x

    write(X, model=model)
    for p in px.tree_extract(model):
        assert (p.get() is values[id(p)]) == (p is not model.state)
    assert model.cache.get() is cache


def test_an_inner_program_returns_only_the_parameters_that_change() -> None:
    model = Net()

    @pxf.jit
    def inner(x: jax.Array, *, model: Net) -> None:
        model.state += x

    @pxf.jit
    def outer(x: jax.Array, *, model: Net) -> None:
        inner(x, model=model)

    (state,) = changed(outer.lower(X, model=model))
    assert state.shape == (2,)
    (key,) = changed(pxf.jit(lambda *, model: px.RKG()).lower(model=model))
    assert (key.shape, key.dtype) == (px.RKG.key.shape, px.RKG.key.dtype)


def test_lowering_changes_nothing() -> None:
    model = Net()
    before = Snapshot(model)

    @pxf.jit
    def step(x: jax.Array, *, model: Net) -> jax.Array:
        model.state += jax.random.normal(px.RKG(), (2,))
        return x

    step.lower(X, model=model).compile()
    before.check()


def test_donation_of_what_is_replaced_only() -> None:
    model = Net()
    replaced, kept = [model.state.get(), model.cache["u"]], [model.first.get(), model.layers[1].weight.get()]
    key, x, other = px.RKG.key.get(), jnp.array([3.0, 4.0]), px.Param(jnp.ones(2))
    other_array = other.get()

    @pxf.jit(donate_argnames="model")
    def step(x: jax.Array, *, model: Net, other: px.Param) -> jax.Array:
        model.state += x
        model.cache["u"] = model.cache["u"] + x
        other += 1.0
        px.RKG()
        return model(model.state.get())

    expected = step.fn(x, model=Net(), other=px.Param(jnp.ones(2)))
    px.RKG.key.set(key)
    close(step(x, model=model, other=other), expected)
    assert [array.is_deleted() for array in replaced] == [True, True]
    assert not any(array.is_deleted() for array in [*kept, key, x, other_array])
    close(model.state.get(), np.array([4.0, 3.0]))
    close(other.get(), 2 * np.ones(2))
    check_no_tracer()


def test_donation_over_many_calls() -> None:
    traces, p = Traces(), px.Param(jnp.zeros(2))

    @pxf.jit(donate_argnames=("p", "not_given"))
    def step(*, p: px.Param, not_given: px.Param | None = None) -> jax.Array:
        traces()
        p += 1.0
        return p.sum()

    assert [float(step(p=p)) for _ in range(4)] == [2.0, 4.0, 6.0, 8.0]
    assert traces.new() == 1


def test_what_is_replaced_may_depend_on_shapes_and_static_arguments() -> None:
    traces, p, q = Traces(), px.Param(jnp.zeros(2)), px.Param(jnp.zeros(2))

    @pxf.jit(static_argnums=1, donate_argnames=("p", "q"))
    def step(x: jax.Array, also: bool, *, p: px.Param, q: px.Param) -> Any:
        traces()
        p += 1.0
        if x.ndim and also:
            q += 1.0
        return q.get() * 2.0

    vector, scalar = jnp.ones(2), jnp.ones(())
    total = 0
    for x, also in [(vector, True), (scalar, True), (vector, False), (vector, True), (scalar, False), (scalar, True)]:
        replaced, kept = p.get(), q.get()
        step(x, also, p=p, q=q)
        assert replaced.is_deleted()
        assert not q.get().is_deleted()
        if x.ndim == 0 or not also:
            assert q.get() is kept
        total += x.ndim and also
    close((p.get(), q.get()), (6 * np.ones(2), total * np.ones(2)))
    assert traces.new() == 4


def test_an_array_that_two_parameters_hold_is_not_donated() -> None:
    array = jnp.ones(2)
    a, b = px.Param(array), px.Param(array)

    @pxf.jit(donate_argnames=("a", "b"))
    def step(x: jax.Array, *, a: px.Param, b: px.Param) -> None:
        a += x
        b += 2.0 * x

    step(X, a=a, b=b)
    assert not array.is_deleted()
    close((a.get(), b.get()), (1 + X, 1 + 2 * X))

    @pxf.jit(donate_argnames="a")
    def first(x: jax.Array, *, a: px.Param) -> None:
        a += x

    first(a.get(), a=a)
    close(a.get(), 2 + 2 * X)


def test_donation_of_a_shared_parameter() -> None:
    p = px.Param(jnp.ones(2))
    array = p.get()

    @pxf.jit(donate_argnames="b")
    def step(*, a: px.Param, b: list[px.Param]) -> None:
        b[1] += 1.0

    step(a=p, b=[p, p])
    assert array.is_deleted()
    close(p.get(), 2 * np.ones(2))


def test_donation_of_positional_arguments() -> None:
    x, y, p = jnp.ones(2), jnp.ones(2), px.Param(jnp.ones(2))

    @pxf.jit(donate_argnums=1, donate_argnames="p")
    def step(x: jax.Array, y: jax.Array, *, p: px.Param) -> jax.Array:
        p += x
        return x + y

    step(x, y, p=p)
    assert (x.is_deleted(), y.is_deleted()) == (False, True)

    @pxf.jit(donate_argnums=(1,))
    def only(x: jax.Array, y: jax.Array, *, p: px.Param) -> Any:
        return x + y + p.get()

    y = jnp.ones(2)
    only(x, y, p=p)
    assert (x.is_deleted(), y.is_deleted(), p.get().is_deleted()) == (False, True, False)


def test_a_failing_call_donates_nothing() -> None:
    model = Net()
    before = Snapshot(model)

    @pxf.jit(donate_argnames="model")
    def step(*, model: Net) -> None:
        model.state += 1.0
        raise KeyError

    with pytest.raises(KeyError):
        step(model=model)
    before.check()
    assert not model.state.get().is_deleted()


def test_without_compilation() -> None:
    model = Net()
    with jax.disable_jit():
        pxf.jit(lambda x, *, model: model.state.set(x).get())(X, model=model)
    assert model.state.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("option", ["device", "mask"])
def test_unknown_options_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: None}
    with pytest.raises(TypeError, match=option):
        pxf.jit(**options)(lambda: None)


def test_a_chain_of_calls_is_as_without_jit() -> None:
    def step(x: jax.Array, *, model: Net) -> Any:
        model.first -= 0.1 * jnp.outer(model.state.get(), x)
        model.cache["u"] = model.cache["u"] + model(x)
        model.state.set(model.cache["u"])
        return model.cleared.set(x).get()

    one, other = Net(), Net()
    for _ in range(3):
        step(X, model=one)
        pxf.jit(step)(X, model=other)
    close([p.get() for p in px.tree_extract(other)], [p.get() for p in px.tree_extract(one)])


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import minipcax as px, minipcax.functional as pxf

mesh = Mesh(np.array(jax.devices()), ("devices",))
assert mesh.size == 2
def place(array, *spec):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))

class Model(px.Module):
    def __init__(self):
        super().__init__()
        self.weight = px.Param(jnp.arange(8.0).reshape(2, 4) / 8)
        self.bias = px.Param(jnp.zeros(2))
        self.noise = px.Param(jnp.zeros(()))

@pxf.vmap({"model": None})
def predict(x, *, model):
    return model.weight @ x + model.bias

def loss(x, y, *, model):
    return ((predict(x, model=model) - y) ** 2).mean()

@pxf.jit(donate_argnames="model")
def train(x, y, *, model):
    value, grads = pxf.value_and_grad({"model": True})(loss)(x, y, model=model)
    model.weight -= 0.1 * grads["model"].weight
    model.bias -= 0.1 * grads["model"].bias
    model.noise.set(jax.random.normal(px.RKG()))
    return value

x, y = jnp.arange(16.0).reshape(4, 4) / 16, jnp.ones((4, 2))
plain, sharded = Model(), Model()
sharded.weight.set(place(sharded.weight.get(), None, "devices"))
sharded.bias.set(place(sharded.bias.get()))
sharded.noise.set(place(sharded.noise.get()))
data = place(x, "devices"), place(y, "devices")
weight, bias = sharded.weight.sharding, sharded.bias.sharding

px.RKG.seed(0)
expected = [float(train(x, y, model=plain)) for _ in range(4)]
px.RKG.seed(0)
found = [float(train(*data, model=sharded)) for _ in range(4)]
np.testing.assert_allclose(found, expected, rtol=1e-5)
assert expected[-1] < expected[0]
for name in ("weight", "bias", "noise"):
    ours, theirs = getattr(sharded, name), getattr(plain, name)
    assert type(ours.get()) is type(x)
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-5)
assert sharded.weight.sharding.is_equivalent_to(weight, 2), sharded.weight.sharding
assert len(sharded.bias.sharding.device_set) == 2
assert len(plain.weight.sharding.device_set) == 1

# An eager call keeps them where they are, too.
grads = pxf.grad({"model": True})(loss)(*data, model=sharded)
assert grads["model"].weight.sharding.device_set == weight.device_set
assert sharded.weight.sharding.is_equivalent_to(weight, 2)

# On another device than the default one.
there = Model()
for p in px.tree_extract(there):
    p.set(jax.device_put(p.get(), jax.devices()[1]))
px.RKG.seed(0)
train(*jax.device_put((x, y), jax.devices()[1]), model=there)
assert there.weight.sharding.device_set == {jax.devices()[1]}
"""


@pytest.mark.thorough
def test_a_model_over_several_devices_trains_as_it_is() -> None:
    run_on_devices(2, SHARDED)


def test_a_weight_in_low_precision_stays_so() -> None:
    p = Weight(jnp.ones(2, jnp.bfloat16))

    @pxf.jit
    def step(*, p: Weight) -> None:
        p += 1.0

    step(p=p)
    assert p.dtype == jnp.bfloat16
    assert Holder(p=p).p is p

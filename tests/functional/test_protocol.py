"""The protocol: keywords are tracked, positions are copies, and what a function writes is written back once."""

from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from tests.functional.support import NESTINGS, TRIPLES, Holder, Net, State, check_no_tracer, wrap
from tests.oracles import close

nestings = pytest.mark.parametrize("names", NESTINGS, ids=lambda names: "-".join(names) or "plain")


def test_keywords_are_tracked_and_positions_are_copies() -> None:
    @pxf.jit
    def step(copy: px.Param, *, model: px.Param) -> Any:
        copy += 1.0
        model += 1.0
        return copy.get()

    copied, tracked = px.Param(jnp.array(0.0)), px.Param(jnp.array(0.0))
    assert float(step(copied, model=tracked)) == 1.0
    assert (float(copied), float(tracked)) == (0.0, 1.0)


@pytest.mark.parametrize("names", [*NESTINGS, *TRIPLES], ids=lambda names: "-".join(names) or "plain")
def test_what_is_written_arrives_through_any_nesting(names: tuple[str, ...]) -> None:
    model = Net()
    params, cache = px.tree_extract(model), model.cache.get()

    def step(x: jax.Array, *, model: Net) -> jax.Array:
        model.state += x
        model.cache["v"] = 2 * x
        model.cleared.set(model.state.get()[0])
        model.layers[0].weight *= 2.0  # the same parameter as model.first
        px.RKG()
        return (model.first @ model.state).sum() + model(model.state.get()).sum()

    with jax.checking_leaks():
        y = wrap(step, names)(jnp.array(3.0), model=model)
    state = np.array([4.0, 2.0])
    weight = np.array([[2.0, 4.0], [6.0, 8.0]])
    close(y, (weight @ state).sum() + np.tanh(0.5 * np.tanh(weight @ state)).sum())
    close(model.state.get(), state)
    close(model.first.get(), weight)
    close(model.cleared.get(), np.array(4.0))
    close(model.cache.get(), {"u": np.zeros(2), "v": np.array(6.0)})
    assert all(a is b for a, b in zip(px.tree_extract(model), params, strict=True))
    assert model.layers[0].weight is model.first
    assert names == () or "v" not in cache  # what the caller's dict held has been replaced, not touched
    check_no_tracer()


@nestings
def test_a_shared_parameter_is_written_once(names: tuple[str, ...]) -> None:
    count = State(jnp.array(0))
    models = {"b": Holder(p=count), "a": Holder(p=count, q=[count, {"r": count}])}

    def step(x: jax.Array, *, model: dict[str, Holder]) -> jax.Array:
        assert model["b"].p is model["a"].p is model["a"].q[0] is model["a"].q[1]["r"]
        model["a"].p += 1
        model["b"].p += 10
        return x

    wrap(step, names)(jnp.array(1.0), model=models)
    assert int(count) == 11
    assert models["a"].q[1]["r"] is count


@nestings
def test_inner_calls_may_be_given_part_of_the_model(names: tuple[str, ...]) -> None:
    model = Net()

    @pxf.jit
    def double(*, weight: px.Param, head: px.Module) -> None:
        weight *= 2.0

    def step(x: jax.Array, *, model: Net) -> jax.Array:
        double(weight=model.first, head=model.layers[0])
        return model.layers[0].weight.sum() * x

    close(wrap(step, names)(jnp.array(1.0), model=model), np.array(20.0))
    close(model.first.get(), np.array([[2.0, 4.0], [6.0, 8.0]]))


@pytest.mark.parametrize("name", ["jit", "vmap", "value_and_grad"])
def test_a_positional_parameter_is_a_copy(name: str) -> None:
    p, cache, model = px.Param(jnp.ones(2)), px.ParamDict({"u": jnp.ones(2)}), Net()

    def step(p: px.Param, cache: px.ParamDict, model: Net) -> Any:
        p += 1.0
        cache["u"] = cache["u"] + 1.0
        cache["v"] = jnp.zeros(())
        model.train()
        model.table["a"].set("changed")
        model.first.set(None)
        return p.get().sum()

    transforms: dict[str, Any] = {
        "jit": pxf.jit(step),
        "vmap": pxf.vmap({}, in_axes=(0, 0, None))(step),
        "value_and_grad": pxf.value_and_grad({})(step),
    }
    transforms[name](p, cache, model)
    close(p.get(), np.ones(2))
    close(cache.get(), {"u": np.ones(2)})
    assert model.mode() is None
    assert model.first.get() is not None
    assert model.table["a"] == [1, 2]
    check_no_tracer()


def test_a_positional_parameter_is_a_copy_without_compilation() -> None:
    p, cache = px.Param(jnp.ones(2)), px.ParamDict({"u": jnp.ones(2)})

    @pxf.jit
    def step(p: px.Param, *, cache: px.ParamDict) -> jax.Array:
        p += 1.0
        cache["v"] = p.get()
        raise KeyError

    with jax.disable_jit(), pytest.raises(KeyError):
        step(p, cache=cache)
    close(p.get(), np.ones(2))
    assert list(cache.get()) == ["u"]


def test_a_parameter_given_both_ways_is_two() -> None:
    p = px.Param(jnp.array(1.0))

    @pxf.jit
    def step(copy: px.Param, *, p: px.Param) -> Any:
        copy += 10.0
        p += 1.0
        return copy.get()

    assert float(step(p, p=p)) == 11.0
    assert float(p) == 2.0


def test_keywords_are_walked_in_sorted_order() -> None:
    shared = State(jnp.array(2.0))
    seen: list[list[str]] = []

    def mask(tree: dict[str, Any]) -> Any:
        seen.append([type(node).__name__ for node in jax.tree.leaves(tree, is_leaf=lambda n: isinstance(n, px.Param))])
        return jax.tree.map(lambda node: True, tree, is_leaf=lambda node: isinstance(node, px.BaseParam))

    def loss(*, z: px.Param, a: px.Param, m: px.Param) -> jax.Array:
        return z * a * m

    grads = pxf.grad(mask)(loss)(z=shared, m=px.Param(jnp.array(3.0)), a=shared)
    assert list(jax.tree.leaves(grads)) == [12.0, 4.0]  # d/ds of s·s·m at a, the first in order; then m
    assert grads["z"] is None
    assert isinstance(grads["a"], State)


def test_what_is_attached_or_changed_inside_does_not_escape() -> None:
    model = Net()
    model.first.frozen = False

    @pxf.jit
    def step(*, model: Net) -> None:
        model.first.frozen = True
        model.state.note = "new"  # type: ignore[attr-defined]  # any attribute may be set
        model.table["z"].set(5.0)
        model.train()

    step(model=model)
    assert model.first.frozen is False
    assert not hasattr(vars(model.state), "note")
    assert model.table["z"] == 2.0
    assert model.mode() is None


class Noting(px.Module, static=("notes",)):
    """What it holds can be changed in place: a static attribute, a static, and an attribute of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[int] = []
        self.numbers = px.static({"n": [0]})
        self.p = px.Param(jnp.ones(2))
        self.p.about = {"n": 0}  # type: ignore[attr-defined]  # any attribute may be set


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("transform", [pxf.jit, pxf.value_and_grad({})], ids=["jit", "value_and_grad"])
def test_what_is_changed_in_place_inside_does_not_escape(transform: Any, raises: bool) -> None:
    model, seen = Noting(), []

    @transform  # type: ignore[untyped-decorator]  # any of them
    def step(x: jax.Array, *, model: Any) -> jax.Array:
        seen.append((model.notes[:], model.numbers["n"][:], dict(model.p.about)))
        model.notes.append(1)
        model.numbers["n"][0] = 1
        model.p.about["n"] = 1
        if raises:
            raise KeyError
        return x.sum()

    for size in (1, 2, 2, 3):
        with pytest.raises(KeyError) if raises else nullcontext():
            step(jnp.ones(size), model=model)
    assert len(seen) >= 3
    assert all(each == ([], [0], {"n": 0}) for each in seen)
    assert model.notes == []
    assert model.numbers == {"n": [0]}


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.notes.append(1),
        lambda model: model.numbers.get()["n"].append(1),
        lambda model: model.numbers.get().update(m=[0]),
        lambda model: model.p.about.update(n=1),
    ],
)
def test_what_is_changed_in_place_outside_is_seen(change: Any) -> None:
    model = Noting()

    @pxf.jit
    def count(*, model: Any) -> Any:
        return len(model.notes) + sum(map(len, model.numbers.values())) + model.p.about["n"]

    assert count(model=model) == 1
    change(model)
    assert count(model=model) == 2


def test_statics_and_modes_are_seen_inside() -> None:
    model = Net()
    model.eval()

    @pxf.jit
    def step(*, model: Net) -> Any:
        assert model.is_eval
        assert model.layers[1].is_eval
        return model.table["z"].get() * jnp.ones(())

    assert float(step(model=model)) == 2.0


@pytest.mark.parametrize("names", [names for names in NESTINGS[1:] if "value_and_grad" not in names], ids="-".join)
def test_returned_parameters_and_modules_are_copies(names: tuple[str, ...]) -> None:
    model = Net()

    def step(x: jax.Array, *, model: Net) -> tuple[jax.Array, Net]:
        model.state += x
        return x, model

    _, copy = wrap(step, names)(jnp.array(1.0), model=model)
    assert copy is not model
    assert copy.first is not model.first
    close(copy.state.get(), np.array([2.0, 0.0]))


def test_a_returned_generator_holds_the_key_it_had() -> None:
    model = Holder(rkg=px.RKG)
    px.RKG.seed(3)
    after = jax.random.split(jax.random.PRNGKey(3))[0]

    @pxf.jit
    def step(*, model: Holder) -> Holder:
        model.rkg()
        return model

    copy = step(model=model)
    close(copy.rkg.key.get(), after)
    close(px.RKG.key.get(), after)
    assert copy.rkg.key is not px.RKG.key


def test_values_are_plain_arrays_inside_and_outside() -> None:
    p = px.Param(jnp.ones(2))

    @pxf.jit
    def step(x: jax.Array, *, p: px.Param) -> px.Param:
        assert isinstance(p.get(), jax.Array)
        p.set(x + p)
        return p

    assert type(step(jnp.ones(2), p=p).get()) is type(jnp.ones(2))
    assert type(p.get()) is type(jnp.ones(2))


def test_what_a_parameter_holds_is_opaque() -> None:
    inner = px.Param(jnp.array(1.0))
    box = px.Param({"p": inner, "q": inner, "x": (jnp.ones(2), None)})

    @pxf.jit
    def step(*, box: px.Param) -> None:
        value = box.get()
        assert value["p"] is not value["q"]
        box.set({**value, "x": (2 * value["x"][0], None)})

    step(box=box)
    assert box.get()["p"] is not inner
    close(box.get(), {"p": px.Param(np.array(1.0)), "q": px.Param(np.array(1.0)), "x": (2 * np.ones(2), None)})


def test_a_model_with_references_passes_as_it_is() -> None:
    p = px.Param(jnp.array(1.0))
    tree = px.tree_ref([p, p])

    @pxf.jit
    def step(*, tree: list[Any]) -> None:
        both = px.tree_unref(tree)
        assert both[0] is both[1]
        both[1] += 1.0

    step(tree=tree)
    assert float(p) == 2.0
    assert px.tree_unref(tree)[1] is p


def test_bare_arrays_and_numbers_are_inputs() -> None:
    model = Holder(scale=2.0, offset=np.ones(2, np.float32), count=3)

    @pxf.jit
    def step(*, model: Holder, x: float, none: None) -> Any:
        assert none is None
        return x * model.scale * model.offset + model.count

    close(step(model=model, x=1.5, none=None), np.array([6.0, 6.0]))
    model.offset[0] = 0.0
    model.scale = 10.0
    close(step(model=model, x=1.0, none=None), np.array([3.0, 13.0]))


def test_a_node_of_another_library_is_looked_into() -> None:
    partial = jax.tree_util.Partial(jnp.add, px.Param(jnp.array(1.0)))  # type: ignore[no-untyped-call]  # jax
    model = Holder(fn=partial)

    @pxf.jit
    def step(*, model: Holder) -> Any:
        model.fn.args[0].set(model.fn.args[0] + 1.0)
        return model.fn(1.0)

    assert [float(step(model=model)) for _ in range(2)] == [3.0, 4.0]
    assert float(partial.args[0]) == 3.0

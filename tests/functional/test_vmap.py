"""`vmap` against `jax.vmap`, loops over lanes, and closed forms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.utils as pxu
from tests.functional.support import Holder, Net, Snapshot, State, Weight, check_no_tracer, psum, refused
from tests.oracles import changed, close

A = jnp.arange(24.0).reshape(2, 3, 4)


def test_a_model_has_a_state_for_each_lane() -> None:
    """The weight is shared by all lanes, the state is mapped, and so is what is written to it."""

    @pxf.vmap({"weight": None, "state": 0})
    def step(x: jax.Array, *, weight: px.Param, state: px.Param) -> Any:
        state += weight * x
        return 2 * state.get()

    xs, before = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 10.0, 20.0])
    weight, state = px.Param(jnp.array(0.5)), px.Param(before)
    ys = step(xs, weight=weight, state=state)
    after = jax.vmap(lambda x, state: state + 0.5 * x)(xs, before)
    close(state.get(), after)
    close(ys, 2 * after)


@pytest.mark.parametrize(
    "in_axes, args",
    [
        (0, (A,)),
        (1, (A,)),
        (-1, (A,)),
        ((0, None), (A, jnp.ones(5))),
        ([0, 0], (A, jnp.ones(2))),
        ((1, 2, -2), (A, A.transpose(0, 2, 1), A)),
        (({"a": 0, "b": None},), ({"a": A, "b": A},)),
        ((0, {"a": 1, "b": (0, None)}), (A, {"a": A[0, :, :2], "b": (A, 2.0)})),
        (0, ({"a": A, "b": [A[:, 0], None]},)),
        ((None, 0), (None, A)),
        ((None, 0), (3.0, A)),
    ],
)
def test_in_axes_are_those_of_jax(in_axes: Any, args: tuple[Any, ...]) -> None:
    def total(*args: Any) -> tuple[jax.Array, ...]:
        return tuple(jnp.sum(leaf) for leaf in jax.tree.leaves(args))

    close(pxf.vmap(in_axes=in_axes)(total)(*args), jax.vmap(total, in_axes)(*args))


@pytest.mark.parametrize("out_axes", [0, 1, -1, (0, -1), [0, 1], (1, {"a": None, "b": 0})])
def test_out_axes_are_those_of_jax(out_axes: Any) -> None:
    def both(x: jax.Array) -> tuple[jax.Array, Any]:
        tree = isinstance(out_axes, tuple) and isinstance(out_axes[1], dict)
        return 2 * x, {"a": jnp.ones(3), "b": -x} if tree else -x

    axes = tuple(out_axes) if isinstance(out_axes, list) else out_axes
    close(pxf.vmap(in_axes=0, out_axes=axes)(both)(A), jax.vmap(both, 0, axes)(A))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_a_parameter_is_mapped_over_its_axis_in_and_out(axis: int) -> None:
    p = px.Param(A)
    lanes = A.shape[axis]

    def step(x: jax.Array, *, p: px.Param) -> jax.Array:
        p *= x
        return p.sum()

    def by_hand(x: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (p * x).sum(), p * x

    x = jnp.arange(lanes, dtype=jnp.float32)
    y = pxf.vmap({"p": axis})(step)(x, p=p)
    close((y, p.get()), jax.vmap(by_hand, (0, axis), (0, axis))(x, A))


def test_each_parameter_has_its_axis() -> None:
    model = Holder(weight=Weight(A[0]), state=State(A.transpose(1, 2, 0)), cache=px.ParamDict({"u": A}), s=px.static(3))

    def mask(tree: dict[str, Any]) -> Any:
        axes: dict[Any, int | None] = {Weight: None, State: -1, px.ParamDict: 0, px.StaticParam: None}
        return jax.tree.map(lambda p: axes[type(p)], tree, is_leaf=lambda node: isinstance(node, px.BaseParam))

    @pxf.vmap(mask)
    def step(*, model: Holder) -> Any:
        model.cache["v"] = model.state.sum()
        model.state += model.cache["u"]
        return model.weight @ jnp.ones(4)

    y = step(model=model)
    close(y, np.stack([np.asarray(A[0]).sum(1)] * 2))
    close(model.cache["v"], np.asarray(A).sum((1, 2)))
    close(model.state.get(), 2 * np.asarray(A.transpose(1, 2, 0)))
    close(model.weight.get(), A[0])


def test_tracked_keywords_alone() -> None:
    p = px.Param(jnp.arange(3.0))
    assert pxf.vmap({"p": 0})(lambda *, p: 2.0 * p)(p=p).tolist() == [0.0, 2.0, 4.0]


def test_positional_arguments_alone() -> None:
    assert pxf.vmap()(lambda x: 2.0 * x)(jnp.arange(3.0)).tolist() == [0.0, 2.0, 4.0]


def test_bare_keywords_are_mapped_too() -> None:
    @pxf.vmap({"x": 0, "y": None})
    def add(*, x: jax.Array, y: float) -> Any:
        return x + y

    assert add(x=jnp.arange(2.0), y=1.0).tolist() == [1.0, 2.0]


def test_keywords_without_a_mask_are_not_mapped() -> None:
    p = px.Param(jnp.ones(3))
    assert pxf.vmap({})(lambda x, *, p: (x * p.get()).sum())(jnp.arange(2.0), p=p).tolist() == [0.0, 3.0]


@pytest.mark.parametrize(
    "mask",
    [
        {("a", "b"): 0},
        {"a": 0, "b": 0},
        {"a": lambda tree: 0 if isinstance(tree, px.Param) else None, ("b",): 0},
        pxu.M(px.Param).to((None, 0)),
        {("b", "a"): pxu.M(px.Param).to((None, 0)), "c": None},
        lambda tree: {name: None if name == "c" else 0 for name in tree},
        {("a", "b"): lambda tree: jax.tree.map(lambda array: 0, tree)},
        lambda tree, is_pytree: {name: None if name == "c" or not is_pytree else 0 for name in tree},
    ],
)
def test_every_form_of_a_mask(mask: Any) -> None:
    a, b, c = px.Param(jnp.arange(2.0)), px.Param(jnp.ones(2)), px.ParamDict({"u": jnp.array(1.0)})
    step = pxf.vmap(mask)(lambda *, a, b, c: a * 10.0 + b + c["u"])
    assert step(a=a, b=b, c=c).tolist() == [2.0, 12.0]


def test_a_shared_parameter_has_one_axis() -> None:
    p = px.Param(jnp.arange(2.0))

    @pxf.vmap(pxu.M(px.Param).to((None, 0)))
    def step(*, a: px.Param, b: list[px.Param]) -> Any:
        assert a is b[0]
        a += 1.0
        return b[0].get()

    assert step(a=p, b=[p]).tolist() == [1.0, 2.0]
    assert p.tolist() == [1.0, 2.0]


def scaled(x: jax.Array, *, a: Any, b: Any) -> jax.Array:
    """Of one parameter, or of what holds it."""
    return jnp.sum(x * jax.tree.leaves(b)[0])


@pytest.mark.parametrize(
    "mask, axes",
    [
        ({"b": 0}, "None and 0"),
        ({"a": 0}, "0 and None"),
        ({"a": None, "b": 0}, "None and 0"),
        ({"a": 0, "b": 1}, "0 and 1"),
        ({"b": pxu.M(px.Param).to((None, 0))}, "None and 0"),
        ({("a",): pxu.M(State).to((None, 0)), "b": pxu.M(px.Param).to((None, 0))}, "None and 0"),
        ({"a": lambda tree: jax.tree.map(lambda array: 0, tree), ("b",): None}, "0 and None"),
    ],
)
def test_two_keywords_that_give_one_parameter_two_axes_are_refused(mask: Any, axes: str) -> None:
    p = px.Param(jnp.eye(2))
    for keywords, places in (({"a": p, "b": p}, "a and b"), ({"a": [p], "b": {"u": p}}, r"a\[0\] and b\['u'\]")):
        with refused(f"mask of vmap gives {axes} to one parameter, which is at {places}: .*once"):
            pxf.vmap(mask)(scaled)(jnp.ones(2), **keywords)


@pytest.mark.parametrize(
    "mask",
    [
        {("a", "b"): 0},
        {"a": 0, "b": pxu.M(px.Param).to((None, 0))},
        {("a", "b"): pxu.M(px.Param).to((None, 0))},
        pxu.M(px.Param).to((None, 0)),
        pxu.M(State).to((0, None)),
    ],
)
def test_two_keywords_that_give_one_parameter_one_axis(mask: Any) -> None:
    p, x = px.Param(jnp.array([[1.0, 2.0], [3.0, 4.0]])), jnp.array([1.0, 10.0])
    close(pxf.vmap(mask)(scaled)(x, a=p, b=[p]), jax.vmap(lambda x, p: jnp.sum(x * p))(x, p.get()))


def test_a_tree_of_answers_that_contradicts_itself_is_refused() -> None:
    p, x = px.Param(jnp.ones(2)), jnp.ones(2)
    cases: list[tuple[Any, Any, str]] = [
        ({"x": p, "y": p}, {"x": None, "y": 0}, r"model\['x'\] and model\['y'\]"),
        ([p, {"y": p}], [1, {"y": 0}], r"model\[0\] and model\[1\]\['y'\]"),
    ]
    for model, axes, paths in cases:
        with refused(rf"gives \S+ and 0 to one parameter, which is at {paths}: give it the same answer"):
            pxf.vmap({"model": axes})(lambda x, *, model: x)(x, model=model)


def except_weights(node: Any) -> int | None:
    return None if isinstance(node, Weight) else 0


@pytest.mark.parametrize(
    "mask",
    [
        pxu.M(State).to((None, 0)),
        pxu.M(Weight).to((0, None)),
        lambda tree: jax.tree.map(except_weights, tree, is_leaf=lambda node: isinstance(node, px.BaseParam)),
    ],
)
@pytest.mark.parametrize("form", ["container", "module", "module, asked before the call"])
def test_masks_answer_for_the_first_place_of_a_parameter(mask: Any, form: str) -> None:
    """Where it occurs again they find a placeholder, whatever they say of that."""
    weight, state, x = Weight(jnp.array(3.0)), State(jnp.array([1.0, 2.0])), jnp.array([1.0, 10.0])
    children = {"a": weight, "b": state, "c": weight, "d": state}
    model: Any = children if form == "container" else Holder(**children)

    @pxf.vmap({"model": mask(model) if "before" in form else mask})
    def step(x: jax.Array, *, model: Any) -> Any:
        each = model if isinstance(model, dict) else vars(model)
        return x * each["c"] * each["d"]

    close(step(x, model=model), 3.0 * x * state.get())


def test_the_answers_of_M_for_a_container_may_be_asked_for_before_the_call() -> None:
    p, x = px.Param(jnp.array([1.0, 2.0])), jnp.array([1.0, 10.0])
    model = [p, {"y": p}]
    axes: Any = pxu.M(px.Param).to((None, 0))(model)
    assert axes == [0, {"y": None}]
    close(pxf.vmap({"model": axes})(lambda x, *, model: x * model[1]["y"])(x, model=model), x * p.get())


@pytest.mark.parametrize("axis", [0, 5, -7, None])
def test_a_cleared_parameter_takes_any_axis(axis: int | None) -> None:
    p, cache = px.Param(None), px.ParamDict()

    @pxf.vmap({("p", "cache"): axis})
    def step(x: jax.Array, *, p: px.Param, cache: px.ParamDict) -> jax.Array:
        assert p.get() is None
        assert "u" not in cache
        return x

    step(jnp.ones(2), p=p, cache=cache)
    assert p.get() is None
    assert cache.get() is None


@pytest.mark.parametrize("axis, transpose", [(0, False), (1, True), (-1, True)])
def test_filling_and_clearing(axis: int, transpose: bool) -> None:
    p, q = px.Param(None), px.Param(A[0])
    values = A[0]

    @pxf.vmap({"p": axis, "q": None})
    def step(x: jax.Array, *, p: px.Param, q: px.Param) -> None:
        p.set(2 * x)
        q.set(None)

    step(values, p=p, q=q)
    close(p.get(), np.asarray(2 * values).T if transpose else 2 * values)
    assert q.get() is None


def test_what_is_the_same_in_all_lanes_may_be_written_to_an_unmapped_parameter() -> None:
    count, mean = px.Param(jnp.array(0)), px.Param(None)

    @pxf.vmap({}, axis_name="batch")
    def step(x: jax.Array, *, count: px.Param, mean: px.Param) -> Any:
        count += 1
        mean.set(psum(x, "batch") / 2.0)
        return x - mean.get()

    assert step(jnp.array([1.0, 3.0]), count=count, mean=mean).tolist() == [-1.0, 1.0]
    assert (int(count), float(mean)) == (1, 2.0)


def test_collectives_reach_through_other_transforms() -> None:
    p = px.Param(jnp.array(2.0))

    @pxf.vmap({"p": None}, axis_name="batch")
    @pxf.jit
    @pxf.value_and_grad({"p": True})
    def loss(x: jax.Array, *, p: px.Param) -> jax.Array:
        return psum(p * x, "batch")

    xs = jnp.array([1.0, 3.0])
    value, grads = loss(xs, p=p)
    assert value.tolist() == [8.0, 8.0]
    by_hand = jax.grad(lambda x, p: psum(p * x, "batch"), 1)
    close(grads["p"].get(), jax.vmap(by_hand, (0, None), axis_name="batch")(xs, jnp.array(2.0)))


def test_nested_vmaps_with_other_axes() -> None:
    weight, state, both = Weight(A[0, 0]), State(A.transpose(2, 0, 1)), State(None)

    @pxf.vmap({"state": 1, "both": 0}, in_axes=0, axis_name="outer")
    @pxf.vmap({"state": -1, "both": 1}, in_axes=0, out_axes=-1, axis_name="inner")
    def step(x: jax.Array, *, weight: Weight, state: State, both: State) -> Any:
        state *= x
        both.set(state.get())
        return weight * state + psum(psum(x, "inner"), "outer")

    x = jnp.arange(6.0).reshape(2, 3)
    y = step(x, weight=weight, state=state, both=both)
    expected = A * x[:, :, None]
    close(state.get(), expected.transpose(2, 0, 1))
    close(both.get(), expected.transpose(0, 2, 1))
    close(y, (A[0, 0][None, None, :] * expected + 15.0).transpose(0, 2, 1))


def in_lanes(fn: Callable[[int], Any], lanes: int, key: jax.Array) -> tuple[list[Any], jax.Array]:
    """What the contract says of keys: lane i starts from row i + 1, and the global key goes on from lane 0's state."""
    rows, results, states = jax.random.split(key, lanes + 1), [], []
    for lane in range(lanes):
        px.RKG.key.set(rows[lane + 1])
        results.append(fn(lane))
        states.append(px.RKG.key.get())
    return results, states[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_every_lane_has_its_own_key(compiled: bool) -> None:
    px.RKG.seed(5)

    def draw(x: Any) -> tuple[jax.Array, jax.Array]:
        return jax.random.normal(px.RKG(), (2,)), jax.random.normal(px.RKG(2)[1])

    mapped = pxf.vmap()(draw)
    found = (pxf.jit(mapped) if compiled else mapped)(jnp.zeros(3))
    after = px.RKG.key.get()
    expected, key = in_lanes(draw, 3, jax.random.PRNGKey(5))
    close(found, jax.tree.map(lambda *lanes: jnp.stack(lanes), *expected))
    assert jnp.array_equal(after, key)
    assert len(np.unique(np.asarray(found[1]))) == 3


def test_the_key_stays_where_no_lane_draws() -> None:
    key = px.RKG.key.get()
    pxf.vmap()(lambda x: x)(jnp.zeros(3))
    assert px.RKG.key.get() is key


def test_keys_of_nested_lanes() -> None:
    px.RKG.seed(1)
    found = pxf.vmap()(pxf.vmap()(lambda x: px.RKG()))(jnp.zeros((2, 3)))
    after = px.RKG.key.get()
    states = []
    for outer, row in enumerate(jax.random.split(jax.random.PRNGKey(1), 3)[1:]):
        rows = jax.random.split(row, 4)[1:]
        for inner in range(3):
            assert jnp.array_equal(found[outer, inner], jax.random.split(rows[inner])[1])
        states.append(jax.random.split(rows[0])[0])
    assert jnp.array_equal(after, states[0])


def test_seeding_inside_is_the_same_in_all_lanes() -> None:
    def draw(x: jax.Array) -> jax.Array:
        px.RKG.seed(7)
        return px.RKG()

    found = pxf.vmap()(draw)(jnp.zeros(2))
    state, key = jax.random.split(jax.random.PRNGKey(7))
    assert jnp.array_equal(found, jnp.stack([key, key]))
    assert jnp.array_equal(px.RKG.key.get(), state)


def test_every_lane_draws_from_its_own_key_of_a_generator_of_the_model() -> None:
    shared, mapped = px.RandomKeyGenerator(1), px.RandomKeyGenerator(2)
    keys = jax.random.split(jax.random.PRNGKey(2), 2)
    mapped.key.set(keys)

    @pxf.vmap({"mapped": 0})
    def draw(x: jax.Array, *, shared: px.RandomKeyGenerator, mapped: px.RandomKeyGenerator) -> tuple[jax.Array, ...]:
        return shared(), mapped()

    first, second = draw(jnp.zeros(2), shared=shared, mapped=mapped)
    own = jax.random.split(jax.random.PRNGKey(1), 3)[1:]
    assert jnp.array_equal(first, jnp.stack([jax.random.split(key)[1] for key in own]))
    assert jnp.array_equal(shared.key.get(), jax.random.split(own[0])[0])
    for lane in range(2):
        state, key = jax.random.split(keys[lane])
        assert jnp.array_equal(second[lane], key)
        assert jnp.array_equal(mapped.key.get()[lane], state)


def test_lane_counts_that_disagree_are_both_named() -> None:
    model = Net()
    before = Snapshot(model)
    step = pxf.vmap({"model": pxu.M(State).to((None, 0))}, in_axes=(None, 1))(lambda x, y, *, model: y)
    with refused(r"3 in argument 1 \(axis 1 of \(2, 3, 4\)\), 2 in model\.state \(axis 0 of \(2,\)\)"):
        step(1.0, A, model=model)
    with refused(r"2 in argument 0 .*3 in argument 1"):
        pxf.vmap()(lambda x, y: x)(jnp.ones(2), jnp.ones(3))
    with refused(r"2 in models\[0\] .*3 in models\[1\]\['u'\]"):
        pxf.vmap({"models": 0})(lambda *, models: 0)(models=[State(jnp.ones(2)), {"u": State(jnp.ones(3))}])
    before.check()


def test_nothing_to_map_over() -> None:
    with refused("nothing to map over.*in_axes.*kwargs_mask"):
        pxf.vmap()(lambda *, p: p.get())(p=px.Param(jnp.ones(2)))
    with refused("nothing to map over"):
        pxf.vmap({"p": 0})(lambda *, p: p.get())(p=px.Param(None))
    with refused("nothing to map over"):
        pxf.vmap(in_axes=None)(lambda x: x)(jnp.ones(2))


def test_an_axis_that_is_not_there() -> None:
    with refused(r"expected model\.first to have axis 2, but its shape is \(2, 2\)"):
        pxf.vmap({"model": pxu.M(Weight).to((None, 2))})(lambda *, model: 0)(model=Net())
    with refused(r"expected argument 1 to have axis -2, but its shape is \(3,\)"):
        pxf.vmap(in_axes=(0, -2))(lambda x, y: x)(jnp.ones(3), jnp.ones(3))
    with refused(r"expected argument 0 to have axis 0, but its shape is \(\)"):
        pxf.vmap()(lambda x: x)(1.0)


def test_in_axes_of_another_length() -> None:
    with refused("in_axes of vmap has 1 entries, but there are 2 positional arguments"):
        pxf.vmap(in_axes=(0,))(lambda x, y: x)(jnp.ones(2), jnp.ones(2))


@pytest.mark.parametrize("answer", [True, "0", 1.5, px.Param(True), px.Param(1.5)])
def test_answers_that_are_no_axes(answer: Any) -> None:
    with refused(r"gives .* for model\.first: expected an axis.*M\(\.\.\.\)\.to\(\(None, 0\)\)", TypeError):
        mask = {
            "model": lambda tree: jax.tree.map(lambda p: answer, tree, is_leaf=lambda node: isinstance(node, Weight))
        }
        pxf.vmap(mask)(lambda x, *, model: x)(jnp.ones(2), model=Net())


@pytest.mark.parametrize(
    "statement, path",
    [
        ("model.state += 1.0; model.layers[1].weight *= x", r"model\.layers\[1\]\.weight"),
        ("model.cleared.set(x)", r"model\.cleared"),
        ("model.cache['v'] = x", r"model\.cache"),
    ],
)
@pytest.mark.parametrize("nested", ["", "jit", "vmap", "value_and_grad"])
def test_a_per_lane_value_in_an_unmapped_parameter_is_refused_by_path(statement: str, path: str, nested: str) -> None:
    def fn(x: jax.Array, *, model: Net) -> jax.Array:
        changed(model, statement, {"x": x})
        return x

    model = Net()
    before = Snapshot(model)
    step: Any = pxf.vmap({"model": None})(fn)
    x = jnp.arange(2.0)
    if nested == "jit":
        step = pxf.jit(step)
    elif nested == "vmap":
        step, x = pxf.vmap({"model": None})(step), jnp.ones((3, 2))
    elif nested == "value_and_grad":
        step = pxf.value_and_grad({"model": None})(lambda x, *, model, step=step: step(x, model=model).sum())
    with refused(f"^{path} has axis None.*in each lane.*kwargs_mask.*reduce"):
        step(x, model=model)
    before.check()


def test_errors_of_the_function_are_its_own() -> None:
    def fails(x: jax.Array, *, model: Net) -> jax.Array:
        model.state += x
        raise ValueError("my own")

    with refused("^my own\n"):
        pxf.vmap()(fails)(jnp.ones(2), model=Net())
    with refused("out_axes"):
        pxf.vmap(out_axes=None)(lambda x, *, model: x)(jnp.ones(2), model=Net())
    check_no_tracer()


def test_vmap_equals_a_loop_over_lanes() -> None:
    model = Net()
    model.state.set(A[0, :, :2])
    lanes = []
    for lane in range(3):
        single = Net()
        single.state.set(A[0, lane, :2])
        single.state += single(single.state.get())
        lanes.append(single.state.get())

    @pxf.vmap({"model": pxu.M(State).to((None, 0))})
    def step(*, model: Net) -> None:
        model.state += model(model.state.get())

    step(model=model)
    close(model.state.get(), jnp.stack(lanes))

"""The global key goes through every transform as it would without one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from tests.functional.support import Holder
from tests.oracles import close

SEED = 11


def draws(key: jax.Array, count: int) -> tuple[jax.Array, list[jax.Array]]:
    """The key after so many draws of one, and what they gave."""
    keys = []
    for _ in range(count):
        key, drawn = jax.random.split(key)
        keys.append(drawn)
    return key, keys


def summed(keys: list[jax.Array]) -> jax.Array:
    return jnp.stack([jax.random.normal(key) for key in keys]).sum()


def draw_three() -> Any:
    return jnp.stack([jax.random.normal(px.RKG()) for _ in range(3)]).sum()


WITHOUT_LANES: dict[str, Callable[[Callable[[], Any]], Callable[[], Any]]] = {
    "jit": pxf.jit,
    "jit-jit": lambda fn: pxf.jit(pxf.jit(fn)),
    "value_and_grad": lambda fn: lambda: pxf.value_and_grad({})(fn)()[0],
    "jit-value_and_grad": lambda fn: lambda: pxf.jit(pxf.value_and_grad({})(fn))()[0],
    "value_and_grad-jit": lambda fn: lambda: pxf.value_and_grad({})(pxf.jit(fn))()[0],
    "grad with aux": lambda fn: lambda: pxf.grad({}, has_aux=True)(lambda: (jnp.zeros(()), fn()))()[1][0],
}


def test_a_draw_is_a_split_of_the_key() -> None:
    px.RKG.seed(SEED)
    found = pxf.jit(lambda: px.RKG())()
    state, expected = jax.random.split(jax.random.PRNGKey(SEED))
    assert found.tolist() == expected.tolist()
    assert px.RKG.key.tolist() == state.tolist()


@pytest.mark.parametrize("name", WITHOUT_LANES)
def test_a_draw_advances_the_global_key_as_outside(name: str) -> None:
    px.RKG.seed(SEED)
    fn = WITHOUT_LANES[name](draw_three)
    found = [fn(), fn()]
    key, keys = draws(jax.random.PRNGKey(SEED), 6)
    assert jnp.array_equal(px.RKG.key.get(), key)
    close(found, [summed(keys[:3]), summed(keys[3:])])


@pytest.mark.parametrize("name", WITHOUT_LANES)
def test_a_call_that_does_not_draw_leaves_the_very_key(name: str) -> None:
    key = px.RKG.key.get()
    WITHOUT_LANES[name](lambda: jnp.zeros(()))()
    assert px.RKG.key.get() is key


def test_draws_before_between_and_after() -> None:
    px.RKG.seed(SEED)

    @pxf.jit
    def step() -> list[Any]:
        first = px.RKG()
        second, third = pxf.jit(lambda: px.RKG(2))()
        return [first, second, third, px.RKG()]

    found = [px.RKG(), *step(), px.RKG(1)]
    key, expected = jax.random.PRNGKey(SEED), []
    for count in (1, 1, 2, 1, 1):
        key, *rows = jax.random.split(key, count + 1)
        expected += rows
    expected[-1] = expected[-1][None]
    close(found, expected)
    assert jnp.array_equal(px.RKG.key.get(), key)


def test_many_keys_at_once() -> None:
    px.RKG.seed(SEED)
    found = pxf.jit(lambda: (px.RKG(1), px.RKG(3)))()
    key, *first = jax.random.split(jax.random.PRNGKey(SEED), 2)
    key, *second = jax.random.split(key, 4)
    close(found, (jnp.stack(first), jnp.stack(second)))
    assert jnp.array_equal(px.RKG.key.get(), key)


def test_seeding_inside_is_kept() -> None:
    @pxf.jit
    def step(seed: int) -> jax.Array:
        px.RKG.seed(seed)
        return px.RKG()

    for seed in (3, 4):
        state, key = jax.random.split(jax.random.PRNGKey(seed))
        assert jnp.array_equal(step(seed), key)
        assert jnp.array_equal(px.RKG.key.get(), state)


def test_seeding_outside_is_seen_without_a_new_trace() -> None:
    traces: list[None] = []

    @pxf.jit
    def step() -> jax.Array:
        traces.append(None)
        return px.RKG()

    keys = []
    for seed in (1, 2, 1):
        px.RKG.seed(seed)
        keys.append(step())
    assert len(traces) == 1
    assert jnp.array_equal(keys[0], keys[2])
    assert not jnp.array_equal(keys[0], keys[1])


@pytest.mark.parametrize("name", ["jit", "value_and_grad", "jit-value_and_grad"])
def test_a_model_that_holds_the_global_generator_shares_its_key(name: str) -> None:
    model = Holder(rkg=px.RKG, again=px.RKG, other=px.RandomKeyGenerator(2), inner=[Holder(key=px.RKG.key)])
    px.RKG.seed(SEED)

    def step(*, model: Holder) -> Any:
        assert model.rkg.key is model.again.key is model.inner[0].key is px.RKG.key
        keys = [model.rkg(), px.RKG(), model.again(), model.other()]
        model.inner[0].key.set(model.inner[0].key.get())
        return jnp.stack([jax.random.normal(key) for key in keys]).sum()

    transforms: dict[str, Callable[..., Any]] = {
        "jit": pxf.jit(step),
        "value_and_grad": lambda *, model: pxf.value_and_grad({})(step)(model=model)[0],
        "jit-value_and_grad": lambda *, model: pxf.jit(pxf.value_and_grad({})(step))(model=model)[0],
    }
    found = transforms[name](model=model)
    key, keys = draws(jax.random.PRNGKey(SEED), 3)
    other, others = draws(jax.random.PRNGKey(2), 1)
    close(found, summed([*keys, *others]))
    assert jnp.array_equal(px.RKG.key.get(), key)
    assert jnp.array_equal(model.other.key.get(), other)
    assert model.rkg is px.RKG
    assert model.rkg.key is px.RKG.key


def test_a_model_that_holds_the_global_generator_in_lanes() -> None:
    model = Holder(rkg=px.RKG)
    px.RKG.seed(SEED)
    found = pxf.vmap()(lambda x, *, model: (model.rkg(), px.RKG()))(jnp.zeros(2), model=model)
    states = []
    for lane, row in enumerate(jax.random.split(jax.random.PRNGKey(SEED), 3)[1:]):
        state, keys = draws(row, 2)
        close((found[0][lane], found[1][lane]), tuple(keys))
        states.append(state)
    assert jnp.array_equal(px.RKG.key.get(), states[0])


def test_the_global_generator_as_a_keyword_and_by_position() -> None:
    px.RKG.seed(SEED)
    state, key = jax.random.split(jax.random.PRNGKey(SEED))

    # By position it is a copy, like any parameter.
    assert jnp.array_equal(pxf.jit(lambda rkg: rkg())(px.RKG), key)
    assert jnp.array_equal(px.RKG.key.get(), jax.random.PRNGKey(SEED))
    assert jnp.array_equal(pxf.jit(lambda *, rkg: rkg())(rkg=px.RKG), key)
    assert jnp.array_equal(px.RKG.key.get(), state)
    # And as the callable itself.
    assert jnp.array_equal(pxf.jit(px.RKG)(), jax.random.split(state)[1])


@pytest.mark.parametrize("name", [*WITHOUT_LANES, "vmap"])
def test_after_an_exception_the_key_is_what_it_was(name: str) -> None:
    key = px.RKG.key.get()

    def fails() -> Any:
        px.RKG()
        WITHOUT_LANES["jit"](draw_three)()
        raise KeyError

    fn = WITHOUT_LANES[name](fails) if name != "vmap" else lambda: pxf.vmap()(lambda x: fails())(jnp.zeros(2))
    with pytest.raises(KeyError):
        fn()
    assert px.RKG.key.get() is key
    close(px.RKG(), jax.random.split(key)[1])


def test_generators_of_ones_own_are_parameters() -> None:
    model, key = Holder(rkg=px.RandomKeyGenerator(4)), px.RKG.key.get()

    @pxf.jit
    def step(*, model: Holder) -> jax.Array:
        drawn: jax.Array = model.rkg()
        return drawn

    found = [step(model=model), step(model=model)]
    state, keys = draws(jax.random.PRNGKey(4), 2)
    close(found, keys)
    assert jnp.array_equal(model.rkg.key.get(), state)
    assert px.RKG.key.get() is key


def test_dropout_like_noise_differs_by_lane_and_by_call() -> None:
    step = pxf.jit(pxf.vmap()(lambda x: jax.random.bernoulli(px.RKG(), 0.5, (32,))))
    first, second = np.asarray(step(jnp.zeros(2))), np.asarray(step(jnp.zeros(2)))
    rows = {row.tobytes() for row in (*first, *second)}
    assert len(rows) == 4

"""Several threads trace and run transforms on different models at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from minipcax.core.trace import in_vmap
from minipcax.functional._tracking import collect
from tests.functional.support import Holder, Net, check_no_tracer, copied
from tests.oracles import close

THREADS = 8


def test_each_thread_adds_to_its_own_model() -> None:
    @pxf.jit
    def step(x: jax.Array, *, total: px.Param) -> None:
        total += x

    totals = [px.Param(jnp.array(float(number))) for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda total: step(jnp.array(10.0), total=total), totals))
    assert [float(total) for total in totals] == [10.0 + number for number in range(THREADS)]


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Runs work(0), work(1), ..., all starting at the same time."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def new_step() -> Callable[..., Any]:
    """A training step that is traced anew, and draws from a generator of its own and from the global one."""

    def loss(x: jax.Array, *, model: Any, rkg: px.RandomKeyGenerator) -> Any:
        model.state += x + jax.random.uniform(rkg(), (2,))
        model.cache["u"] = px.RKG().astype(jnp.float32)
        return jnp.sum(model(model.state.get()))

    @pxf.jit
    def step(x: jax.Array, *, model: Any, rkg: px.RandomKeyGenerator) -> Any:
        value, grads = pxf.value_and_grad({"model": True})(loss)(x, model=model, rkg=rkg)
        model.first -= 0.1 * grads["model"].first
        lanes = pxf.vmap()(lambda x, *, model: model(x).sum())(jnp.stack([x, 2 * x]), model=model)
        return value + lanes.sum()

    return step


def train(step: Callable[..., Any], number: int, model: Net) -> list[Any]:
    """Many calls; the structure changes on the way."""
    x, rkg = jnp.array([0.1 * number, -0.2]), px.RandomKeyGenerator(number)
    values = [step(x, model=model, rkg=rkg) for _ in range(20)]
    model.eval()
    model.layers[1].act_fn.set(jnp.sin)
    return values + [step(x, model=model, rkg=rkg) for _ in range(20)]


@pytest.mark.thorough
def test_different_models_in_different_threads() -> None:
    models = [Net() for _ in range(THREADS)]
    found = at_once(lambda number: train(new_step(), number, models[number]))
    step = new_step()
    for number, (model, values) in enumerate(zip(models, found, strict=True)):
        alone = Net()
        close(values, train(step, number, alone))
        close((model.first.get(), model.state.get()), (alone.first.get(), alone.state.get()))
        assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(model))
    check_no_tracer()


def test_a_thread_sees_the_real_key_while_another_traces() -> None:
    inside, go_on = threading.Event(), threading.Event()
    px.RKG.seed(0)
    state, key = jax.random.split(jax.random.PRNGKey(0))
    seen: list[Any] = []

    @pxf.jit
    def slow() -> jax.Array:
        seen.append(px.RKG())
        inside.set()
        assert go_on.wait(60)
        return jnp.zeros(())

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow)
        assert inside.wait(60)
        try:
            assert not isinstance(px.RKG.key.get(), jax.core.Tracer)
            assert jnp.array_equal(px.RKG(), key)
            assert not in_vmap()
        finally:
            go_on.set()
        waiting.result()
    assert isinstance(seen.pop(), jax.core.Tracer)
    assert jnp.array_equal(px.RKG.key.get(), state)


def test_failures_in_some_threads_do_not_touch_the_others() -> None:
    models = [Net() for _ in range(THREADS)]

    @pxf.jit
    def step(x: jax.Array, *, model: Net) -> None:
        px.RKG()
        model.state += x
        if model.is_train:
            raise KeyError

    def work(number: int) -> bool:
        if number % 2:
            models[number].train()
        try:
            for _ in range(5):
                step(jnp.ones(2), model=models[number])
        except KeyError:
            return False
        return True

    assert at_once(work) == [number % 2 == 0 for number in range(THREADS)]
    for number, model in enumerate(models):
        close(model.state.get(), np.array([1.0, -1.0]) + (0.0 if number % 2 else 5.0))
    assert not isinstance(px.RKG.key.get(), jax.core.Tracer)


def test_the_same_structure_in_all_threads_is_one() -> None:
    for attempt in range(10):
        # Statics that are equal but not the same make the comparison of structures run Python code.
        models = [Holder(p=px.Param(jnp.ones(2)), s=px.static(["s", attempt])) for _ in range(THREADS)]
        skeletons = at_once(partial(skeleton_of, models))
        assert all(skeleton is skeletons[0] for skeleton in skeletons)


def skeleton_of(models: list[Holder], number: int) -> Any:
    return collect({"model": models[number]}).skeleton


def test_one_model_may_be_read_by_all_threads() -> None:
    model = Net()
    before = copied([p.get() for p in px.tree_extract(model)])
    read = pxf.jit(lambda x, *, model: model(x))
    x = jnp.array([0.3, 0.4])
    expected = model(x)
    for value in at_once(lambda number: [read(x, model=model) for _ in range(20)][-1]):
        close(value, expected)
    close(copied([p.get() for p in px.tree_extract(model)]), before)

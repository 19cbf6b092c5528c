"""Several threads trace and run transforms on different models at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import minipcax as px
import minipcax.functional as pxf
from minipcax.functional._tracking import collect, in_vmap
from tests.functional.support import Holder, Net, arrays, check_no_tracer, close

THREADS = 8


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Runs work(0), work(1), ..., all starting at the same time."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def train(model: Net, x: jax.Array) -> list[Any]:
    """Traces everything anew, draws, and changes the structure on the way."""

    def loss(x: jax.Array, *, model: Net) -> Any:
        assert not isinstance(px.RKG.key.get(), np.ndarray)
        model.state += x
        model.cache["u"] = jax.random.normal(px.RKG(), (2,))
        return jnp.sum(model(model.state.get()))

    @pxf.jit
    def step(x: jax.Array, *, model: Net) -> Any:
        value, grads = pxf.value_and_grad({"model": True})(loss)(x, model=model)
        model.first -= 0.1 * grads["model"].first
        lanes = pxf.vmap()(lambda x, *, model: model(x).sum())(jnp.stack([x, 2 * x]), model=model)
        return value + lanes.sum()

    values = [step(x, model=model) for _ in range(3)]
    model.eval()
    model.layers.append(model.layers.pop(0))
    values += [step(x, model=model) for _ in range(3)]
    return values


def test_different_models_in_different_threads() -> None:
    xs = [jnp.array([0.1 * number, -0.2]) for number in range(THREADS)]
    models = [Net() for _ in xs]
    found = at_once(lambda number: train(models[number], xs[number]))
    for model, x, values in zip(models, xs, found, strict=True):
        alone = Net()
        close(values, train(alone, x))
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
    before = arrays([p.get() for p in px.tree_extract(model)])
    read = pxf.jit(lambda x, *, model: model(x))
    x = jnp.array([0.3, 0.4])
    expected = model(x)
    for value in at_once(lambda number: [read(x, model=model) for _ in range(20)][-1]):
        close(value, expected)
    close(arrays([p.get() for p in px.tree_extract(model)]), before)

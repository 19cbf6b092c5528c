"""Random keys, beside `jax.random.split` by hand."""

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from minipcax.core.random import lend_key
from tests.dags import Block, structure


def split(key: Any, draws: list[int | None]) -> tuple[Any, list[Any]]:
    """The state after some draws, and what they give."""
    drawn = []
    for n in draws:
        rows = jax.random.split(key, (1 if n is None else n) + 1)
        key = rows[0]
        drawn.append(rows[1] if n is None else rows[1:])
    return key, drawn


def generators() -> dict[str, px.RandomKeyGenerator]:
    return {"own": px.RandomKeyGenerator(), "global": px.RKG, "copy": copy.deepcopy(px.RKG)}


EVERY = pytest.mark.parametrize("name", generators())
DRAWS: list[list[int | None]] = [[None], [1], [2], [None, None, None], [3, None, 1, 7, None], [0, None]]


@EVERY
@pytest.mark.parametrize("draws", DRAWS, ids=str)
def test_draws_are_splits(name: str, draws: list[int | None]) -> None:
    rkg = generators()[name]
    state, expected = split(jax.random.PRNGKey(0), draws)
    for n, keys in zip(draws, expected, strict=True):
        found: Any = rkg() if n is None else rkg(n)
        assert isinstance(found, jax.Array)
        assert found.shape == ((2,) if n is None else (n, 2))
        np.testing.assert_array_equal(found, keys)
    np.testing.assert_array_equal(rkg.key.get(), state)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
def test_seed_starts_again(seed: int) -> None:
    for rkg in (px.RandomKeyGenerator(seed), px.RandomKeyGenerator(seed=seed), px.RandomKeyGenerator(7), px.RKG):
        if rkg.key.get().tolist() != jax.random.PRNGKey(seed).tolist():
            key = rkg.key
            rkg()
            rkg.seed(seed)
            assert rkg.key is key
        np.testing.assert_array_equal(rkg.key.get(), jax.random.PRNGKey(seed))
        np.testing.assert_array_equal(rkg(), jax.random.split(jax.random.PRNGKey(seed))[1])


@EVERY
def test_is_a_module_whose_one_leaf_is_its_key(name: str) -> None:
    rkg = generators()[name]
    assert isinstance(rkg, px.BaseModule)
    assert isinstance(rkg.key, px.RKGState)
    assert isinstance(rkg.key, px.Param)
    (leaf,) = jax.tree.leaves(rkg)
    assert leaf is rkg.key.get()
    assert [id(param) for param in px.tree_extract(rkg)] == [id(rkg.key)]
    assert repr(rkg) == "RandomKeyGenerator(\n  .key: RKGState([2], uint32)\n)"


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "tree.map": lambda value: jax.tree.map(lambda leaf: leaf, value),
}


@EVERY
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_goes_its_own_way(name: str, copied: Callable[[Any], Any]) -> None:
    rkg = generators()[name]
    found = copied(Block([rkg, px.Param(1.0)])).a
    assert type(found) is px.RandomKeyGenerator
    assert type(found.key) is type(rkg.key)
    assert structure(found) == structure(rkg)
    np.testing.assert_array_equal(found(), jax.random.split(jax.random.PRNGKey(0))[1])
    np.testing.assert_array_equal(rkg.key.get(), jax.random.PRNGKey(0))
    found.key.set(None)
    assert found.key.get() is None


def test_a_model_that_holds_the_global_generator_shares_its_key() -> None:
    model: Any = Block([px.RKG, px.RandomKeyGenerator(3)])
    state, (first, second) = split(jax.random.PRNGKey(0), [None, 2])
    np.testing.assert_array_equal(model.a(), first)
    np.testing.assert_array_equal(px.RKG(2), second)
    np.testing.assert_array_equal(px.RKG.key.get(), state)
    assert px.tree_unref(px.tree_ref([model, px.RKG]))[1].key is px.RKG.key


def test_a_lent_key_is_seen_by_its_thread_alone_and_given_back() -> None:
    lent, real = jax.random.PRNGKey(11), jax.random.PRNGKey(0)
    own = px.RandomKeyGenerator(5)
    elsewhere: list[Any] = []

    def draw() -> None:
        elsewhere.append(px.RKG())

    with pytest.raises(KeyError, match="planted"), lend_key(lent):
        np.testing.assert_array_equal(px.RKG(), jax.random.split(lent)[1])
        with lend_key(jnp.zeros(2, jnp.uint32)):
            assert px.RKG.key.get().tolist() == [0, 0]
        np.testing.assert_array_equal(px.RKG.key.get(), jax.random.split(lent)[0])
        np.testing.assert_array_equal(own.key.get(), jax.random.PRNGKey(5))
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
        raise KeyError("planted")
    np.testing.assert_array_equal(elsewhere[0], jax.random.split(real)[1])
    np.testing.assert_array_equal(px.RKG.key.get(), jax.random.split(real)[0])


FRESH = """
import jax
import minipcax as px
import minipcax.functional, minipcax.learning, minipcax.nn, minipcax.predictive_coding, minipcax.utils
jax.config.update("jax_num_cpu_devices", 3)  # refused once JAX has started
assert jax.device_count() == 3
jax.eval_shape(lambda: px.RKG.key.get())  # the first to look at the global key is a trace
print(px.RKG().tolist())
"""


def test_a_copy_of_the_global_generator_goes_on_from_the_key_that_is_lent() -> None:
    @pxf.jit
    def draw() -> tuple[jax.Array, jax.Array]:
        copied = copy.deepcopy(px.RKG)
        return copied(), px.RKG()

    for seed in (0, 1):  # the second call is not traced again
        px.RKG.seed(seed)
        first, second = draw()
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, jax.random.split(jax.random.PRNGKey(seed))[1])


@pytest.mark.thorough
def test_importing_does_not_start_jax_and_the_global_key_comes_from_the_clock() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", FRESH], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    keys = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        keys.append(out)
    assert keys[0] != keys[1]

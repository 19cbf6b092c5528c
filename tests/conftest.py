"""Strict runs: no silent promotion of ranks or dtypes, and the global key starts from the same seed in every test.

Tests compile many small programs and run each once or twice, so that JAX optimises little, and keeps what it compiles
between runs and for the processes that tests start.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import minipcax as px

CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parents[1] / ".pytest_cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, default in CACHE.items():  # the environment is for other processes: in this one, JAX has already read it
    value = os.environ.setdefault(name, default)
    jax.config.update(name.lower(), value if name.endswith("DIR") else int(value))  # type: ignore[no-untyped-call]  # jax

# XLA compiles twice as fast with its older emitters, which versions after 0.10 lack, and small programs faster in one
# piece. It has not read its flags yet, of two values takes the last, and ends the process at one that it does not know.
FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
jax.config.update("jax_disable_most_optimizations", True)  # type: ignore[no-untyped-call]  # jax

jax.config.update("jax_numpy_rank_promotion", "raise")  # type: ignore[no-untyped-call]  # jax
jax.config.update("jax_numpy_dtype_promotion", "strict")  # type: ignore[no-untyped-call]  # jax


@pytest.fixture(autouse=True)
def _seed() -> None:
    px.RKG.seed(0)


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Hides what was there before the test from the garbage collector, whose time grows with what it looks at."""
    gc.collect(1)
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """Adam of optax multiplies floats and its integer step count."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not any(device.platform == "gpu" for device in jax.devices()):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))

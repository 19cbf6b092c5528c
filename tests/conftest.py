"""Strict runs: no silent promotion of ranks or dtypes, and the global key starts from the same seed in every test."""

import jax
import pytest

import minipcax as px

jax.config.update("jax_numpy_rank_promotion", "raise")  # type: ignore[no-untyped-call]  # jax
jax.config.update("jax_numpy_dtype_promotion", "strict")  # type: ignore[no-untyped-call]  # jax

# Tests compile many small programs and run each once or twice.
jax.config.update("jax_disable_most_optimizations", True)  # type: ignore[no-untyped-call]  # jax


@pytest.fixture(autouse=True)
def _seed() -> None:
    px.RKG.seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not any(device.platform == "gpu" for device in jax.devices()):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))

"""Training on a mesh of devices, with the axes that JAX makes by default and with `Auto`: the numbers are those of one.

`on_mesh` is what runs.
"""

import jax
import pytest

from tests.oracles import run_on_devices

PROGRAM = "import runpy; runpy.run_module('tests.learning.on_mesh', run_name='__main__')"
HAS_EXPLICIT_AXES = hasattr(jax.sharding, "reshard")


@pytest.mark.thorough
def test_default_axes() -> None:
    run_on_devices(8, PROGRAM, "Explicit" if HAS_EXPLICIT_AXES else "Auto", "quick")


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["Explicit", "Auto"])
@pytest.mark.parametrize("suite", ["silence", "algorithms", "layers", "model_parallel", "transforms", "in_shard_map"])
def test_every(suite: str, axes: str) -> None:
    if axes == "Explicit" and not HAS_EXPLICIT_AXES:
        pytest.skip("jax before 0.7 has no jax.sharding.reshard, which Explicit axes need")
    run_on_devices(8, PROGRAM, axes, suite)

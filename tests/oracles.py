"""What tests of several folders share: comparing trees of numbers, a small network, and programs on several devices."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import Array

import minipcax as px
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc

Model = TypeVar("Model")

# A context in which arrays may have 64 bits.
_home: Any = jax if hasattr(jax, "enable_x64") else jax.experimental  # until jax 0.8
enable_x64 = _home.enable_x64


def close(found: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Checks that two trees have the same structure and, up to rounding, the same numbers."""
    structures: list[Any] = [jax.tree.structure(found), jax.tree.structure(expected)]
    assert structures[0] == structures[1]
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(np.asarray(one), other, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def arrays(tree: Any) -> list[Array]:
    """The arrays among the leaves of a tree."""
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array)]


def changed(model: Model, statement: str, names: dict[str, Any]) -> Model:
    """Runs a statement that changes a model, such as `model.p.set(X)`, in which the other names mean these."""
    exec(statement, {**names, "model": model})
    return model


def run_on_devices(count: int, program: str, *arguments: str) -> None:
    """Runs a program, which should not fail, in a process of its own: JAX counts its devices when it starts."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


class Network(pxc.EnergyModule):
    """A value node after each layer: u_l = f(layer_l(h_{l−1})), without f at the end; the last node is observed."""

    layers: list[Any]

    def __init__(self, layers: list[Any], act_fn: Callable[[Array], Array] = jnp.tanh) -> None:
        super().__init__()
        self.layers = layers
        self.vodes = [pxc.Vode() for _ in layers]
        self.vodes[-1].h.frozen = True
        self.act_fn = px.static(act_fn)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        *hidden, last = self.vodes
        for number, vode in enumerate(hidden):
            x = vode(self.act_fn(self.apply_layer(number, x)))
        prediction: Array = last(self.apply_layer(len(hidden), x), output="u")
        if y is not None:
            last.set("h", y)
        return prediction

    def apply_layer(self, number: int, x: Array) -> Any:
        """The output of a layer, before f."""
        return self.layers[number](x)


def linears(sizes: Sequence[int], seed: int = 0, bias: bool = True) -> list[pxnn.Linear]:
    rkg = px.RandomKeyGenerator(seed)
    return [pxnn.Linear(a, b, bias, rkg=rkg) for a, b in pairwise(sizes)]

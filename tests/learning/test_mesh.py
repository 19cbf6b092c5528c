"""Training on a mesh of devices, with the axes that JAX makes by default: the numbers are those of one device."""

import jax
import pytest

from tests.oracles import run_on_devices

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, optax, sys
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import minipcax as px, minipcax.learning as pxl, minipcax.nn as pxnn, minipcax.utils as pxu
import minipcax.predictive_coding as pxc

class Model(pxc.EnergyModule):
    def __init__(self):
        super().__init__()
        rkg = px.RandomKeyGenerator(0)
        self.layers, self.drop = [pxnn.Linear(3, 4, rkg=rkg), pxnn.Linear(4, 2, rkg=rkg)], pxnn.Dropout(0.5)
        self.vodes = [pxc.Vode(), pxc.Vode()]
        self.vodes[1].h.frozen = True

    def __call__(self, x, y=None):
        x = self.drop(jnp.tanh(self.layers[0](x)), key=px.RKG()) if dropout else jnp.tanh(self.layers[0](x))
        u = self.vodes[1](self.layers[1](self.vodes[0](x)), output="u")
        if y is not None:
            self.vodes[1].set("h", y)
        return u

mesh = jax.make_mesh((4,), ("data",), axis_types=(getattr(AxisType, sys.argv[1]),))
draw = np.random.default_rng(0)
x, y = (jnp.asarray(draw.normal(size=size), jnp.float32) for size in ((8, 3), (8, 2)))

def trained(algorithm, place, place_weight):
    px.RKG.seed(0)
    model = Model()
    for param in px.tree_extract(pxl.WEIGHTS(model)):
        param.set(place_weight(param.get()))
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    for _ in range(2):
        batch = place(x), place(y)
        report = algorithm(*batch, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights)
    arrays = [param.get() for param in px.tree_extract(pxl.WEIGHTS(model))]
    return [*map(np.asarray, [*arrays, report.energies, px.RKG.key.get()])]

def put(*spec):
    return lambda array: jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))

for dropout in (False, True):
    for algorithm in eval(sys.argv[2]):
        alone = trained(algorithm, lambda array: array, lambda array: array)
        spread = trained(algorithm, put("data"), put())
        for one, two in zip(alone, spread):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6, err_msg=repr(algorithm))
"""


HAS_EXPLICIT_AXES = hasattr(jax.sharding, "reshard")


def test_default_axes() -> None:
    run_on_devices(4, PROGRAM, "Explicit" if HAS_EXPLICIT_AXES else "Auto", "[pxl.PC(2)]")


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["Explicit", "Auto"])
def test_every_algorithm(axes: str) -> None:
    if axes == "Explicit" and not HAS_EXPLICIT_AXES:
        pytest.skip("jax before 0.7 has no jax.sharding.reshard, which Explicit axes need")
    run_on_devices(
        4, PROGRAM, axes, "[pxl.PC(2, tolerance=1e-3), pxl.IPC(2), pxl.Nudging(0.5, 2), pxl.EPC(2), pxl.Backprop()]"
    )

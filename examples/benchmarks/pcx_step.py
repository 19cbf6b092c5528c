"""The training step of `training_step.py` as users of pcx write it, for pcx (see `peers.py`) and for minipcax."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

# From the sizes of layers, T, the optimisers of nodes and weights, and a batch: a step, to be called again and again.
PeerStep = Callable[
    [list[int], int, optax.GradientTransformation, optax.GradientTransformation, Array, Array], Callable[[], Any]
]


def _step(
    package: str,
    as_scan: bool,
    sizes: list[int],
    steps: int,
    nodes_optimiser: optax.GradientTransformation,
    weights_optimiser: optax.GradientTransformation,
    x: Array,
    y: Array,
) -> Callable[[], Any]:
    names = ("functional", "nn", "predictive_coding", "utils")
    pxf, pxnn, pxc, pxu = (import_module(f"{package}.{name}") for name in names)

    class Model(pxc.EnergyModule):  # type: ignore[misc, name-defined]  # it is not known here
        def __init__(self) -> None:
            super().__init__()
            self.layers = [pxnn.Linear(size, after) for size, after in pairwise(sizes)]
            self.vodes = [pxc.Vode() for _ in self.layers]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Any, y: Any) -> Any:
            for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
                x = vode(jnp.tanh(layer(x)))
            x = self.vodes[-1](self.layers[-1](x))
            if y is not None:
                self.vodes[-1].set("h", y)
            return x

    per_sample = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))

    @pxf.vmap(per_sample, in_axes=(0, 0), out_axes=0)  # type: ignore[untyped-decorator]  # as above
    def forward(x: Any, y: Any, *, model: Any) -> Any:
        return model(x, y)

    @pxf.vmap(per_sample, in_axes=(0,), out_axes=None, axis_name="batch")  # type: ignore[untyped-decorator]  # as above
    def energy(x: Any, *, model: Any) -> Any:
        model(x, None)
        return jax.lax.psum(model.energy(), "batch")  # type: ignore[no-untyped-call]  # jax

    by_nodes = pxf.value_and_grad(pxu.M_hasnot(pxc.VodeParam, frozen=True).to((False, True)))(energy)
    by_weights = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to((False, True)))(energy)

    def relax(x: Any, *, model: Any, nodes: Any) -> Any:
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            value, grads = by_nodes(x, model=model)
        nodes.step(model, grads["model"])
        return value

    @pxf.jit()  # type: ignore[untyped-decorator]  # as above
    def train_on_batch(x: Any, y: Any, *, model: Any, nodes: Any, weights: Any) -> Any:
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(x, y, model=model)
        nodes.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
        if as_scan:
            loop = pxf.scan(lambda _, x, *, model, nodes: (x, relax(x, model=model, nodes=nodes)), length=steps)
            with pxu.step(model, clear_params=pxc.VodeParam.Cache):  # or the status of before goes into the loop
                _, energies = loop(x, model=model, nodes=nodes)
        else:
            energies = [relax(x, model=model, nodes=nodes) for _ in range(steps)]
        nodes.clear()
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, grads = by_weights(x, model=model)
        weights.step(model, grads["model"], scale_by=1.0 / len(x))
        return energies

    model = Model()
    nodes = pxu.Optim(lambda: nodes_optimiser)
    weights = pxu.Optim(lambda: weights_optimiser, pxu.M(pxnn.LayerParam)(model))
    return lambda: train_on_batch(x, y, model=model, nodes=nodes, weights=weights)


def written_out(*args: Any) -> Callable[[], Any]:
    """The step of minipcax, with the arguments of a `PeerStep`."""
    return _step("minipcax", True, *args)


def installed_pcx() -> dict[str, PeerStep]:
    """The steps of pcx, by name, if it is there."""
    if find_spec("pcx") is None:
        print("skipped, for it is not installed here: pcx")
        return {}
    return {"pcx": lambda *args: _step("pcx", False, *args), "pcx with scan": lambda *args: _step("pcx", True, *args)}

"""The same program with the published pcx and with minipcax: do they compute the same?

One source, written as users of pcx write it, runs with either library: 100 training steps of a multilayer perceptron,
with momentum on the value nodes and AdamW on the weights. Then minipcax loads the file that pcx has saved. Where pcx is
not installed, this says so and does nothing. It needs an environment of its own:

    pip install minipcax equinox && pip install --no-deps pcx
"""

import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

SIZES = [16, 32, 32, 4]
BATCH, STEPS, TRAINING_STEPS = 24, 8, 100
TOLERANCE = 1e-5


def library(name: str) -> Any:
    """A library by the aliases of its packages; what they hold can only be known when it runs."""
    packages = {"px": "", "pxf": ".functional", "pxnn": ".nn", "pxc": ".predictive_coding", "pxu": ".utils"}
    return SimpleNamespace(**{alias: import_module(name + package) for alias, package in packages.items()})


def build(lib: Any, seed: int) -> Any:
    """A multilayer perceptron with a value node after each layer."""

    class Model(lib.pxc.EnergyModule):  # type: ignore[misc]  # of one library or the other
        def __init__(self) -> None:
            super().__init__()
            self.act_fn = lib.px.static(jnp.tanh)
            self.layers = [lib.pxnn.Linear(size, after) for size, after in pairwise(SIZES)]
            self.vodes = [lib.pxc.Vode() for _ in self.layers]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Any, y: Any) -> Any:
            for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
                x = vode(self.act_fn(layer(x)))
            x = self.vodes[-1](self.layers[-1](x))
            if y is not None:
                self.vodes[-1].set("h", y)
            return x

    lib.px.RKG.seed(seed)
    return Model()


def train(lib: Any, xs: Any, ys: Any) -> Any:
    """Trains on one batch after the other; returns the model."""
    pxf, pxnn, pxc, pxu = lib.pxf, lib.pxnn, lib.pxc, lib.pxu
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

    @pxf.jit()  # type: ignore[untyped-decorator]  # as above
    def train_on_batch(x: Any, y: Any, *, model: Any, nodes: Any, weights: Any) -> None:
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            forward(x, y, model=model)
        nodes.init(pxu.M_hasnot(pxc.VodeParam, frozen=True)(model))
        for _ in range(STEPS):
            with pxu.step(model, clear_params=pxc.VodeParam.Cache):
                _, grads = by_nodes(x, model=model)
            nodes.step(model, grads["model"])
        nodes.clear()
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, grads = by_weights(x, model=model)
        weights.step(model, grads["model"], scale_by=1.0 / BATCH)

    model = build(lib, 0)
    nodes = pxu.Optim(lambda: optax.sgd(0.05, momentum=0.5))
    weights = pxu.Optim(lambda: optax.adamw(1e-3), pxu.M(pxnn.LayerParam)(model))
    for x, y in zip(xs, ys, strict=True):
        train_on_batch(x, y, model=model, nodes=nodes, weights=weights)
    return model


def weights_of(model: Any) -> dict[str, Any]:
    """All weights and biases by name."""
    found = {}
    for number, layer in enumerate(model.layers):
        found[f"layers[{number}].weight"] = np.asarray(layer.nn.weight.get())
        found[f"layers[{number}].bias"] = np.asarray(layer.nn.bias.get())
    return found


def difference(one: Any, other: Any) -> float:
    """The largest absolute difference between the weights of two models."""
    pairs = zip(weights_of(one).values(), weights_of(other).values(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def main() -> None:
    """Compares the two, and ends with status 1 where they differ."""
    if find_spec("pcx") is None:
        print("skipped: pcx is not installed here")
        return
    theirs, ours = library("pcx"), library("minipcax")
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(TRAINING_STEPS, BATCH, SIZES[0])).astype(np.float32)
    ys = np.eye(SIZES[-1], dtype=np.float32)[rng.integers(SIZES[-1], size=(TRAINING_STEPS, BATCH))]

    results = {"the weights before training": difference(build(theirs, 0), build(ours, 0))}
    trained_there, trained_here = train(theirs, xs, ys), train(ours, xs, ys)
    moved = difference(trained_here, build(ours, 0))
    results[f"the weights after {TRAINING_STEPS} steps, which moved them by up to {moved:.3f}"] = difference(
        trained_there, trained_here
    )
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        theirs.pxu.save_params(trained_there, path)
        loaded = build(ours, 1)
        ours.pxu.load_params(loaded, path)
    results["a file saved by pcx, loaded here"] = difference(trained_there, loaded)

    for what, size in results.items():
        print(f"{what}: largest difference {size:.1e}")
    if any(size > TOLERANCE for size in results.values()):
        sys.exit(f"expected differences of at most {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()

"""How many steps does inference take, over states and over errors? A deep network with orthogonal weights.

For each method at its own best rate: the steps, and the time, until the gradients of the weights are within 1e-3 of
those at the equilibrium, and a picture of the energy (above that of the equilibrium) against both. Without momentum, an
error moves one layer a step between states; between errors it is everywhere after one.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

CLOSE = 1e-3
RATES = [2 ** (-k / 4) for k in range(2, 22)]
MOMENTA = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95]


class Model(pxc.EnergyModule):
    """u_l = f(W_l h_{l−1}), with orthogonal weights, without f at the end."""

    def __init__(self, width: int, depth: int, act_fn: Callable[[Array], Array]) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(width, width, bias=False) for _ in range(depth)]
        for number, layer in enumerate(self.layers):
            layer.nn.weight.set(jax.random.orthogonal(jax.random.PRNGKey(number), width))
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True
        self.act_fn = px.static(act_fn)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(self.act_fn(layer(x)))
        prediction: Array = self.vodes[-1](self.layers[-1](x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return prediction


@pxf.grad({"model": pxl.WEIGHTS})
def weight_gradients(x: Array, *, model: Model) -> Array:
    """At the present states."""
    return pxl.energies(x, model=model).mean()


def states_then_gradients(x: Array, *, model: Model, errors: bool) -> list[Array]:
    """The gradients of the weights; where the nodes hold errors, at the states that these stand for."""
    held = [vode.h.get() for vode in model.vodes]
    if errors:
        pxl.states_from_errors(x, model=model)
    grads: list[Array] = jax.tree.leaves(weight_gradients(x, model=model)["model"])
    for vode, value in zip(model.vodes, held, strict=True):
        vode.h.set(value)
    return grads


@pxf.jit(static_argnums=(4, 5))
def run(
    x: Array, y: Array, rate: Array, momentum: Array, steps: int, errors: bool, *, model: Model
) -> tuple[Array, list[Array]]:
    """Inference; the energy before every step, and the gradients of the weights after every step."""
    pxl.initialise(x, y, model=model)
    relax = pxl.relax_errors if errors else partial(pxl.relax, tolerance=None)
    if errors:
        for vode in model.vodes[:-1]:
            vode.h.set(jnp.zeros_like(vode.h.get()))
    optim = pxu.Optim(optax.sgd(rate, momentum=momentum), pxl.NODES(model))  # type: ignore[arg-type]  # an array will do

    def one_step(no_input: None, *, model: Model, optim: pxu.Optim) -> tuple[tuple[()], tuple[Array, list[Array]]]:
        history = relax(x, 1, reset=False, model=model, optim=optim)
        return (), (history.total[0], states_then_gradients(x, model=model, errors=errors))

    result: tuple[Array, list[Array]] = pxf.scan(one_step, length=steps)(model=model, optim=optim)[1]
    return result


@pxf.jit(static_argnums=(4, 5))
def infer(x: Array, y: Array, rate: Array, momentum: Array, steps: int, errors: bool, *, model: Model) -> Array:
    """Inference alone, to take its time."""
    pxl.initialise(x, y, model=model)
    optim = pxu.Optim(optax.sgd(rate, momentum=momentum))  # type: ignore[arg-type]  # an array will do
    relax = pxl.relax_errors if errors else pxl.relax
    return relax(x, steps, model=model, optim=optim).total


def steps_until_close(grads: list[Array], target: list[Array]) -> int | None:
    """The number of steps after which all gradients stay within `CLOSE` of the target, relative to it."""
    pairs = [(np.asarray(grad), np.asarray(goal)) for grad, goal in zip(grads, target, strict=True)]
    with np.errstate(all="ignore"):  # some rates diverge
        distances = [np.linalg.norm(grad - goal, axis=(1, 2)) / np.linalg.norm(goal) for grad, goal in pairs]
    worst = np.max(distances, axis=0)
    far = np.flatnonzero(~(worst < CLOSE))
    steps = int(far[-1]) + 2 if len(far) else 1
    return steps if steps <= len(worst) else None


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--depth", type=int, default=20, help="number of layers")
    parser.add_argument("--width", type=int, default=16, help="size of all layers")
    parser.add_argument("--steps", type=int, default=2000, help="of inference, at most")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()

    figure = Figure(figsize=(10, 7), layout="constrained")
    grid = figure.subplots(2, 2)
    for row, (name, act_fn) in zip(grid, {"linear": lambda x: x, "tanh": jnp.tanh}.items(), strict=True):
        keys = jax.random.split(jax.random.PRNGKey(0))
        x, y = (jax.random.normal(key, (16, options.width)) for key in keys)
        model = Model(options.width, options.depth, act_fn)
        call = partial(run, x, y, model=model)
        energies, grads = call(jnp.array(0.05), jnp.array(0.9), options.steps, True)
        target, lowest = [grad[-1] for grad in grads], float(energies[-1])
        counts = {}
        for errors in (False, True):
            for momenta in ([0.0], MOMENTA[1:]):
                found = []
                for momentum in momenta:
                    for rate in RATES:
                        _, grads = call(jnp.array(rate), jnp.array(momentum), options.steps, errors)
                        steps = steps_until_close(grads, target)
                        found += [] if steps is None else [(steps, rate, momentum)]
                label = f"{'errors' if errors else 'states'}{', momentum' if momenta[0] else ''}"
                if not found:
                    print(f"{name:7} {label:17}  not within {options.steps} steps")
                    continue
                steps, rate, momentum = min(found)
                counts[label] = steps
                settings = jnp.array(rate), jnp.array(momentum), steps, errors
                energies = infer(x, y, *settings, model=model)
                times = []
                for _ in range(20):
                    start = time.perf_counter()
                    infer(x, y, *settings, model=model).block_until_ready()
                    times.append(time.perf_counter() - start)
                milliseconds = 1e3 * float(np.median(times))
                best = f"rate {rate:.3f}, momentum {momentum}"
                print(f"{name:7} {label:17}  {steps:5} steps, {milliseconds:7.2f} ms ({best})")
                above = np.asarray(energies) - lowest
                row[0].plot(np.arange(1, steps + 1), above, label=label)
                row[1].plot(np.arange(1, steps + 1) * milliseconds / steps, above, label=label)
        for plain in ("", ", momentum"):
            if counts.keys() >= {f"states{plain}", f"errors{plain}"}:
                print(f"{name:7} {'':17}  {counts[f'states{plain}'] / counts[f'errors{plain}']:.1f} times fewer{plain}")
        row[0].set(title=name, xlabel="step", ylabel="energy above the equilibrium", yscale="log", xscale="log")
        row[1].set(title=name, xlabel="milliseconds", yscale="log", xscale="log")
        if counts:
            row[0].legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "inference.png", dpi=150)
    print(f"wrote {options.out / 'inference.png'}")


if __name__ == "__main__":
    main()

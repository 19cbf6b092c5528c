"""How many steps does inference take, over states and over errors? A deep network with orthogonal weights.

For each method at its own best rate: the steps until the gradients of the weights, all of them as one vector, are
within 1e-3 of those at the equilibrium; beside it, the steps until those of every layer are. Means over seeds; for the
first of them, the time, and a picture of the energy, above that of the equilibrium, against both. In states, an error
moves at most one layer a step; as errors are inferred, it is everywhere after one.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from mlp import MLP

import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.utils as pxu

CLOSE = 1e-3
MOMENTA = [0.5, 0.6, 0.7, 0.8, 0.9]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"linear": lambda x: x, "tanh": jnp.tanh}
BATCH = 16


@pxf.grad({"model": pxl.WEIGHTS})
def weight_gradients(x: Array, *, model: MLP) -> Array:
    """At the present states."""
    return pxl.energies(x, model=model).mean()


@pxf.jit(static_argnums=1)
def states_then_gradients(x: Array, errors: bool, *, model: MLP) -> list[Array]:
    """The gradients of the weights; where the nodes hold errors, at the states that these stand for."""
    held = [vode.h.get() for vode in model.vodes]
    if errors:
        pxl.states_from_errors(x, model=model)
    grads: list[Array] = jax.tree.leaves(weight_gradients(x, model=model)["model"])
    for vode, value in zip(model.vodes, held, strict=True):
        vode.h.set(value)
    return grads


@pxf.jit(static_argnums=(5, 6))
def distances(
    x: Array, y: Array, target: list[Array], rate: Array, momentum: Array, steps: int, errors: bool, *, model: MLP
) -> Array:
    """Inference; |g − target|² after every step, for the gradient g of every layer's weights."""
    pxl.initialise(x, y, model=model)
    relax = pxl.relax_errors if errors else pxl.relax
    optim = pxu.Optim(optax.sgd(rate, momentum=momentum))  # type: ignore[arg-type]  # an array will do
    before = relax(x, steps, record=True, model=model, optim=optim).states
    assert before is not None
    last = {f".vodes[{number}].h": vode.h.get() for number, vode in enumerate(model.vodes[:-1])}
    after = {path: jnp.concatenate([before[path][1:], end[None]]) for path, end in last.items()}

    def after_a_step(states: dict[str, Array], *, model: MLP) -> tuple[tuple[()], Array]:
        for number, vode in enumerate(model.vodes[:-1]):
            vode.h.set(states[f".vodes[{number}].h"])
        grads = states_then_gradients(x, errors, model=model)
        return (), jnp.stack([((grad - goal) ** 2).sum() for grad, goal in zip(grads, target, strict=True)])

    result: Array = pxf.scan(after_a_step, after)(model=model)[1]
    return result


@pxf.jit(static_argnums=(4, 5))
def infer(x: Array, y: Array, rate: Array, momentum: Array, steps: int, errors: bool, *, model: MLP) -> Array:
    """Inference alone, to take its time."""
    pxl.initialise(x, y, model=model)
    optim = pxu.Optim(optax.sgd(rate, momentum=momentum))  # type: ignore[arg-type]  # an array will do
    relax = pxl.relax_errors if errors else pxl.relax
    return relax(x, steps, model=model, optim=optim).total


class Problem(NamedTuple):
    """A network, a batch, and what inference is to find: the gradients and the energy at the equilibrium."""

    model: MLP
    x: Array
    y: Array
    target: list[Array]
    lowest: float

    @classmethod
    def of(cls, seed: int, width: int, depth: int, act_fn: Callable[[Array], Array]) -> "Problem":
        """The problem with everything drawn from a seed."""
        *keys, x_key, y_key = jax.random.split(jax.random.PRNGKey(seed), depth + 2)
        model = MLP([width] * (depth + 1), act_fn, bias=False)
        for layer, key in zip(model.layers, keys, strict=True):
            layer.nn.weight.set(jax.random.orthogonal(key, width))
        x, y = (jax.random.normal(key, (BATCH, width)) for key in (x_key, y_key))
        energies = infer(x, y, jnp.array(1 / depth), jnp.array(0.9), 1000, True, model=model)
        return cls(model, x, y, states_then_gradients(x, True, model=model), float(energies[-1]))

    def steps_until_close(self, rate: float, momentum: float, steps: int, errors: bool) -> tuple[float, float]:
        """After how many steps the gradients stay within `CLOSE`, all as one vector, and in every layer."""
        rates = jnp.array(rate), jnp.array(momentum)
        squares = np.asarray(distances(self.x, self.y, self.target, *rates, steps, errors, model=self.model))
        norms = np.array([(goal**2).sum() for goal in self.target])
        with np.errstate(all="ignore"):  # some rates diverge
            whole = np.sqrt(squares.sum(axis=1) / norms.sum())
            worst = np.sqrt((squares / norms).max(axis=1))
        return _settled(whole), _settled(worst)

    def milliseconds(self, rate: float, momentum: float, steps: int, errors: bool) -> tuple[Array, float]:
        """The energies, and the median time of as many steps."""
        call = partial(infer, self.x, self.y, jnp.array(rate), jnp.array(momentum), steps, errors, model=self.model)
        energies, times = call(), []
        for _ in range(20):
            start = time.perf_counter()
            call().block_until_ready()
            times.append(time.perf_counter() - start)
        return energies, 1e3 * float(np.median(times))


def _settled(distances: np.ndarray) -> float:
    far = np.flatnonzero(~(distances < CLOSE))
    steps = int(far[-1]) + 2 if len(far) else 1
    return steps if steps <= len(distances) else np.inf


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--depth", type=int, default=20, help="number of layers")
    parser.add_argument("--width", type=int, default=32, help="size of all layers")
    parser.add_argument("--steps", type=int, default=1000, help="of inference, at most")
    parser.add_argument("--seeds", type=int, default=3, help="how many networks and batches")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()

    rates = [2 ** (-k / 16) for k in range(round(16 * math.log2(2 * options.depth)))]  # errors need 1 / depth or so
    figure = Figure(figsize=(10, 7), layout="constrained")
    print(f"{'':24}  steps      each layer        ms   rate  momentum")
    for row, (name, act_fn) in zip(figure.subplots(2, 2), ACTIVATIONS.items(), strict=True):
        seeds = range(options.seeds)
        problems = [Problem.of(seed, options.width, options.depth, act_fn) for seed in seeds]
        counts = {}
        for with_momentum, errors in product((False, True), (False, True)):
            settings = [*product(rates[::4], MOMENTA)] if with_momentum else [(rate, 0.0) for rate in rates]
            found = np.array(
                [[p.steps_until_close(*pair, options.steps, errors) for p in problems] for pair in settings]
            )
            best = int(found[..., 0].mean(axis=1).argmin())
            label = f"{'errors' if errors else 'states'}{', momentum' if with_momentum else ''}"
            if not np.isfinite(found[best]).all():
                print(f"{name:6} {label:17}  not within {options.steps} steps")
                continue
            means, deviations = found[best].mean(axis=0), found[best].std(axis=0)
            counts[label] = means
            steps = int(found[best, 0, 0])
            energies, milliseconds = problems[0].milliseconds(*settings[best], steps, errors)
            each = [f"{mean:5.0f} ± {deviation:3.0f}" for mean, deviation in zip(means, deviations, strict=True)]
            rate, momentum = settings[best]
            print(f"{name:6} {label:17}  {each[0]}  {each[1]}  {milliseconds:8.2f}  {rate:.3f}  {momentum}")
            above = np.asarray(energies) - problems[0].lowest
            row[0].plot(np.arange(1, steps + 1), above, label=label)
            row[1].plot(np.arange(1, steps + 1) * milliseconds / steps, above, label=label)
        for plain in ("", ", momentum"):
            if counts.keys() >= {f"states{plain}", f"errors{plain}"}:
                whole, layer = counts[f"states{plain}"] / counts[f"errors{plain}"]
                print(f"{name:6} {'':17}  {whole:.1f} times fewer{plain}, {layer:.1f} for each layer")
        row[0].set(title=name, xlabel="step", ylabel="energy above the equilibrium", yscale="log", xscale="log")
        row[1].set(title=name, xlabel="milliseconds", yscale="log", xscale="log")
        if counts:
            row[0].legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "error_based.png", dpi=150)
    print(f"wrote {options.out / 'error_based.png'}")


if __name__ == "__main__":
    main()

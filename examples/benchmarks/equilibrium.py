"""How long does inference take to reach its equilibrium, with which optimiser or solver, over states or over errors?

For four networks, each at its first weights and on one batch of digits (VGG-like: of noise), it prints how many
gradients, and how much time without compilation, pass until the gradient of the weights is within 1e-3 and 1e-5 of that
at equilibrium, relative to its norm. Each method is run with the best of a few rates. All starts are forward, and all
numbers have 64 bits. The default of jpc is Heun's method with adaptive steps and a tolerance of 1e-3. Where the noise
of its steps keeps it from ever coming so close, the yardstick is the same with a tolerance of 1e-6, which does. With
both, the time of integration is searched for. The equilibrium itself is found by L-BFGS over errors.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from mlp import MLP
from vgg5 import IMAGE, VGG5

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu

sys.path.append(str(Path(__file__).parents[1]))
from data import load_or_exit  # beside the examples, one folder up

CLASSES = 10
Nodes = pxu.Optim | pxl.Solver


class Method(NamedTuple):
    """A way to infer, given a rate; over the errors of `EPC`, or over the states."""

    nodes: Callable[[float], Nodes]
    rates: tuple[float, ...] = (1.0,)
    errors: bool = False


def flow(time: float, tolerance: float) -> pxl.Solver:
    """Heun's method up to a time."""
    return pxl.GradientFlow(time, controller=diffrax.PIDController(rtol=tolerance, atol=tolerance))


STATE_RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
ERROR_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4)
HEUN = ["Heun, 1e-3", "Heun, 1e-6"]
METHODS = {
    HEUN[0]: Method(lambda time: flow(time, 1e-3)),
    HEUN[1]: Method(lambda time: flow(time, 1e-6)),
    "SGD": Method(lambda rate: pxu.Optim(optax.sgd(rate)), STATE_RATES),
    "momentum 0.8": Method(lambda rate: pxu.Optim(optax.sgd(rate, momentum=0.8)), STATE_RATES),
    "Adam": Method(lambda rate: pxu.Optim(optax.adam(rate)), (0.003, 0.01, 0.03, 0.1)),
    "L-BFGS": Method(lambda rate: pxl.LBFGS()),
    "EPC, SGD": Method(lambda rate: pxu.Optim(optax.sgd(rate)), ERROR_RATES, errors=True),
    "EPC, momentum": Method(lambda rate: pxu.Optim(optax.sgd(rate, momentum=0.8)), ERROR_RATES, errors=True),
    "EPC, Heun, 1e-6": Method(lambda time: flow(time, 1e-6), errors=True),
    "EPC, L-BFGS": Method(lambda rate: pxl.LBFGS(), errors=True),
}


def networks(batch: int, quick: bool) -> Iterator[tuple[str, pxl.Model, Array, Array]]:
    """Yields a name, a network, and a batch of samples and targets."""
    data = load_or_exit(None).train
    x, y = (jnp.asarray(array[:batch], float) for array in (data.vectors, data.targets))
    if quick:
        yield "MLP", wide(MLP([64, 8, 10])), x, y
        return
    yield "MLP, 3 × 128", wide(MLP([64, 128, 128, 128, CLASSES])), x, y
    yield "20 layers, tanh", wide(MLP([64] * 20 + [CLASSES])), x, y
    image = jax.random.normal(jax.random.PRNGKey(0), (8, *IMAGE), float)
    vgg: Any = VGG5(16)
    vgg.pool = pxnn.AvgPool2d(2, 2)  # with maxima, inference has several equilibria
    yield "VGG-5, channels / 16", wide(vgg), image, y[:8]
    yield "μPC, 128 layers", wide(pxl.ResidualNetwork(64, 64, CLASSES, 128, jnp.tanh)), x[:8], y[:8]


def wide(model: Any) -> Any:
    """Gives the weights of a model 64 bits."""
    for param in px.tree_extract(model, filter_fn=pxl.WEIGHTS.apply):
        param.set(jnp.asarray(param.get(), float))
    return model


@pxf.grad({"model": pxl.WEIGHTS})
def slope(x: Array, *, model: pxl.Model) -> Array:
    return pxl.energies(x, model=model).mean()


def gradient(x: Array, errors: bool, model: Any) -> Array:
    """The gradient of the weights, as one vector; at the states that follow from the errors in the nodes, if any."""
    if errors:
        pxl.states_from_errors(x, model=model)
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(slope(x, model=model)["model"])])


def relax(
    x: Array, steps: int, errors: bool, most: float | None, model: Any, nodes: Nodes, record: bool
) -> pxl.History:
    infer = pxl.relax_errors if errors else pxl.relax
    tolerance = None if most is None else pxl.GradientTolerance(most)
    history: pxl.History = infer(x, steps, tolerance=tolerance, record=record, model=model, optim=nodes)
    return history


@pxf.jit(static_argnums=(2, 3, 4))
def settle(x: Array, y: Array, steps: int, errors: bool, most: float | None, *, model: Any, nodes: Nodes) -> Any:
    """Infers; returns the gradient of the weights, and how many gradients of the states that took."""
    with pxu.step(model, clear_params=(None, pxl.PER_SAMPLE)):
        pxl.start(x, y, model=model)
        history = relax(x, steps, errors, most, model, nodes, record=False)
        return gradient(x, errors, model), history.gradients


@pxf.jit(static_argnums=(2, 3))
def follow(x: Array, y: Array, steps: int, errors: bool, exact: Array, *, model: Any, nodes: Nodes) -> Array:
    """Infers; returns how far the gradient of the weights is from the exact one, before every step."""

    def compare(states: dict[str, Array], /, *, model: Any) -> tuple[tuple[()], Array]:
        for path, node in model.nodes().items():
            for name in {f"{path}.h", f"{path}.vodes.h"} & states.keys():  # the second is that of a stack
                node.h.set(states[name])
        return (), jnp.linalg.norm(gradient(x, errors, model) - exact) / jnp.linalg.norm(exact)

    with pxu.step(model, clear_params=(None, pxl.PER_SAMPLE)):
        pxl.start(x, y, model=model)
        history = relax(x, steps, errors, None, model, nodes, record=True)
        differences: Array = pxf.scan(compare, history.states)(model=model)[1]
        return differences


class Found(NamedTuple):
    """What it took to come close enough, if it did; and how close it came."""

    gradients: float = np.inf
    seconds: float = np.inf
    rate: float = np.nan
    difference: float = np.inf


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and how long it takes when it is compiled."""
    call()
    start = time.perf_counter()
    result = jax.block_until_ready(call())  # type: ignore[no-untyped-call]  # jax
    return result, time.perf_counter() - start


def search(
    name: str, x: Array, y: Array, goals: list[float], most_steps: int, model: pxl.Model, exact: Array
) -> dict[float, Found]:
    """Returns, for each goal, the least that a method takes with any of its rates."""
    method, best = METHODS[name], dict.fromkeys(goals, Found())
    tried = by_time if "Heun" in name else by_steps
    for rate in method.rates:
        for goal, found in tried(method, rate, x, y, goals, most_steps, model, exact).items():
            best[goal] = min(best[goal], found, key=lambda each: (each.gradients, each.difference))
    return best


def by_steps(
    method: Method, rate: float, x: Array, y: Array, goals: list[float], steps: int, model: pxl.Model, exact: Array
) -> dict[float, Found]:
    nodes, found = method.nodes(rate), {}
    differences = np.asarray(follow(x, y, steps, method.errors, exact, model=model, nodes=nodes))
    for goal in goals:
        close = np.flatnonzero(differences <= goal)
        found[goal] = Found(difference=float(np.nanmin(differences)))
        if len(close) and close[0] > 0:
            call = partial(settle, x, y, int(close[0]), method.errors, None, model=model, nodes=nodes)
            (_, gradients), seconds = timed(call)
            found[goal] = Found(float(gradients), seconds, rate, float(differences[close[0]]))
    return found


def by_time(
    method: Method, rate: float, x: Array, y: Array, goals: list[float], steps: int, model: pxl.Model, exact: Array
) -> dict[float, Found]:
    found, closest = dict.fromkeys(goals, Found()), np.inf
    for number in range(40):
        nodes = method.nodes(0.5 * 1.3**number)  # a time is traced, so that nothing compiles again
        call = partial(settle, x, y, steps, method.errors, None, model=model, nodes=nodes)
        (there, gradients), seconds = timed(call)
        closest = min(closest, float(jnp.linalg.norm(there - exact) / jnp.linalg.norm(exact)))
        for goal in goals:
            if found[goal].gradients == np.inf:
                reached = closest <= goal
                found[goal] = Found(float(gradients), seconds, 1.0, closest) if reached else Found(difference=closest)
        if closest <= min(goals) or gradients >= 2 * steps:
            break
    return found


def row(found: Found, yardstick: Found) -> str:
    """Gradients, relative to the yardstick, and seconds, and the rate."""
    if not np.isfinite(found.gradients):
        return f"not reached, {found.difference:.0e}"
    ratio = found.gradients / yardstick.gradients if np.isfinite(yardstick.gradients) else np.nan
    return f"{found.gradients:.0f} {ratio:6.2f} {found.seconds:7.3f} s ({found.rate:g})"


def main() -> None:
    """Prints the table and draws the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--batch", type=int, default=32, help="samples in the batch")
    parser.add_argument("--steps", type=int, default=1000, help="the most steps to take")
    parser.add_argument("--goals", type=float, nargs="+", default=[1e-3, 1e-5], help="how close to come")
    parser.add_argument("--quick", action="store_true", help="one tiny network, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    options = parser.parse_args()
    with jax.enable_x64(True):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 1 if options.quick else 4, sharey=True, squeeze=False)[0]
    print(f"gradients, and seconds, until the gradient of the weights is close; jax {jax.__version__}")
    all_networks = networks(options.batch, options.quick)
    for (title, model, x, y), axes in zip(all_networks, panels, strict=True):
        exact, _ = settle(x, y, options.steps, True, 1e-11, model=model, nodes=pxl.LBFGS())
        print(f"\n{title}\n{'':16}" + "".join(f"{goal:>22.0e}        " for goal in options.goals))
        yardstick: dict[float, Found] = {}
        for place, name in enumerate(METHODS):
            found = search(name, x, y, options.goals, options.steps, model, exact)
            if name == HEUN[0]:
                yardstick = found
            if name == HEUN[1]:
                yardstick |= {goal: each for goal, each in found.items() if not np.isfinite(yardstick[goal].gradients)}
            cells = [row(each, yardstick[goal]) for goal, each in found.items()]
            print(f"{name:16}" + "".join(f"{cell:>30}" for cell in cells), flush=True)
            axes.barh(place, min(found[options.goals[0]].gradients, 1e5))
        axes.set(title=title, xlabel="gradients", xscale="log")
        axes.set_yticks(range(len(METHODS)), [*METHODS])
    panels[0].invert_yaxis()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "equilibrium.png", dpi=150)
    print(f"wrote {options.out / 'equilibrium.png'}")


if __name__ == "__main__":
    main()

"""The GPU check: whether training is right on this device, how fast it is, and how much memory it takes.

Six parts, meant to take at most six minutes on one GPU. Their numbers are printed, written to gpu.json, and drawn:

- agreement: the weights that every algorithm reaches here, at three precisions of products, against those of the CPU at
  full precision. On GPUs, JAX documents its default precision, which "bfloat16" stands for, as TensorFloat-32 as well.
- step: a training step of `PC` on MLPs, at JAX's default precision as in all parts below, against the same by hand in
  JAX; and that of pcx where it is installed.
- vgg5: a training step of `PC` on VGG-5, against backpropagation.
- busy: a step among many in one program, where it never waits for Python, relative to one that is called; and for how
  long a call keeps Python before it returns.
- memory: what a compiled step takes for what is neither input nor output, against T and depth.
- stacks: a training step of `PC` on residual networks whose hidden layers are a `Stack`, or a list.

If a part fails, its numbers so far are kept and the other parts run; the exit status is then 1.
"""

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
from depth import step_times
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mlp import MLP
from pcx_step import installed_pcx
from timing import interleaved
from training_step import NODES, WEIGHTS, Both, Case
from vgg5 import CHAINED, contestants, steps

import minipcax as px
import minipcax.learning as pxl
import minipcax.utils as pxu

PRECISIONS = ["float32", "tensorfloat32", "bfloat16"]
UPDATES = 5  # of the weights, before they are compared
REPEATS = 10  # steps in a round, as in a training loop that does not wait for them

Numbers = dict[str, float]
# What a part yields: a label, and numbers by name.
Rows = Iterator[tuple[str, Numbers]]


class Sizes(NamedTuple):
    """The sizes of models and batches, and the rounds to take the median over."""

    batch: int = 128
    widths: tuple[int, ...] = (128, 2048)
    steps: tuple[int, ...] = (8, 32)
    vgg5_steps: int = 7
    vgg5_scale: int = 1
    memory_steps: tuple[int, ...] = (1, 8, 64, 256)
    depths: tuple[int, ...] = (4, 16, 64)
    stacks: tuple[int, ...] = (8, 128)
    rounds: int = 25


QUICK = Sizes(2, (8,), (2,), 1, 64, (2, 8), (2, 3), (2,), 1)


class Method(NamedTuple):
    """An algorithm for each batch, and the optimiser of its nodes."""

    algorithm: Callable[[int], pxl.Algorithm]
    nodes: optax.GradientTransformation = optax.sgd(0.05)


METHODS = {
    "PC": Method(lambda batch: pxl.PC(), NODES),
    "PC, langevin": Method(lambda batch: pxl.PC(), pxl.langevin(0.05, temperature=1e-5)),
    "IPC": Method(lambda batch: pxl.IPC()),
    "Nudging": Method(lambda batch: pxl.Nudging(0.5 * (-1) ** batch)),
    "EPC": Method(lambda batch: pxl.EPC()),
    "ZIL": Method(lambda batch: pxl.ZIL()),
    "Backprop": Method(lambda batch: pxl.Backprop()),
}


def trained(method: Method, sizes: list[int], batch: int, platform: str, precision: str) -> list[np.ndarray]:
    """The weights before, and after `UPDATES` batches on a device, as one vector each."""
    device, rng = jax.devices(platform)[0], np.random.default_rng(0)
    with jax.default_device(jax.devices("cpu")[0]):  # or they might differ in their last bits from the start
        model = MLP(sizes)

    before = _vector(model)
    with jax.default_device(device), jax.default_matmul_precision(precision):
        px.RKG.seed(0)
        # Not Adam: where a gradient is nearly zero, its update is as large as elsewhere, and the sign is rounding.
        nodes, optim = pxu.Optim(method.nodes), pxu.Optim(optax.sgd(0.05), pxl.WEIGHTS(model))
        for number in range(UPDATES):
            x = rng.standard_normal((batch, sizes[0]), np.float32)
            y = np.eye(sizes[-1], dtype=np.float32)[rng.integers(sizes[-1], size=batch)]
            method.algorithm(number)(x, y, model=model, nodes=nodes, weights=optim).check()
    used = {each for layer in model.layers for each in layer.nn.weight.get().devices()}
    if used != {device}:  # a comparison of the CPU with itself would find no difference
        raise RuntimeError(f"training was to run on {device}, found its weights on {used}")
    return [before, _vector(model)]


def _vector(model: MLP) -> np.ndarray:
    return np.concatenate([np.ravel(weight) for weight in jax.tree.leaves(pxl.WEIGHTS(model))])


def agreement(sizes: Sizes) -> Rows:
    """The largest difference from the weights of the CPU, relative to how far any of them moved."""
    for name, method in METHODS.items():
        train = partial(trained, method, Case(sizes.widths[0], sizes.batch, 0, sizes.depths[0]).sizes, sizes.batch)
        before, reference = train("cpu", "float32")
        moved = float(np.abs(reference - before).max())
        after = {precision: train(jax.default_backend(), precision)[1] for precision in PRECISIONS}
        differences = {each: float(np.abs(after[each] - reference).max()) / moved for each in PRECISIONS}
        yield name, {**differences, "moved": moved}


def step(sizes: Sizes) -> Rows:
    """Microseconds of a training step, and the largest difference of the energies from those by hand."""
    peers = installed_pcx()
    for case in [Case(width, sizes.batch, each) for width in sizes.widths for each in sizes.steps]:
        both = Both(case)
        difference = both.difference()
        calls = {"by hand": both.by_hand, "minipcax": both.ours}
        calls |= {name: make(case.sizes, case.steps, NODES, WEIGHTS, both.x, both.y) for name, make in peers.items()}
        times = interleaved(calls, sizes.rounds, REPEATS)
        ratio = times["minipcax"] / times["by hand"]
        yield str(case), {**_microseconds(times), "ratio": ratio, "difference": difference}


def vgg5(sizes: Sizes) -> Rows:
    """Microseconds of a training step of either algorithm."""
    both = contestants(sizes.batch, sizes.vgg5_steps, sizes.vgg5_scale)
    times = interleaved({name: each.one for name, each in both.items()}, sizes.rounds, REPEATS)
    ratio = times["PC"] / times["backpropagation"]
    yield f"VGG-5, batch {sizes.batch}, T = {sizes.vgg5_steps}", {**_microseconds(times), "ratio": ratio}


def busy(sizes: Sizes) -> Rows:
    """Microseconds of a step that is called and waited for, of one among others in a loop, and in one program."""
    x = jax.random.normal(jax.random.PRNGKey(0), (sizes.batch, 784))
    cases = [Case(width, sizes.batch, sizes.steps[0]) for width in sizes.widths]
    several = {f"{case}": steps(pxl.PC(case.steps), MLP(case.sizes), x) for case in cases}
    for name, each in contestants(sizes.batch, sizes.vgg5_steps, sizes.vgg5_scale).items():
        several[f"VGG-5, {name}"] = each
    for label, each in several.items():
        times = interleaved({"called": each.one, "in one program": each.chained}, sizes.rounds)
        times |= interleaved({"in a loop": each.one}, sizes.rounds, REPEATS)
        times["in one program"] /= CHAINED
        times["until the call returns"] = until_return(each.one, sizes.rounds)
        shares = {f"busy {how}": times["in one program"] / times[how] for how in ("called", "in a loop")}
        yield label, {**_microseconds(times), **shares}


def memory(sizes: Sizes) -> Rows:
    """Kilobytes of a compiled step, against T at the first depth, and against the depth at the second T."""
    first, second = sizes.depths[0], sizes.memory_steps[1]
    pairs = [*((each, first) for each in sizes.memory_steps), *((second, each) for each in sizes.depths[1:])]
    for inference, depth in pairs:
        ours, by_hand = Both(Case(sizes.widths[0], sizes.batch, inference, depth)).kilobytes()
        yield f"{depth} layers, T = {inference}", {"minipcax, kB": ours, "by hand, kB": by_hand}


def stacks(sizes: Sizes) -> Rows:
    """Yields the microseconds of a step at the first width, for each number of hidden layers."""
    for hidden, found in step_times(sizes.widths[0], sizes.batch, sizes.stacks, max(sizes.stacks), sizes.rounds):
        times = {name: found[name] for name in ("list", "stack")}
        yield f"{hidden} layers", {**_microseconds(times), "ratio": found["stack"] / found["list"]}


def until_return(call: Callable[[], Array], rounds: int) -> float:
    """The median time until a call returns, in seconds, on a device that has nothing else to do."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
        result.block_until_ready()
    return statistics.median(times)


def _microseconds(times: Numbers) -> Numbers:
    return {f"{name}, µs": 1e6 * seconds for name, seconds in times.items()}


PARTS = {"agreement": agreement, "step": step, "vgg5": vgg5, "busy": busy, "memory": memory, "stacks": stacks}


def draw(parts: dict[str, dict[str, Numbers]], path: Path) -> None:
    """Draws what there is of the differences, the ratios, the memory, and how busy the device is."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    (differences, ratios), (shares, kilobytes) = figure.subplots(2, 2)
    _bars(differences, parts.get("agreement", {}), PRECISIONS)
    differences.set(title="difference from the weights of the CPU", xlabel="relative to how far they moved")
    differences.set_xscale("symlog", linthresh=1e-8)  # on the CPU itself, it is zero
    differences.set_xlim(left=0)
    _bars(ratios, {**parts.get("step", {}), **parts.get("vgg5", {})}, ["ratio"])
    ratios.set(title="step of PC", xlabel="time relative to by hand; of VGG-5, to backpropagation")
    _bars(shares, parts.get("busy", {}), ["busy called", "busy in a loop"])
    shares.set(title="how busy the device is", xlabel="step in one program, relative to one called and in a loop")
    _bars(kilobytes, parts.get("memory", {}), ["minipcax, kB", "by hand, kB"])
    kilobytes.set(title="memory of a step", xlabel="kB")
    figure.savefig(path, dpi=150)


def _bars(axes: Axes, rows: dict[str, Numbers], names: list[str]) -> None:
    """The numbers of these names, side by side, for every row."""
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [place + index * height for place in range(len(rows))]
        axes.barh(places, [row[name] for row in rows.values()], height, label=name)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(rows))], [*rows])
    axes.invert_yaxis()
    axes.legend(fontsize="small")


def main() -> None:
    """Runs all parts, and exits with status 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which only show that everything runs")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for gpu.json and gpu.png")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, Numbers]] = {}
    seconds: Numbers = {}
    failures: dict[str, str] = {}
    device = jax.devices()[0].device_kind
    found = {"jax": jax.__version__, "device": device, "failures": failures, "seconds": seconds, "parts": parts}
    print(f"jax {jax.__version__} on {device}")
    for name, part in PARTS.items():
        start, rows = time.perf_counter(), parts.setdefault(name, {})
        print(f"\n{name}: {part.__doc__}")
        try:
            for label, numbers in part(QUICK if options.quick else Sizes()):
                rows[label] = numbers
                print(f"{label:36}", *(f"{key} {value:.4g}" for key, value in numbers.items()), sep="  ", flush=True)
        except Exception as error:
            traceback.print_exc()
            failures[name] = f"{type(error).__name__}: {error}"
        seconds[name] = time.perf_counter() - start
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1))
    print("\nseconds:", *(f"{name} {value:.0f}" for name, value in seconds.items()), sep="  ")
    draw(parts, options.out / "gpu.png")
    print(f"wrote {options.out / 'gpu.json'} and gpu.png")
    if failures:
        sys.exit(f"failed: {failures}")


if __name__ == "__main__":
    main()

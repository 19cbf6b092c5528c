"""Timing that survives noisy machines: ratios within one process, medians over interleaved rounds."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

# A label, the time of the yardstick, and the time that is compared with it, in seconds.
Row = tuple[str, float, float]


def _wait_for(result: Any) -> None:
    jax.block_until_ready(result)  # type: ignore[no-untyped-call]  # jax


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int, repeats: int = 1, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """The median time of each call, in seconds. In every round each call is repeated, and waited for at the end.

    Args:
        calls: what to measure, by name.
        rounds: how often to go through all of them, after a first time that does not count.
        repeats: how often each is called in a round.
        before: is called before each of them in every round, outside the measured time.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        _wait_for(call())
    for _ in range(rounds):
        for name, call in calls.items():
            before()
            start = time.perf_counter()
            result = None
            for _ in range(repeats):
                result = call()
            _wait_for(result)
            times[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(values) for name, values in times.items()}


def arguments(
    description: str | None, rounds: int, layers: Sequence[int] = (), sweep: bool = False
) -> argparse.Namespace:
    """The options that all benchmarks have; with `layers` or `sweep`, one for the sizes of the model as well."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds to take the median over")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture")
    if layers:
        parser.add_argument("--layers", type=int, nargs="+", default=layers, help="sizes of the model")
    if sweep:
        parser.add_argument("--cases", type=int, help="measure only the first few sizes of the model")
        parser.add_argument("--sweep", action="store_true", help="measure many sizes of the model")
    return parser.parse_args()


def report(
    title: str, rows: Sequence[Row], path: Path, yardstick: str = "JAX by hand", measured: str = "minipcax"
) -> None:
    """Prints a table of times and their ratios to the yardstick, and draws the ratios.

    Args:
        title: of the table.
        rows: what to print.
        path: where to write the picture.
        yardstick: whose times are the yardstick.
        measured: whose times are compared with it.
    """
    width = max(len(label) for label, _, _ in rows)
    print(f"{title}; jax {jax.__version__} on {jax.devices()[0].device_kind}")
    print(f"{'':{width}}  {yardstick:>12}  {measured:>12}  ratio")
    for label, theirs, ours in rows:
        print(f"{label:{width}}  {1e6 * theirs:9.1f} µs  {1e6 * ours:9.1f} µs  {ours / theirs:5.2f}")
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh([label for label, _, _ in reversed(rows)], [ours / theirs for _, theirs, ours in reversed(rows)])
    axes.axvline(1, color="black", linewidth=1)
    axes.set(title=title, xlabel=f"time relative to {yardstick}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")

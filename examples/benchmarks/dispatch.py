"""What a call costs: `minipcax.functional.jit` on a model of many layers, against `jax.jit` on the same arrays.

The same is measured of the other libraries in `peers.py`, where they are installed.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array
from peers import Calls, installed
from timing import Row, arguments, interleaved, report

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn


class Model(px.Module):
    """A stack of linear layers."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(8, 8) for _ in range(layers)]

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


@pxf.jit
def forward(x: Array, *, model: Model) -> Array:
    """Changes nothing."""
    return model(x)


@pxf.jit
def update(x: Array, *, model: Model) -> Array:
    """Changes every parameter."""
    for param in px.tree_extract(model):
        param += 1e-6
    return model(x)


@jax.jit
def forward_by_hand(arrays: list[Array], x: Array) -> Array:
    """The same as `forward`, on plain arrays: weight, bias, weight, bias, ..."""
    for weight, bias in zip(arrays[::2], arrays[1::2], strict=True):
        x = weight @ x + bias
    return x


@jax.jit
def update_by_hand(arrays: list[Array], x: Array) -> tuple[list[Array], Array]:
    """The same as `update`."""
    arrays = [array + 1e-6 for array in arrays]
    return arrays, forward_by_hand(arrays, x)


def measure(
    layers: int, rounds: int, peers: Mapping[str, Callable[[int, Array], Calls]]
) -> tuple[list[Row], list[Row]]:
    """The two rows for a model of so many layers, and those of the peers."""
    model, x = Model(layers), jnp.ones(8)
    arrays = [param.get() for param in px.tree_extract(model)]
    state = list(arrays)

    def update_state() -> Array:
        y: Array
        state[:], y = update_by_hand(state, x)
        return y

    calls: dict[str, Callable[[], Array]] = {
        "forward_by_hand": lambda: forward_by_hand(arrays, x),
        "forward": lambda: forward(x, model=model),
        "update_by_hand": update_state,
        "update": lambda: update(x, model=model),
    }
    for name, make in peers.items():
        calls[f"{name} forward"], calls[f"{name} update"] = make(layers, x)
    times = interleaved(calls, rounds, repeats=max(1, 2000 // layers))
    nothing, everything = f"{layers} layers, nothing changes", f"{layers} layers, every parameter changes"
    ours = [
        (nothing, times["forward_by_hand"], times["forward"]),
        (everything, times["update_by_hand"], times["update"]),
    ]
    theirs = [(f"{name}: {nothing}", times["forward_by_hand"], times[f"{name} forward"]) for name in peers]
    theirs += [(f"{name}: {everything}", times["update_by_hand"], times[f"{name} update"]) for name in peers]
    return ours, theirs


def main() -> None:
    """Prints the tables and draws the pictures."""
    options = arguments(__doc__, rounds=25, layers=[5, 50, 500])
    peers = installed()
    ours, theirs = [], []
    for layers in options.layers:
        rows, peer_rows = measure(layers, options.rounds, peers)
        ours += rows
        theirs += peer_rows
    report("call overhead", ours, options.out / "dispatch.png")
    if theirs:
        report("call overhead of other libraries", theirs, options.out / "dispatch_peers.png", measured="the library")


if __name__ == "__main__":
    main()

"""What a training step costs: `minipcax.learning.PC`, against the same step by hand in JAX with `lax.scan`.

The step is also measured as users of pcx write it out, with transforms, masks and statuses.

Three sizes, or with --sweep many: over T, width, depth and batch. Beside the time of a step and of the first call after
JAX's caches were cleared, which traces and compiles, it prints the memory that the compiled step takes for what lies
between. Where pcx is installed (see `peers.py`), its step is measured as well, with inference as a Python loop and as a
scan.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from mlp import MLP
from pcx_step import PeerStep, installed_pcx, written_out
from timing import Row, arguments, interleaved, report

import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.utils as pxu

NODES = optax.sgd(0.05, momentum=0.5)
WEIGHTS = optax.adamw(1e-4)
Weights = list[tuple[Array, Array]]


class Case(NamedTuple):
    """A row of the table."""

    width: int
    batch: int
    steps: int
    depth: int = 4

    @property
    def sizes(self) -> list[int]:
        """Of the layers."""
        return [784, *(self.width,) * (self.depth - 1), 10]

    def __str__(self) -> str:
        depth = f"{self.depth} layers, " if self.depth != 4 else ""
        return f"{depth}width {self.width}, batch {self.batch}, T = {self.steps}"


CASES = [Case(32, 32, 8), Case(128, 128, 8), Case(128, 128, 32)]
SWEEP = [
    *(Case(32, 32, steps) for steps in (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    *(Case(width, 32, 8) for width in (64, 128, 256, 512)),
    *(Case(32, 32, 8, depth) for depth in (8, 16, 32, 64, 128)),
    *(Case(32, batch, 8) for batch in (1, 8, 128, 512)),
]


def energy_by_hand(states: list[Array], weights: Weights, x: Array, y: Array) -> Array:
    """½ Σ (h − u)² over all nodes and samples."""
    energy = jnp.zeros(())
    for (weight, bias), state in zip(weights[:-1], states, strict=True):
        error = state - jnp.tanh(x @ weight.T + bias[None])
        energy, x = energy + 0.5 * (error * error).sum(), state
    weight, bias = weights[-1]
    error = y - (x @ weight.T + bias[None])
    return energy + 0.5 * (error * error).sum()


@partial(jax.jit, static_argnums=4)
def step_by_hand(weights: Weights, state: Any, x: Array, y: Array, steps: int) -> tuple[Weights, Any, Array]:
    """Forward initialisation, `steps` steps of inference, and one update of the weights."""
    states = []
    signal = x
    for weight, bias in weights[:-1]:
        signal = jnp.tanh(signal @ weight.T + bias[None])
        states.append(signal)

    def relax(carry: tuple[list[Array], Any], _: None) -> tuple[tuple[list[Array], Any], Array]:
        states, node_state = carry
        energy, grads = jax.value_and_grad(energy_by_hand)(states, weights, x, y)
        updates, node_state = NODES.update(grads, node_state)
        return (optax.apply_updates(states, updates), node_state), energy / len(x)

    (states, _), energies = jax.lax.scan(relax, (states, NODES.init(states)), None, length=steps)
    grads = jax.grad(lambda weights: energy_by_hand(states, weights, x, y) / len(x))(weights)
    updates, state = WEIGHTS.update(grads, state, weights)
    return optax.apply_updates(weights, updates), state, energies


def memory(step: Any, *args: Any, **tracked: Any) -> int:
    """How many kilobytes a compiled step takes for what is neither input nor output."""
    return int(step.lower(*args, **tracked).compile().memory_analysis().temp_size_in_bytes) // 1024


class Both:
    """The training step of a case by `PC` and by hand, from the same weights and always on the same batch."""

    def __init__(self, case: Case) -> None:
        self.model = MLP(case.sizes)
        self.nodes, self.optim = pxu.Optim(NODES), pxu.Optim(WEIGHTS, pxl.WEIGHTS(self.model))
        self.algorithm = pxl.PC(case.steps)
        self.weights: Weights = [
            (layer.nn.weight.get(), layer.nn.bias.get()) for layer in self.model.layers if layer.nn.bias is not None
        ]
        self.state = WEIGHTS.init(self.weights)
        self.x = jax.random.normal(jax.random.PRNGKey(0), (case.batch, 784))
        self.y = jax.nn.one_hot(jnp.arange(case.batch) % 10, 10)

    def ours(self) -> Array:
        """One step; returns the energies of all nodes."""
        report = self.algorithm(self.x, self.y, model=self.model, nodes=self.nodes, weights=self.optim)
        return report.history.energies

    def by_hand(self) -> Array:
        """One step; returns the energies."""
        energies: Array
        steps = self.algorithm.steps
        self.weights, self.state, energies = step_by_hand(self.weights, self.state, self.x, self.y, steps)
        return energies

    def difference(self) -> float:
        """The largest difference of the energies, after one more step of each."""
        return float(jnp.abs(self.ours().sum(-1) - self.by_hand()).max())

    def kilobytes(self) -> tuple[int, int]:
        """The memory of our compiled step, and of the one by hand."""
        algorithm = self.algorithm

        def whole(x: Array, y: Array, *, model: MLP, nodes: pxu.Optim, optim: pxu.Optim) -> pxl.Report:
            return algorithm(x, y, model=model, nodes=nodes, weights=optim)

        ours = memory(pxf.jit(whole), self.x, self.y, model=self.model, nodes=self.nodes, optim=self.optim)
        return ours, memory(step_by_hand, self.weights, self.state, self.x, self.y, algorithm.steps)


def measure(case: Case, rounds: int, peers: dict[str, PeerStep]) -> tuple[list[Row], list[Row]]:
    """The rows of a case, steady state and first call; and those of the peers."""
    both = Both(case)
    batch = both.x, both.y
    calls = {
        "by hand": both.by_hand,
        "ours": both.ours,
        "written out": written_out(case.sizes, case.steps, NODES, WEIGHTS, *batch),
    }
    difference = both.difference()
    first = interleaved(calls, min(rounds, 9), before=jax.clear_caches)
    our_kilobytes, kilobytes = both.kilobytes()
    print(f"{case}: largest difference of the first energies {difference:.1e}, {our_kilobytes} kB, {kilobytes} by hand")
    their_calls = {name: make(case.sizes, case.steps, NODES, WEIGHTS, *batch) for name, make in peers.items()}
    repeats = max(3, 8000 // (case.steps * case.width * case.depth))
    times = interleaved({**calls, **their_calls}, rounds, repeats)
    rows = [
        (f"{case}{', written out' if name != 'ours' else ''}{which}", measured["by hand"], measured[name])
        for name in ("ours", "written out")
        for which, measured in (("", times), (", first call", first))
    ]
    return rows, [(f"{name}, {case}", times["by hand"], times[name]) for name in peers]


def main() -> None:
    """Prints the table and draws the picture."""
    options = arguments(__doc__, rounds=25, sweep=True)
    peers = installed_pcx()
    ours, theirs = [], []
    for case in (SWEEP if options.sweep else CASES)[: options.cases]:
        rows, peer_rows = measure(case, options.rounds, {} if options.sweep else peers)
        ours += rows
        theirs += peer_rows
    report("training step", ours, options.out / "training_step.png")
    if theirs:
        report("training step of pcx", theirs, options.out / "training_step_peers.png", measured="pcx")


if __name__ == "__main__":
    main()

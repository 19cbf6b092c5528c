"""The quickstart's model on many devices: each holds all weights, and a part of every batch.

On whatever devices there are, on 8 simulated by a CPU, or on those of two processes, which may be on two machines:

    python examples/5_many_devices.py
    python examples/5_many_devices.py --devices 8
    for i in 0 1; do python examples/5_many_devices.py --processes 2 --process $i & done; wait

JAX does the work: what it computes from arrays on many devices, it computes where their parts are (see "Distributed
arrays and automatic parallelization" in its documentation). So all that differs from one device is where weights and
batches are put.

Every sample has its own states, so inference needs no communication between devices. A training step of PC sums the
gradients of all W weights once, with the energies of L nodes at T steps: each of n devices sends
8 (n − 1)/n (W + T L + 1) bytes, whatever the size of the batch; backpropagation sends 8 (n − 1)/n (W + 1). IPC, whose
weights move at every step, sends T times as much; a `tolerance` adds 4 bytes a step. With weights that are spread over
devices instead, by their outputs, states have to travel: for B samples and H hidden values, about
4 (n − 1)/n B H (3 T + 2) bytes, where backpropagation sends 12 (n − 1)/n B H.
"""

import argparse
import time
from importlib import import_module

import jax
import numpy as np
import optax
from data import load
from jax.sharding import NamedSharding, PartitionSpec

import minipcax as px
import minipcax.learning as pxl
import minipcax.utils as pxu


def train(options: argparse.Namespace) -> None:
    """Prints the devices, the shardings, and for every epoch the time of a step and the accuracy."""
    mesh = jax.make_mesh((jax.device_count(),), ("devices",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["devices"], []))  # type: ignore[no-untyped-call]  # jax

    data = load(None)
    px.RKG.seed(options.seed)  # the same weights in every process
    model = import_module("1_quickstart").Model(data.train.vectors.shape[1], options.hidden, 10, px.RKG)
    model = jax.device_put(model, whole)  # a copy, with the same sharing
    weights = pxu.Optim(optax.adamw(1e-3), pxl.WEIGHTS(model))
    nodes, algorithm = pxu.Optim(optax.sgd(0.02)), pxl.PC(options.steps)

    def put(array: np.ndarray) -> jax.Array:
        """Gives every device its part; each process reads only the parts of its own devices."""
        return jax.make_array_from_callback(array.shape, split, lambda part: array[part])

    def step(batch: np.ndarray) -> pxl.Report:
        x, y = put(data.train.vectors[batch]), put(data.train.targets[batch])
        return algorithm(x, y, model=model, nodes=nodes, weights=weights)

    rng = np.random.default_rng(options.seed)
    steps = len(data.train.images) // options.batch_size
    prints = jax.process_index() == 0
    if prints:
        print(f"{jax.process_count()} processes, {jax.device_count()} devices: {jax.devices()}")
        print(f"a batch: {split}\na weight: {model.layers[0].nn.weight.sharding}")
    for epoch in range(options.epochs):
        order = rng.permutation(len(data.train.images))[: steps * options.batch_size].reshape(steps, -1)
        start = time.perf_counter()
        *_, report = map(step, order)
        report.check()
        seconds = (time.perf_counter() - start) / steps
        accuracy = report.accuracy(data.train.labels[order[-1]])
        if prints:
            compiled = " with compilation" if epoch == 0 else ""
            print(f"epoch {epoch}: {1e3 * seconds:.2f} ms a step{compiled}, {accuracy:.1%} of the last batch are right")


def main() -> None:
    """Starts JAX as the options say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--devices", type=int, help="simulate as many on a CPU")
    parser.add_argument("--processes", type=int, default=1, help="how many there are")
    parser.add_argument("--process", type=int, default=0, help="the number of this one")
    parser.add_argument("--coordinator", default="localhost:12355", help="where process 0 listens")
    parser.add_argument("--epochs", type=int, default=5, help="how often to go through the training set")
    parser.add_argument("--batch-size", type=int, default=64, help="a multiple of the number of devices")
    parser.add_argument("--steps", type=int, default=8, help="T, the inference steps for each batch")
    parser.add_argument("--hidden", type=int, default=128, help="size of the hidden layers")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, and of the order of images")
    options = parser.parse_args()
    if options.devices:
        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]  # jax
        jax.config.update("jax_num_cpu_devices", options.devices)  # type: ignore[no-untyped-call]  # jax
    if options.processes > 1:
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    if options.batch_size % jax.device_count():
        parser.error(f"--batch-size: expected a multiple of {jax.device_count()} devices, found {options.batch_size}")
    train(options)


if __name__ == "__main__":
    main()

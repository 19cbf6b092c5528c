"""Two processes of one program: they draw, learn and keep the same. Each runs here as a process of its own.

The oracle is the same training in one process, on one device; the values that processes hold are compared with the
gather of JAX itself.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

PROGRAM = """
import faulthandler, inspect, os, signal, sys, time
faulthandler.dump_traceback_later(110, exit=True)  # no process stays if that of the test is gone
sys.excepthook = lambda *error: (sys.__excepthook__(*error), os._exit(1))  # without waiting for the other
import jax, jax.numpy as jnp, numpy as np, optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import minipcax as px, minipcax.learning as pxl, minipcax.nn as pxnn, minipcax.utils as pxu
import minipcax.predictive_coding as pxc

port, rank, count, axes, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    patience = {"heartbeat_timeout_seconds": 10}  # JAX ends a process as soon as it knows that another is dead
    if "heartbeat_timeout_seconds" not in inspect.signature(jax.distributed.initialize).parameters:
        patience = {}
    jax.distributed.initialize(f"localhost:{port}", count, rank, **patience)
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(getattr(AxisType, axes),))

class Model(pxc.EnergyModule):
    def __init__(self):
        super().__init__()
        self.layers, self.drop = [pxnn.Linear(3, 4), pxnn.Linear(4, 2)], pxnn.Dropout(0.5)
        self.vodes = [pxc.Vode(), pxc.Vode()]
        self.vodes[1].h.frozen = True

    def __call__(self, x, y=None):
        x = self.drop(jnp.tanh(self.layers[0](x)), key=px.RKG())
        u = self.vodes[1](self.layers[1](self.vodes[0](x)), output="u")
        if y is not None:
            self.vodes[1].set("h", y)
        return u

def put(array, *spec):
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, PartitionSpec(*spec)), array.__getitem__)

draw = np.random.default_rng(0)
x, y = (draw.normal(size=size).astype(np.float32) for size in ((8, 3), (8, 2)))

def build(spread=True, first=0):
    px.RKG.seed(0)
    model = Model()
    if spread:
        for param in px.tree_extract(pxl.WEIGHTS(model)):
            param.set(put(param.get()))
    rows, keys = np.arange(first, first + 8.0, dtype=np.float32), np.arange(first, first + 16, dtype=np.uint32)
    keys = jax.random.wrap_key_data(put(keys.reshape(8, 2), "data"))
    more = {"rows": px.Param(put(rows, "data")), "keys": px.Param(keys)}
    weights = pxu.Optim(optax.sgd(0.1, momentum=0.9), pxl.WEIGHTS(model))
    return {"model": model, "weights": weights, "rkg": px.RKG, "more": more}

def train(state, algorithm=pxl.PC(2), spread=True):
    batch = (put(x, "data"), put(y, "data")) if spread else (jnp.asarray(x), jnp.asarray(y))
    nodes = pxu.Optim(optax.sgd(0.1))
    return algorithm(*batch, model=state["model"], nodes=nodes, weights=state["weights"])

def weights_of(state):
    return [np.asarray(param.get()) for param in px.tree_extract(pxl.WEIGHTS(state["model"]))]

def close(ones, others, message=""):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=message)

def same(ones, others):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one, other)

def raised(fn, *args):
    try:
        fn(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
"""


def start(body: str, folder: Path, count: int, axes: str, devices: int) -> list[tuple[int, str]]:
    """Runs the program and then the body in every process; returns their exit statuses and what they have written."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    outputs = [folder / f"output{rank}" for rank in range(count)]
    deadline, processes = time.monotonic() + 120, []
    try:
        for rank, output in enumerate(outputs):
            argv = map(str, (port, rank, count, axes, folder))
            command = [sys.executable, "-u", "-W", "error", "-c", PROGRAM + body, *argv]
            with output.open("w") as file:
                processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        for process in processes:
            process.wait(deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        pytest.fail("\n\n".join(output.read_text() for output in outputs))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, output.read_text()) for process, output in zip(processes, outputs, strict=True)]


HAS_EXPLICIT_AXES = hasattr(jax.sharding, "reshard")
DEFAULT_AXES = "Explicit" if HAS_EXPLICIT_AXES else "Auto"


def run(body: str, folder: Path, count: int = 2, axes: str = DEFAULT_AXES, devices: int = 1) -> None:
    results = start(body, folder, count, axes, devices)
    assert [status for status, _ in results] == [0] * count, "\n\n".join(output for _, output in results)


# Learning, saving and resuming.
RUN = """
assert jax.process_count() == 2
for draws in (px.RKG, Model, px.functional.jit(lambda: px.RKG())):
    found = raised(draws)
    assert found.startswith("RuntimeError: expected the random key generator RKG to be seeded"), found
    assert "this is one of 2 processes" in found and "call RKG.seed(0)" in found, found

px.RKG.seed(0)
for one, two in multihost_utils.process_allgather(weights_of({"model": Model()})):
    same([one], [two])
assert one.any()

def results(state, spread):
    for _ in range(2):
        report = train(state, spread=spread).check()
    labels, place = y.argmax(-1), (lambda array: put(array, "data")) if spread else jnp.asarray
    right = report.accuracy(labels), report.accuracy(place(labels)), pxl.accuracy(place(x), labels, state["model"])
    return [*weights_of(state), px.RKG.key.get(), report.energies, report.loss, *right]  # readable in every process

state = build()
found, key = results(state, True), px.RKG.key.get()
assert "LayerParam([4,3], float32)" in repr(state)
if rank == 0:  # the one that keeps what it has compiled
    close(results(build(False), False), found)
    px.RKG.key.set(key)

path = f"{folder}/run"
pxu.save_params(state, path, px.Param)
same(sorted(f for f in os.listdir(folder) if "output" not in f), ["run.npz"])
with np.load(f"{path}.npz") as file:
    same([file["['more']['rows']"], file["['more']['keys']"]], [np.arange(8), np.arange(16).reshape(8, 2)])
    same([file["['model'].layers[0].nn.weight"]], [state["model"].layers[0].nn.weight])
train(state)
expected = weights_of(state), np.asarray(px.RKG.key.get())
there = build(first=9)
shardings = [leaf.sharding for leaf in jax.tree.leaves((there["model"], there["more"]))]
pxu.load_params(there, path, px.Param)
assert [leaf.sharding for leaf in jax.tree.leaves((there["model"], there["more"]))] == shardings
keys = jax.random.key_data(there["more"]["keys"].get())
rows, keys = multihost_utils.process_allgather((there["more"]["rows"].get(), keys), tiled=True)
same([rows, keys], [np.arange(8), np.arange(16).reshape(8, 2)])
train(there)
same([*weights_of(there), px.RKG.key.get()], [*expected[0], expected[1]])

# What goes wrong in one process is an error in both, and both go on.
before = open(f"{path}.npz", "rb").read()
own = "FileNotFoundError"
found = raised(pxu.save_params, state, f"{folder}/missing/run")
assert found.startswith("RuntimeError: save_params failed in process 0" if rank else own), found
found = raised(pxu.load_params, state, path if rank else f"{folder}/missing")
assert found.startswith("RuntimeError: load_params failed in process 0" if rank else own), found
found = raised(pxu.save_params, state, f"{folder}/{rank}")
assert found.startswith("ValueError: save_params expected the same path in every process, found another in process 1")
found = raised(pxu.save_params, [state, px.RandomKeyGenerator(rank)], path, px.Param)
assert "expected the same [1].key in every process" in found, found
found = raised(pxu.save_params, [px.Param(1.0)] * (1 + rank) + [px.RKG], path, px.Param)
assert "expected the same parameters in every process" in found, found
np.savez(f"{folder}/{rank}.npz", **{"[0]": np.full(1, rank)})
param = px.Param(np.full(1, 5))
found = raised(pxu.load_params, [param], f"{folder}/{rank}", px.Param)
assert "expected the same file in every process, found another in process 1" in found, found
assert param.item() == 5
same(sorted(f for f in os.listdir(folder) if "output" not in f), ["0.npz", "1.npz", "run.npz"])
assert before == open(f"{path}.npz", "rb").read()
train(state)  # both are still at the same place
"""


@pytest.mark.thorough
def test_a_run_in_two_processes(tmp_path: Path) -> None:
    run(RUN, tmp_path)


ALGORITHMS = """
px.RKG.seed(0)
nudged = [pxl.Nudging(beta, 2) for beta in (0.5, -0.5)]
for algorithm in [pxl.PC(2, tolerance=1e-3), pxl.IPC(2), *nudged, pxl.EPC(2), pxl.Backprop(), pxl.ZIL()]:
    found = []
    for spread in (True, False) if rank == 0 else (True,):
        state = build(spread)
        for _ in range(2):
            report = train(state, algorithm, spread).check()
        found.append([*weights_of(state), px.RKG.key.get(), report.energies, report.loss])
    if rank == 0:
        close(*found, repr(algorithm))
"""


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["Explicit", "Auto"])
def test_every_algorithm(axes: str, tmp_path: Path) -> None:
    if axes == "Explicit" and not HAS_EXPLICIT_AXES:
        pytest.skip("jax before 0.7 has no jax.sharding.reshard, which Explicit axes need")
    run(ALGORITHMS, tmp_path, axes=axes)


SAVED = """
px.RKG.seed(0)
state = build()
train(state)
pxu.save_params(state, f"{folder}/run", px.Param)
train(state)
if rank == 0:
    np.savez(f"{folder}/expected.npz", *weights_of(state), np.asarray(px.RKG.key.get()))
"""
RESUMED = """
px.RKG.seed(0)
state = build(first=9)
pxu.load_params(state, f"{folder}/run", px.Param)
train(state)
with np.load(f"{folder}/expected.npz") as file:
    close([*weights_of(state), px.RKG.key.get()], [file[name] for name in file.files])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [((2, 1), (1, 1)), ((2, 2), (1, 2)), ((1, 2), (2, 1)), ((2, 1), (2, 2))])
def test_a_run_is_resumed_on_another_number_of_devices(
    before: tuple[int, int], after: tuple[int, int], tmp_path: Path
) -> None:
    """Each is a number of processes, and of the devices of each."""
    run(SAVED, tmp_path, count=before[0], devices=before[1])
    run(RESUMED, tmp_path, count=after[0], devices=after[1])


KILLED = """
import pathlib
px.RKG.seed(0)
param = px.Param(put(np.full(4, 1, np.float32), "data"))
pxu.save_params([param], f"{folder}/run", px.Param)
param += 1
exchange, left = multihost_utils.process_allgather, [int(exchanges)]

def die(*args, **kwargs):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return exchange(*args, **kwargs)

if rank == int(killed):
    if left[0] < 0:
        pathlib.Path.replace = die  # after the new file was written, before it takes the place of the old one
    else:
        multihost_utils.process_allgather = die
pxu.save_params([param], f"{folder}/run", px.Param)
print("saved")
"""
WITHIN = [(0, -1, [1.0]), (1, 0, [1.0]), (1, 1, [1.0]), (1, 2, [1.0, 2.0]), (0, 2, [2.0])]


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "exchanges", "whole"), WITHIN)
def test_a_process_is_killed_while_it_saves(killed: int, exchanges: int, whole: list[float], tmp_path: Path) -> None:
    """The file is whole, either as it was or as it will be, and the other process does not take it for saved."""
    results = start(f"killed, exchanges = {killed}, {exchanges}" + KILLED, tmp_path, 2, DEFAULT_AXES, 1)
    assert results[killed][0] == -signal.SIGKILL, results[killed][1]
    assert results[1 - killed][0] != 0
    assert not any("saved\n" in output for _, output in results)
    with np.load(tmp_path / "run.npz") as file:
        (found,) = {*file["[0]"].tolist()}
    assert found in whole


ALONE = """
import minipcax.utils._processes as waiting
px.RKG.seed(0)
waiting.SECONDS = 1.0
if rank == 1:
    time.sleep(3)
param = px.Param(put(np.ones(4, np.float32), "data"))
with __import__("warnings").catch_warnings():
    __import__("warnings").simplefilter("always")
    pxu.save_params([param], f"{folder}/run", px.Param)
"""


@pytest.mark.slow
def test_a_process_that_waits_for_others_says_so(tmp_path: Path) -> None:
    (status, first), (other, second) = start(ALONE, tmp_path, 2, DEFAULT_AXES, 1)
    assert (status, other) == (0, 0), first + second
    assert "save_params in process 0 is waiting for the other processes: every process must call it" in first
    assert "is waiting" not in second

# %% [markdown]
# # 15. Many devices
#
# ![A batch of images and a weight matrix, coloured by the devices that hold their parts](../pictures/many_devices.png)
#
# A *device* is what JAX computes on: a GPU, or here a processor that pretends to be eight. JAX computes where the
# arrays are. Spread a batch over devices, and the same program runs on all of them; model and algorithm stay as they
# are. The question is what the devices have to tell each other, and in predictive coding it has an unusual answer.
#
# XLA, the compiler below JAX, reads `XLA_FLAGS` once, when JAX starts. If that is over, as in a notebook that ran
# another lesson, this one uses the devices there are, be it one.

# %%
import os
import re
import sys

if "jax" not in sys.modules:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from lesson import QUICK, digits, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

data = digits()
count = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
print(f"{count} of {jax.device_count()} devices: {jax.devices()[:count]}")


class Model(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden = pxnn.Linear(64, 32, rkg=px.RandomKeyGenerator(0)), pxc.Vode()
        self.last, self.output = pxnn.Linear(32, 10, rkg=px.RandomKeyGenerator(1)), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.output(self.last(self.hidden(jnp.tanh(self.first(x)))), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


# %% [markdown]
# ## Where arrays are
#
# A *mesh* is a grid of devices whose axes have names. A *sharding* says how an array lies on it: `split` cuts the axis
# of samples into as many parts as there are devices, `whole` puts a copy on each. `jax.device_put` moves an array, or a
# model.

# %%
mesh = jax.make_mesh((count,), ("devices",), devices=jax.devices()[:count])
split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["devices"], []))  # type: ignore[no-untyped-call]  # jax
x, y = (jax.device_put(array[:64], split) for array in (data.train.vectors, data.train.targets))
model = jax.device_put(Model(), whole)
for name, array in {"batch": x, "weight": model.first.nn.weight.get()}.items():
    print(f"the {name} of shape {array.shape} lies in parts of {array.addressable_shards[0].data.shape}")

# %% [markdown]
# The optimisers are made after the model has been moved, so that their states lie where its weights do. Otherwise,
# training is as ever, and the numbers are those of one device, up to rounding.


# %%
def train(model: Model, on: NamedSharding | None, steps: int) -> list[float]:
    """Returns the loss of each step on a batch of 64, spread over the mesh if there is a sharding."""
    weights, nodes = pxu.Optim(optax.adam(0.003), pxl.WEIGHTS(model)), pxu.Optim(optax.sgd(0.1))
    losses, order = [], np.random.default_rng(0)
    for _ in range(steps):
        batch = order.choice(len(data.train.labels), 64, replace=False)
        images, targets = (jax.device_put(array[batch], on) for array in (data.train.vectors, data.train.targets))
        losses.append(float(pxl.PC(8)(images, targets, model=model, nodes=nodes, weights=weights).loss))
    return losses


steps = 20 if QUICK else 300
alone, together = train(Model(), None, steps), train(model, split, steps)
print(
    f"last loss {together[-1]:.6f}, largest difference to one device {np.abs(np.subtract(alone, together)).max():.1e}"
)
print(f"test accuracy {pxl.accuracy(data.test.vectors, data.test.labels, model):.1%}")

# %% [markdown]
# ## What is communicated
#
# Every sample has its own states, and descends the energy of that sample alone. So inference, however long it is, needs
# no word from another device. Only the weights are common: their gradients are summed once a batch, as in
# backpropagation. The compiled program shows it. We look for its all-reduces, by which devices sum arrays, and count
# the numbers in these, in a loop (and so once a step of inference) and outside of it.


# %%
def sent(algorithm: pxl.Algorithm) -> list[int]:
    """Returns how many numbers the devices sum in each step of inference, and how many once in a training step."""

    @pxf.jit
    def step(x: Array, y: Array, *, model: Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        return algorithm(x, y, model=model, nodes=nodes, weights=weights)

    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    program = step.lower(x, y, model=model, nodes=nodes, weights=weights).compile().as_text() or ""
    counts = [0, 0]
    for line in program.splitlines():
        for shapes in re.findall(r"= (.*?) all-reduce(?:-start)?\(", line):
            sizes = [np.prod([*map(int, re.findall(r"\d+", dims))]) for dims in re.findall(r"\[([\d,]*)\]", shapes)]
            counts["while/body" not in line] += int(sum(sizes))
    return counts


print("weights:", sum(param.size for param in jax.tree.leaves(pxl.WEIGHTS(model))))
for algorithm in (pxl.Backprop(), pxl.PC(8), pxl.PC(64), pxl.PC(8, tolerance=1e-3), pxl.IPC(8)):
    print("in each step of inference {:4}, and once {}, by".format(*sent(algorithm)), algorithm)

# %% [markdown]
# A PC step sums the weights' gradients, and the energies that it reports, be it of 8 or 64 steps of inference. A
# `tolerance` has to know when *all* devices have settled: one number a step. IPC moves the weights in every step, and
# so has to sum their gradients in every step. With simulated devices nothing gets faster: they share one processor.

# %%
left, right = (figure := Figure(figsize=(7, 2.8), layout="constrained")).subplots(1, 2)
for axes, array in ((left, x), (right, model.first.nn.weight.get())):
    holders = np.zeros(array.shape)
    for shard in array.addressable_shards:
        holders[shard.index] += 2.0**shard.device.id  # a sum that tells which devices hold an element
    axes.imshow(np.log2(holders), cmap="viridis", aspect="auto", vmin=0, vmax=8)
left.set(title="a batch: each device has a part", ylabel="sample")
right.set(title="a weight: each device has all of it")
save(figure, "many_devices.png")

# %% [markdown]
# ## Exercises
#
# 1. Run this file with `=2` in place of `=8`. Which of the printed numbers change?
# 2. Which sizes of a batch can be spread over 8 devices? Try 60.
# 3. What does `pxl.ZIL()` send, and `pxl.Nudging(0.5)`? Guess before you look.
#
# In the code: `examples/5_many_devices.py`, for several processes too. This was the last lesson: now read the library.

# %% [markdown]
# # 12. Depth
#
# ![The energy of each layer after inference, and the accuracy of deep networks](../pictures/depth.png)
#
# Backpropagation carries the error of the output through all layers in one go. In predictive coding, a state learns of
# the output only through its neighbours: one layer a step of inference, and less at each. This lesson looks at that
# *decay of the signal*, and at what helps: inferring errors instead of states (`EPC`), scalings for any depth (μPC),
# and a way to write networks that compile as fast at any depth (`Stack`).

# %%
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lesson import QUICK, digits, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

data = digits()
x, y = data.train.vectors[:64], data.train.targets[:64]


class Layer(px.Module):
    """tanh of a linear map, whose weights are orthogonal: it turns what it is given, and changes no length."""

    def __init__(self, inputs: int, outputs: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.weight = pxnn.LayerParam(jax.nn.initializers.orthogonal()(rkg(), (outputs, inputs)))

    def __call__(self, x: Array) -> Array:
        return jnp.tanh(self.weight.get() @ x)


# %% [markdown]
# ## One program for any depth
#
# A `Stack` is a number of identical layers, with a value node after each. It computes what a list of layers and nodes
# would, but its parameters have one axis more, that of layers, and given the states, no layer waits for another: all
# are computed at once, and compiled as one.


# %%
class Deep(pxc.EnergyModule):
    """64-32-…-32-10, with the hidden layers in a `Stack`, or in a list."""

    def __init__(self, hidden: int, stacked: bool = True) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(0)
        self.first, self.vode = Layer(64, 32, rkg), pxc.Vode()
        self.stack = pxc.Stack(lambda: Layer(32, 32, rkg), depth=hidden if stacked else 1)
        self.layers = [Layer(32, 32, rkg) for _ in range(0 if stacked else hidden - 1)]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.last, self.output = Layer(32, 10, rkg), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        x = self.stack(self.vode(self.first(x)))
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            x = vode(layer(x))
        u: Array = self.output(self.last(x), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


print(Deep(hidden=16))
for hidden in [4, 16] if QUICK else [4, 16, 64]:
    for kind in ("a list", "a stack"):
        model, start = Deep(hidden, kind == "a stack"), time.perf_counter()
        weights = pxu.Optim(optax.sgd(0.01), pxl.WEIGHTS(model))
        pxl.PC(8)(x, y, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights).loss.item()  # waits
        print(f"{hidden:2} layers as {kind:7}: {time.perf_counter() - start:.1f} s for the first call, which compiles")

# %% [markdown]
# ## The signal that decays
#
# How far has the error come after some steps of inference? Over states, each layer passes on a part of what has reached
# it. `EPC` infers the errors e = h − u: the states follow from them, h = u + e, so that one backward pass tells all of
# them about the output.

# %%
model, signals = Deep(hidden=18), {}
for steps in [8, 32, 128]:
    pxl.initialise(x, y, model=model)
    history = pxl.relax(x, steps, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    signals[f"states, {steps} steps"] = np.asarray(history.energies[-1])
pxl.initialise(x, y, model=model)
history = pxl.relax_errors(x, 8, model=model, optim=pxu.Optim(optax.sgd(0.1)))
signals["errors, 8 steps"] = np.asarray(history.energies[-1])
for name, found in signals.items():
    print(
        f"{name:17} energy of the first node {found[0]:.1e}, of the middle {found[9]:.1e}, of the last {found[-1]:.1e}"
    )

# %% [markdown]
# After 8 steps over states the early layers hear nothing and learn nothing; `check()` warns. More steps help.
#
# ## μPC
#
# In `pxl.ResidualNetwork` each layer adds to the state, u = h + a W f(h). The scales a, 1/√(width · depth) for hidden
# layers, keep states of one size, so the rate that suits 8 layers suits 64 (for 512, see `benchmarks/depth.py`). Over
# states, an error still needs a step for each layer on its way back. So we train with `EPC`, to reach all layers.


# %%
def accuracy(depth: int, scaled: bool) -> float:
    """Returns the test accuracy after a few epochs, with the learning rate that suits 8 layers."""
    model = pxl.ResidualNetwork(64, 64, 10, depth, scaled=scaled, rkg=px.RandomKeyGenerator(0))
    weights = pxu.Optim(optax.adam(0.05 if scaled else 0.002), pxl.WEIGHTS(model))
    nodes, order = pxu.Optim(optax.sgd(0.02)), np.random.default_rng(0)
    for _ in range(1 if QUICK else 3):
        for batch in order.permutation(1408).reshape(-1, 64):
            images, targets = data.train.vectors[batch], data.train.targets[batch]
            pxl.EPC(8)(images, targets, model=model, nodes=nodes, weights=weights)
    return pxl.accuracy(data.test.vectors, data.test.labels, model)


depths, curves = [4, 8] if QUICK else [8, 32, 64], {}
for name in ("μPC", "without scalings"):
    curves[name] = curve = [accuracy(depth, name == "μPC") for depth in depths]
    print(f"{name:17}", ", ".join(f"{depth} layers {right:.1%}" for depth, right in zip(depths, curve, strict=True)))

left, right = (figure := Figure(figsize=(8, 3.2), layout="constrained")).subplots(1, 2)
for name, found in signals.items():
    left.plot(np.arange(1, len(found) + 1), np.maximum(found, 1e-12), marker=".", label=name)
left.set(title="how far the error has come", xlabel="node", ylabel="energy (from 1e-12 on)", yscale="log")
left.legend(fontsize="small", loc="lower right")
for name, curve in curves.items():
    right.plot(depths, curve, marker=".", label=name)
right.set(title="digits, one rate for all depths", xlabel="layers", ylabel="test accuracy")
right.legend()
save(figure, "depth.png")

# %% [markdown]
# ## Exercises
#
# 1. The energies of early nodes fall by a factor from node to node. How does it depend on the rate of the nodes?
# 2. Give inference over states momentum, `optax.sgd(0.1, momentum=0.9)`. How far does the error get in 32 steps?
# 3. Train `Deep` by `pxl.PC(8)` and by `pxl.EPC(8)`. Which weights of the stack move, and by how much?
#
# In the code: `minipcax/predictive_coding/_stack.py`, `minipcax/learning/_mupc.py`. Next: your own.

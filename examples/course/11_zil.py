# %% [markdown]
# # 11. Predictive coding that is backpropagation
#
# ![The difference to backpropagation grows with depth, and in float64 starts much lower](../pictures/zil.png)
#
# Lesson 9 found that predictive coding moves weights in nearly the direction of backpropagation. *Zero-divergence
# inference learning*, Z-IL, drops the "nearly": it is predictive coding timed so that every weight gets exactly the
# gradient of backpropagation. It needs three things: inference starts at the predictions, so that at first only the
# output has an error; states move with rate 1; and layer l learns in the one step in which the error first reaches it.
#
# Why this works fits in two lines. At the start h = u everywhere but at the output, whose error is e = h − u. One step
# of rate 1 gives the node before it the state h + (∂u/∂h)ᵀ e, while its prediction has not changed: its error is now
# (∂u/∂h)ᵀ e, which is what backpropagation sends back, as all below is still at its forward value. And so on.

# %%
from collections.abc import Callable
from itertools import pairwise

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


class Model(pxc.EnergyModule, static=("act_fn", "skip")):
    """64-32-…-32-10, with a value node after each layer; with `skip`, the first node reaches the last layer as well."""

    def __init__(self, depth: int, act_fn: Callable[[Array], Array] = jnp.tanh, skip: bool = False) -> None:
        super().__init__()
        rkg, sizes = px.RandomKeyGenerator(0), [64, *[32] * (depth - 1), 10]
        self.layers = [pxnn.Linear(*pair, rkg=rkg) for pair in pairwise(sizes)]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True
        self.act_fn, self.skip = act_fn, skip

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        first = x = self.vodes[0](self.act_fn(self.layers[0](x)))
        for layer, vode in zip(self.layers[1:-1], self.vodes[1:-1], strict=True):
            x = vode(self.act_fn(layer(x)))
        u: Array = self.vodes[-1](self.layers[-1](x + first if self.skip else x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


def gradients(algorithm: pxl.Algorithm, model: Model, nodes_rate: float = 1.0) -> list[Array]:
    """Returns the gradient of every weight matrix: by how much one step of rate 1 lowers it."""
    before = [layer.nn.weight.get() for layer in model.layers]
    weights = pxu.Optim(optax.sgd(1.0), pxl.WEIGHTS(model))
    algorithm(x, y, model=model, nodes=pxu.Optim(optax.sgd(nodes_rate)), weights=weights)
    return [old - layer.nn.weight for layer, old in zip(model.layers, before, strict=True)]


# %% [markdown]
# ## By hand
#
# Four layers, and the parts that every algorithm is made of: `initialise` puts every state at its prediction, `infer`
# takes steps, and the caches of the nodes tell the errors. Watch the error walk from the output to the input.

# %%
model = Model(depth=4)
pxl.initialise(x, y, model=model)
nodes = pxu.Optim(optax.sgd(1.0))
for step in range(4):
    history = pxl.relax(x, 1, model=model, optim=nodes)  # as `infer`, but tells the energies node by node
    print(f"before step {step + 1}, the energies of the nodes are {np.asarray(history.energies[0])}")

# %% [markdown]
# ## Number by number

# %%
exact, found = gradients(pxl.Backprop(), Model(4)), gradients(pxl.ZIL(), Model(4))
print("backpropagation, first layer:", exact[0][0, 10:14])
print("Z-IL, first layer:           ", found[0][0, 10:14])
print("PC, 16 steps of rate 0.1:    ", gradients(pxl.PC(16), Model(4), 0.1)[0][0, 10:14])


def difference(one: list[Array], other: list[Array]) -> float:
    """Returns the norm of the difference of all gradients, relative to that of the second."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(one, other, strict=True)]
    return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((b**2).sum() for _, b in pairs)))


print(f"difference of all layers: Z-IL {difference(found, exact):.1e}")

# %% [markdown]
# ## When it refuses
#
# The proof needs a chain: every node predicts the next, and nothing else. With a connection past a node the error of
# the output arrives at one node by two ways, at two times, and no single step has the whole gradient. Rather than
# return another number under the same name, `ZIL` raises, and says what it found.

# %%
try:
    gradients(pxl.ZIL(), Model(4, skip=True))
except ValueError as error:
    print(error)

# %% [markdown]
# ## The signal that fades
#
# The second limit is one of numbers. A float32 has about seven digits. An error e is never stored by itself: a state
# holds h = u + e, and the error is computed as h − u. Where e is small, its last digits are lost. With small initial
# weights an error shrinks at every layer, so that in a deep network nothing of it may be left. Float64 has sixteen
# digits.

# %%
for e in [1e-2, 1e-4, 1e-6, 1e-8]:
    print(f"an error of {e:.0e} in float32: {(np.float32(0.5) + np.float32(e)) - np.float32(0.5):.7e}")


def by_depth(act_fn: Callable[[Array], Array]) -> list[float]:
    """Returns the difference between Z-IL and backpropagation in the first layer, at each depth."""
    pairs = [[gradients(each, Model(depth, act_fn))[:1] for each in (pxl.ZIL(), pxl.Backprop())] for depth in depths]
    return [difference(*pair) for pair in pairs]


depths = [4, 8] if QUICK else [4, 8, 12, 16]
curves = {"tanh, float32": by_depth(jnp.tanh), "relu, float32": by_depth(jax.nn.relu)}
jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]  # jax
curves["tanh, float64"] = by_depth(jnp.tanh)
jax.config.update("jax_enable_x64", False)  # type: ignore[no-untyped-call]  # jax
axes = (figure := Figure(figsize=(6, 3.2), layout="constrained")).subplots()
for name, curve in curves.items():
    print(name, " ".join(f"{depth}: {value:.0e}" for depth, value in zip(depths, curve, strict=True)))
    axes.plot(depths, curve, marker="o", label=name)
axes.set(title="Z-IL against backpropagation", xlabel="layers", ylabel="relative difference", yscale="log")
axes.legend()
save(figure, "zil.png")

# %% [markdown]
# ## Exercises
#
# 1. Give `ZIL` a `pxl.ResidualNetwork`. Why is it refused?
# 2. Show from the energies printed above that the second row holds ½|∂u/∂hᵀ e|² of the third node.
# 3. Give the output `pxc.ce_energy`. Is Z-IL still exact? And with `ce_energy` in a hidden node?
#
# In the code: `minipcax/learning/_zil.py`, `minipcax/learning/_influence.py`. Next: depth.

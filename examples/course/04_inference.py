# %% [markdown]
# # 4. Inference, seen
#
# ![A film: the states of three layers move from one step of inference to the next](../pictures/inference.png)
#
# Inference changes the states of the nodes until no state wants to move any more, while the weights stay as they are.
# This lesson looks at it. First, one node on its own.

# %%
from itertools import pairwise

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

vode = pxc.Vode()
vode.set("h", jnp.array([[1.0, 2.0]]))  # outside of `vmap`, with an axis of samples
print("it is given a prediction, and returns its state:", vode(jnp.array([[0.0, 0.0]])))
print("energy, ½(1² + 2²):", vode.energy())

# %% [markdown]
# ## Statuses and rules
#
# How does a state become its prediction in the forward pass? A model has a *status*, a word for what it is used for at
# the moment. A node has *rules*, which say what happens with a value in a status. There is one from the start: in the
# status `STATUS.INIT`, `"h, u <- u"`, "what is set as u goes to h and u". Other rules are other beginnings. Below,
# `"h <- u:zeros"` sends it to h through a function of one's own: of the node, the name "u", the value, and a generator.

# %%
with pxu.step(vode, pxc.STATUS.INIT):  # for this block
    print("in the status", vode.status, "it returns", vode(jnp.array([[5.0, 6.0]])))

at_zero: pxc.Vode[pxc.VodeParam] = pxc.Vode(
    ruleset={pxc.STATUS.INIT: ("u <- u", "h <- u:zeros")},
    tforms={"zeros": lambda vode, name, value, rkg: jnp.zeros_like(value)},
)
with pxu.step(at_zero, pxc.STATUS.INIT):
    print("with rules of its own:", at_zero(jnp.array([[5.0, 6.0]])))

# %% [markdown]
# ## A network, and its film
#
# A network learns handwritten digits for a while, as in lesson 3: vectors of 64 pixels, and targets that are *one-hot*,
# ten numbers of which the one at the *label*, the digit, is 1. One round through all of them is an *epoch*. The test
# is on images that it has not learned. `adamw` is an optimiser that adapts its step to each weight.
#
# Then it sees a picture of one digit, but its output is clamped to the label of *another*. `pxl.initialise` is the
# start of lesson 3, `pxl.infer` its inference. `pxl.relax` also infers, but returns a history: `energies` node by
# node, and `total`, their sums, which a report calls `energies`. `record=True` keeps the states before every step too.


# %%
class Model(pxc.EnergyModule):
    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(n, m, rkg=rkg) for n, m in pairwise((64, 64, 64, 64, 10))]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jnp.tanh(layer(x)))
        u: Array = self.vodes[-1](self.layers[-1](x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


data, model = digits(), Model(px.RandomKeyGenerator(0))
nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.adamw(1e-3), pxl.WEIGHTS(model))
algorithm, rng = pxl.PC(steps=16), np.random.default_rng(0)
for _ in range(2 if QUICK else 10):
    for batch in np.split(rng.permutation(len(data.train.images))[: 22 * 64], 22):
        x, y = data.train.vectors[batch], data.train.targets[batch]
        algorithm(x, y, model=model, nodes=nodes, weights=weights)
print("test accuracy:", pxl.accuracy(data.test.vectors, data.test.labels, model))

image, label = data.test.vectors[:1], data.test.labels[0]
wrong = np.eye(10, dtype=np.float32)[[(label - 1) % 10]]
pxl.initialise(image, wrong, model=model)
history = pxl.relax(image, 257, record=True, model=model, optim=nodes)
print("energies of", history.nodes)
for step in (0, 1, 2, 3, 16, 256):
    print(f"step {step:3}:", history.energies[step], "sum:", history.total[step])

# %% [markdown]
# At first all the energy is in the last node. With each step it reaches one node more, for a state only looks at the
# prediction that it receives, and at the one that is made from it. The sum falls, and spreads over all nodes. A square
# of the film shows the 64 states of a layer, less those of step 0; which of them are neighbours means nothing.

# %%
assert history.states is not None
frames = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
figure = Figure(figsize=(9, 4.6), layout="constrained")
grid = figure.add_gridspec(4, len(frames), height_ratios=(1, 1, 1, 1.8))
for row, (name, states) in enumerate(reversed(history.states.items())):
    for column, frame in enumerate(frames):
        axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[], ylabel="" if column else name[1:-2])
        axes.imshow((states[frame, 0] - states[0, 0]).reshape(8, 8), cmap="RdBu", vmin=-0.3, vmax=0.3)
        axes.set_title("" if row else f"step {frame}", fontsize=9)
below = figure.add_subplot(grid[3, :], xlabel="step", ylabel="energy")
below.stackplot(range(257), history.energies.T, labels=[name[1:] for name in history.nodes])
below.legend(loc="upper right", fontsize=8)
save(figure, "inference.png")

# %% [markdown]
# ## Equilibrium
#
# Where inference ends, ∂E/∂h = 0. With ε = h − u for the error of a node, this says ε₃ = W₄ᵀε₄ for the last two nodes
# (exercise 3 of lesson 3): an error is the one above it, sent back through the weights (lower down, times the slope of
# tanh). A `tolerance` ends inference once the gradient is that small; `history.gradients` counts how often it was
# computed. A *solver* such as `pxl.LBFGS`, which guesses from past gradients how they change, needs fewer steps.

# %%
methods: dict[str, pxu.Optim | pxl.Solver] = {"gradient descent": nodes, "L-BFGS": pxl.LBFGS()}
for name, method in methods.items():
    pxl.initialise(image, wrong, model=model)
    history = pxl.relax(image, 500, tolerance=pxl.GradientTolerance(1e-3), model=model, optim=method)
    print(f"{name}: energy {history.total[-1]:.5f} after {history.gradients} gradients")
h2, h3 = (vode.h.get()[0] for vode in model.vodes[1:3])  # Python counts from 0
below_output, at_output = h3 - jnp.tanh(model.layers[2](h2)), wrong[0] - model.layers[3](h3)
print("ε₃ − W₄ᵀε₄ is at most", abs(below_output - model.layers[3].nn.weight.T @ at_output).max())

# %% [markdown]
# The energy at equilibrium says how well a label goes with an image. Here each sample of a batch has another label:

# %%
images, labels = np.repeat(image, 10, axis=0), np.eye(10, dtype=np.float32)
pxl.initialise(images, labels, model=model)
pxl.infer(images, 500, model=model, optim=nodes)
print(f"energy with each label from 0 to 9, for a {label}:", pxl.energies(images, model=model))

# %% [markdown]
# ## Exercises
#
# 1. Give the nodes momentum, `optax.sgd(0.1, momentum=0.7)`. How many gradients does it take to the tolerance?
# 2. With which learning rate of the nodes does the energy rise? From which on does `history.check()` raise, and why?
# 3. Inference without `tanh` and biases (`Linear(n, m, bias=False)`) ends at a known energy. Compare with
#    `pxl.linear_energy([layer.nn.weight for layer in model.layers], image, wrong)`.
#
# In the code: `minipcax/learning/_inference.py`, `minipcax/predictive_coding/_ruleset.py`. Next: learning.

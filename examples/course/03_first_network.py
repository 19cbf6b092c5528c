# %% [markdown]
# # 3. The first network
#
# ![A network learns a curve; the energy falls in inference](../pictures/first_network.png)
#
# The task: from samples (x, y) of an input and a *target*, learn to give y for x. In a *predictive coding network*
# every layer has two things to say about a sample: the *prediction* u, which it receives from the layer before it, and
# the *state* h, which it is in. The *energy* E measures how far they are apart:
#
# - u₁ = tanh(W₁x + b₁), u₂ = tanh(W₂h₁ + b₂), u₃ = W₃h₂ + b₃,
# - E = ½‖h₁ − u₁‖² + ½‖h₂ − u₂‖² + ½‖h₃ − u₃‖².
#
# tanh is the *activation function*. A prediction is made from the *state* of the layer before. To learn from a sample:
#
# 1. *Start*: a forward pass sets each state to its prediction, so E = 0. Then the last state is *clamped*: h₃ = y.
# 2. *Inference*: the other states move down the energy, h ← h − α ∂E/∂h, for T steps, while the weights stay.
# 3. *Learning*: the weights move down the energy, W ← W − η ∂E/∂W, while the states stay.
#
# That is all. α and η are *learning rates*. First by hand, in plain JAX, with arrays and lists only.

# %%
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lesson import QUICK, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

SIZES, T, ALPHA, ETA = (1, 32, 32, 1), 8, 0.1, 0.3
Weights = list[tuple[Array, Array]]  # W and b of each layer


def predictions(weights: Weights, x: Array, states: list[Array]) -> list[Array]:
    sums = [h @ W.T + b for h, (W, b) in zip([x, *states], weights, strict=True)]
    return [*map(jnp.tanh, sums[:-1]), sums[-1]]


def energy(states: list[Array], weights: Weights, x: Array, y: Array) -> Array:
    pairs = zip([*states, y], predictions(weights, x, states), strict=True)  # the last state is clamped to y
    return sum((0.5 * jnp.sum((h - u) ** 2) for h, u in pairs), start=jnp.zeros(()))


def start(weights: Weights, x: Array) -> list[Array]:
    states: list[Array] = []
    for W, b in weights[:-1]:
        states.append(jnp.tanh((states[-1] if states else x) @ W.T + b))
    return states


@jax.jit
def train(weights: Weights, x: Array, y: Array) -> tuple[Weights, Array]:
    states, energies = start(weights, x), []
    for _ in range(T):
        value, gradients = jax.value_and_grad(energy)(states, weights, x, y)
        states = [h - ALPHA * gradient for h, gradient in zip(states, gradients, strict=True)]
        energies.append(value / len(x))
    gradients = jax.grad(energy, argnums=1)(states, weights, x, y)  # by the weights now, which are argument 1
    return jax.tree.map(lambda w, gradient: w - ETA * gradient / len(x), weights, gradients), jnp.array(energies)


# %% [markdown]
# A batch is a matrix with a sample in each row. Samples do not meet in the energy, so each state moves as if its sample
# were alone; the weights, which all samples share, move by the *mean* of what the samples ask for. It learns a curve:

# %%
rng = np.random.default_rng(0)
x = jnp.linspace(-1, 1, 64)[:, None]
y = jnp.sin(4 * x) + 0.05 * rng.normal(size=x.shape)
weights: Weights = [
    (jnp.array(rng.normal(size=(m, n)) / np.sqrt(n), jnp.float32), jnp.zeros(m)) for n, m in pairwise(SIZES)
]
first, updates = weights, 100 if QUICK else 3000
for update in range(updates):
    weights, energies = train(weights, x, y)
    if update in (0, updates - 1):
        print(f"update {update}: energy before each step of inference", energies)


# %% [markdown]
# ## The same with the library
#
# A *value node*, `Vode`, holds the state `h` and the prediction `u` of a layer, and an `EnergyModule` sums the energies
# of its nodes. The call of the model says how a sample goes through: layer, activation function, node. A node returns
# its state, unless asked for another `output`. The last node is *observed*: its state is not inferred (`frozen`), but
# set to the target y, if there is one. When printed below, nodes hold `None`: they are filled for each batch.


# %%
class Model(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(n, m) for n, m in pairwise(SIZES)]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jnp.tanh(layer(x)))
        u: Array = self.vodes[-1](self.layers[-1](x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


model = Model()
for layer, (W, b) in zip(model.layers, first, strict=True):  # the same weights at first
    layer.nn.weight.set(W)
    px.set(layer.nn.bias, b)  # as `set`; for type checkers, as a layer may have no bias
print(model)

# %% [markdown]
# An *optimiser* makes steps from gradients; optax is JAX's library of them, and its `sgd` is the step above. One moves
# the states, and starts anew with each batch; one moves the weights, which the mask `pxl.WEIGHTS` (lesson 2) selects
# from the model. `pxl.PC` is predictive coding. It maps the model over the batch (`vmap`), makes the three steps
# above, and compiles all (`jit`). Each call returns a *report*. The numbers are those by hand, but for rounding.

# %%
nodes, optimiser = pxu.Optim(optax.sgd(ALPHA)), pxu.Optim(optax.sgd(ETA), pxl.WEIGHTS(model))
predictive_coding = pxl.PC(steps=T)
reports = [predictive_coding(x, y, model=model, nodes=nodes, weights=optimiser) for _ in range(updates)]
print("first update: energy before each step of inference", reports[0].energies)
print("last update:", reports[-1].energies)
pairs = zip(model.layers, weights, strict=True)
print("largest difference of a weight:", max(float(abs(layer.nn.weight - W).max()) for layer, (W, _) in pairs))

figure = Figure(figsize=(8, 2.8), layout="constrained")
left, right = figure.subplots(1, 2)
left.plot(x, y, ".", x, pxl.predict(x, model))
left.set(title=f"the curve, after {updates} updates", xlabel="x", ylabel="y")
right.plot(reports[-1].energies, ".-")
right.set(title="inference in the last update", xlabel="step", ylabel="energy of a sample")
save(figure, "first_network.png")

# %% [markdown]
# ## Exercises
#
# 1. Set T and `updates` to 1, and run the file again (`jit` keeps the old T). Which weights differ from `first`? Why?
# 2. Let inference go uphill: α = −0.1. What does the energy do?
# 3. In `train`, print `gradients[1]`, that of h₂ (without `jit`, or you see tracers). Derive (h₂ − u₂) − W₃ᵀ(h₃ − u₃).
#
# In the code: `minipcax/learning/_pc.py`, the three steps, and `minipcax/predictive_coding/_vode.py`. Next: inference.

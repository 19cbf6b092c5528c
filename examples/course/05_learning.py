# %% [markdown]
# # 5. Learning, and why it is local
#
# ![Predictive coding learns the digits like backpropagation, from similar gradients](../pictures/learning.png)
#
# When inference has ended, the weights move down the energy. From where does a weight get its update?

# %%
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lesson import QUICK, digits, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


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


data, model, nodes = digits(), Model(px.RandomKeyGenerator(0)), pxu.Optim(optax.sgd(0.1))
x, y = jnp.array(data.train.vectors[:64]), jnp.array(data.train.targets[:64])
pxl.initialise(x, y, model=model)
pxl.infer(x, 64, model=model, optim=nodes)

# %% [markdown]
# ## Two factors, both of them at hand
#
# A layer predicts u = tanh(a) with a = Wh + b, from the state h before it; ε is the error of the state that it
# predicts. The only term of the energy in which W occurs is ½‖ε‖², so the chain rule ends after one layer:
#
#     ∂E/∂W = −(ε ∘ tanh′(a)) hᵀ
#
# where ∘ multiplies number by number. That is an outer product: what is wrong after a weight (a synapse of the brain),
# times what is active before it, averaged over the batch. Is it the gradient of the energy of the *whole* network?


# %%
@pxf.grad({"model": pxl.WEIGHTS})
def gradients(x: Array, *, model: Model) -> Array:
    return pxl.energies(x, model=model).mean()


def weight_gradients(of: Model) -> list[Array]:
    return [layer.nn.weight.get() for layer in of.layers]


whole = weight_gradients(gradients(x, model=model)["model"])
states = [x, *(vode.h.get() for vode in model.vodes)]
for number, (layer, (before, after)) in enumerate(zip(model.layers, pairwise(states), strict=True)):
    a = jax.vmap(layer)(before)
    u, slope = (a, jnp.ones(())) if number == 3 else (jnp.tanh(a), 1 - jnp.tanh(a) ** 2)  # the output is linear
    local = -((after - u) * slope).T @ before / len(x)
    print(f"layer {number}: largest entry {abs(local).max():.5f}, difference {abs(local - whole[number]).max():.1e}")

# %% [markdown]
# ## Backpropagation is not local
#
# *Backpropagation*, by which most networks learn, goes down another function, the *loss*, half the squared error of the
# output after a forward pass. There the chain rule runs on through all layers; plain `jax.grad` follows it: by
# position, it is given a copy, and returns a model of gradients. When the last layer changes, so does the gradient of
# the first. In predictive coding, given the states, it does not: the first layer does not know that there is a last.


# %%
def backpropagated(model: Model) -> list[Array]:
    return weight_gradients(jax.grad(lambda model: 0.5 * jnp.sum((pxl.predict(x, model) - y) ** 2) / len(x))(model))


of_loss = backpropagated(model)
model.layers[3].nn.weight *= -1
now = weight_gradients(gradients(x, model=model)["model"])[0], backpropagated(model)[0]
print("change in layer 0 by PC and by Backprop:", abs(now[0] - whole[0]).max(), abs(now[1] - of_loss[0]).max())
model.layers[3].nn.weight *= -1

# %% [markdown]
# Yet the directions are similar, for inference carries the errors to where they are needed. The cosine of two gradients
# is 1 if they have the same direction.


# %%
def cosine(a: Array, b: Array) -> float:
    return float(jnp.vdot(a, b) / jnp.sqrt(jnp.vdot(a, a) * jnp.vdot(b, b) + 1e-30))


steps, cosines = (1, 2, 3, 4, 8, 16, 32, 64, 128), []
for T in steps:
    pxl.initialise(x, y, model=model)
    pxl.infer(x, T, model=model, optim=nodes)
    cosines.append(list(map(cosine, weight_gradients(gradients(x, model=model)["model"]), of_loss)))
    print(f"after {T:3} steps, layers 0 to 3:", np.round(cosines[-1], 3))

# %% [markdown]
# ## Both of them learn
#
# `pxl.learn` is this update, `pxl.PC` adds start and inference. `pxl.Backprop` trains the same model on its loss.

# %%
scores: dict[str, list[float]] = {}
for algorithm in (pxl.PC(steps=16), pxl.Backprop()):
    name, model, rng = type(algorithm).__name__, Model(px.RandomKeyGenerator(0)), np.random.default_rng(0)
    weights = pxu.Optim(optax.adamw(1e-3), pxl.WEIGHTS(model))
    scores[name] = [pxl.accuracy(data.test.vectors, data.test.labels, model)]
    for _ in range(2 if QUICK else 15):
        for batch in np.split(rng.permutation(len(data.train.images))[: 22 * 64], 22):
            algorithm(data.train.vectors[batch], data.train.targets[batch], model=model, nodes=nodes, weights=weights)
        scores[name].append(pxl.accuracy(data.test.vectors, data.test.labels, model))
    print(f"test accuracy with {name}: {scores[name][-1]:.3f}")

figure = Figure(figsize=(8, 2.8), layout="constrained")
left, right = figure.subplots(1, 2)
for name, line in scores.items():
    left.plot(line, label=name)
left.set(title="learning", xlabel="epoch", ylabel="test accuracy")
right.plot(steps, cosines, ".-", label=[f"layer {number}" for number in range(4)])
right.set(title="PC and Backprop", xlabel="steps of inference", ylabel="cosine of gradients", xscale="log")
left.legend()
right.legend()
save(figure, "learning.png")

# %% [markdown]
# ## Exercises
#
# 1. Why, after one step, do layers 0 and 1 have no gradient, and layer 2 the direction of backpropagation? How large?
# 2. Learn by hand: `initialise`, `infer`, and `pxl.learn(x, model=model, optim=weights)`. Is it what `pxl.PC` does?
# 3. Calls of `pxl.PC` return a report. In the last batch, by how much does `report.energies` fall in 16 steps? In 64?
#
# In the code: `minipcax/learning/_learning.py` and `minipcax/learning/_backprop.py`. Next: convolutions.

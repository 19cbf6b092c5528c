# %% [markdown]
# # 9. The algorithms side by side
#
# ![Decision boundaries on two moons, by predictive coding and by backpropagation](../pictures/algorithms.png)
#
# An *algorithm* in minipcax is an immutable object of settings. Called with a batch, a model and two optimisers, it
# trains the model once, and reports what happened. So one model and one loop serve all algorithms, and whoever compares
# them changes one line. The task is small enough to be seen: two moons, each a class, which no straight line separates.

# %%
import time

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lesson import QUICK, save
from matplotlib.figure import Figure
from sklearn.datasets import make_moons

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

points, labels = make_moons(1024, noise=0.2, random_state=0)
points, targets = points.astype(np.float32), np.eye(2, dtype=np.float32)[labels]
train, test = slice(0, 512), slice(512, 1024)


class Model(pxc.EnergyModule):
    """2-32-32-2, with a value node after each layer."""

    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.layers = [pxnn.Linear(2, 32, rkg=rkg), pxnn.Linear(32, 32, rkg=rkg), pxnn.Linear(32, 2, rkg=rkg)]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jnp.tanh(layer(x)))
        u: Array = self.vodes[-1](self.layers[-1](x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


# %% [markdown]
# ## One loop for all
#
# The optimiser of the weights is the same for every algorithm; that of the nodes is used by those that infer. Every run
# starts from the same weights and sees the same batches, for both come from seed 0.


# %%
def rate(algorithm: pxl.Algorithm) -> float:
    """Returns the learning rate of the nodes: an error moves all states after it, and so needs a smaller one."""
    return 0.02 if isinstance(algorithm, pxl.EPC) else 0.1


def learn(algorithm: pxl.Algorithm, epochs: int) -> tuple[Model, float]:
    """Trains a new model; returns it, and the seconds of an epoch."""
    model = Model(px.RandomKeyGenerator(0))
    weights = pxu.Optim(optax.adam(0.01), pxl.WEIGHTS(model))
    nodes = pxu.Optim(optax.sgd(rate(algorithm)))
    order, start = np.random.default_rng(0), 0.0
    for epoch in range(epochs):
        if epoch == 1:
            start = time.perf_counter()  # the first epoch compiles
        for batch in order.permutation(512).reshape(-1, 64):
            report = algorithm(points[batch], targets[batch], model=model, nodes=nodes, weights=weights)
            report.check()  # raises if an energy is not finite, and names the node and the step
    return model, (time.perf_counter() - start) / max(epochs - 1, 1)


algorithms: dict[str, pxl.Algorithm] = {
    "Backprop": pxl.Backprop(),  # no inference: the gradient of the loss, through all layers
    "PC": pxl.PC(steps=16),  # infer for 16 steps, then learn
    "Nudging, β = 0.5": pxl.Nudging(0.5, steps=16),  # the output is pulled half of the way to the target
    "Nudging, β = -0.5": pxl.Nudging(-0.5, steps=16),  # or pushed away from it, with the sign of learning reversed
    "IPC": pxl.IPC(steps=16),  # weights move at every step of inference
    "EPC": pxl.EPC(steps=16),  # infers the errors h − u instead of the states h
}
epochs = 5 if QUICK else 40
models = {}
for name, algorithm in algorithms.items():
    models[name], seconds = learn(algorithm, epochs)
    right = pxl.accuracy(points[test], labels[test], models[name])
    print(f"{name:18} {right:6.1%} of the test points are right, {1e3 * seconds:5.1f} ms an epoch")

# %% [markdown]
# ## What the eye sees
#
# The boundary is where both outputs are equal. We ask the model about every point of a grid: `pxl.predict` takes a
# batch of any size, and leaves the model as it is.

# %%
across, up = np.meshgrid(np.linspace(-1.8, 2.8, 120), np.linspace(-1.4, 1.9, 90))
grid = np.stack([across.ravel(), up.ravel()], axis=1).astype(np.float32)
figure = Figure(figsize=(7, 2.8), layout="constrained")
for axes, name in zip(figure.subplots(1, 2, sharey=True), ["PC", "Backprop"], strict=True):
    outputs = np.asarray(pxl.predict(grid, models[name]))
    difference = (outputs[:, 1] - outputs[:, 0]).reshape(across.shape)
    axes.contourf(across, up, difference, levels=[-9, -0.5, 0, 0.5, 9], cmap="RdBu", alpha=0.6)
    axes.contour(across, up, difference, levels=[0.0], colors="black")
    axes.scatter(*points[test][::2].T, c=labels[test][::2], s=6, cmap="RdBu")
    axes.set(title=name)
save(figure, "algorithms.png")

# %% [markdown]
# ## What the weights see
#
# All of them end near 94 % right, closer than one seed and 512 points can tell apart. Do they take the same steps? With
# `optax.sgd` the change of a weight is minus its gradient, times the rate, so one step on one batch shows what it would
# do. The cosine of the angle to the step of backpropagation is 1 for the same direction, 0 for a right angle.


# %%
def change(algorithm: pxl.Algorithm) -> list[Array]:
    """Returns by how much one step of plain gradient descent changes the weight of each layer."""
    model = Model(px.RandomKeyGenerator(0))
    before = [layer.nn.weight.get() for layer in model.layers]
    weights = pxu.Optim(optax.sgd(0.01), pxl.WEIGHTS(model))
    algorithm(points[:64], targets[:64], model=model, nodes=pxu.Optim(optax.sgd(rate(algorithm))), weights=weights)
    return [layer.nn.weight - old for layer, old in zip(model.layers, before, strict=True)]


exact = change(pxl.Backprop())
for name, algorithm in algorithms.items():
    pairs = zip(change(algorithm), exact, strict=True)
    cosines = [float(jnp.vdot(one, two) / jnp.linalg.norm(one) / jnp.linalg.norm(two)) for one, two in pairs]
    print(f"{name:18} cosine with backpropagation, layer by layer: {np.round(cosines, 3)}")
sizes = [float(jnp.linalg.norm(one) / jnp.linalg.norm(two)) for one, two in zip(change(pxl.PC(16)), exact, strict=True)]
print("the size of PC's step, relative to backpropagation:", np.round(sizes, 2))

# %% [markdown]
# The directions agree; the sizes do not. The error comes from the output, and in 16 steps of inference less of it
# arrives the farther a layer is away. Adam, which divides by the size of past gradients, hides that; lesson 12 shows
# it.
#
# ## Exercises
#
# 1. Which layer of `PC` moves least, and why? Look at the sizes with 4, 16 and 128 steps of inference.
# 2. Give the output another energy, `pxc.Vode(pxc.ce_energy)`. Which algorithms does it change, and which not?
# 3. Let β grow from 0.1 to 1, `pxl.Nudging(0.1 + 0.9 * epoch / epochs, steps=16)`. Why is nothing compiled again?
#
# In the code: `minipcax/learning/_algorithm.py`, `minipcax/learning/_nudging.py`. Next: inference that draws samples.

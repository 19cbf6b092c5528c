# %% [markdown]
# # 7. Sharing weights
#
# ![Digits, what a tied autoencoder makes of them, and its error while it is untied and tied](../pictures/sharing.png)
#
# Two layers that hold the same box share a weight: that was lesson 1. Here such a network is trained, untied, tied
# again, saved and loaded. It is an *autoencoder*: it predicts its own input, through a layer too narrow to pass it on
# unchanged, and so has to find out what digits have in common. It decodes with the weights of its encoder, transposed.

# %%
import tempfile
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


class Autoencoder(pxc.EnergyModule):
    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.encoder = [pxnn.Linear(n, m, rkg=rkg) for n, m in pairwise((64, 32, 12))]
        self.decoder: list[pxnn.Linear | pxnn.Transposed]
        self.decoder = [pxnn.Transposed(layer, rkg=rkg) for layer in self.encoder[::-1]]
        self.vodes = [pxc.Vode() for _ in range(4)]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        layers = [*self.encoder, *self.decoder]
        for layer, vode in zip(layers[:-1], self.vodes[:-1], strict=True):
            x = vode(jnp.tanh(layer(x)))
        u: Array = self.vodes[-1](layers[-1](x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


def set_tied(model: Autoencoder, tied: bool) -> None:
    for number, (layer, before) in enumerate(zip(model.encoder[::-1], model.decoder, strict=True)):
        now = pxnn.Transposed(layer) if tied else pxnn.Linear(layer.out_features, layer.in_features)
        if not tied:
            now.nn.weight.set(before.nn.weight.T)  # the same values, in a box of its own
        now.nn.bias = before.nn.bias  # the same box
        model.decoder[number] = now


model = Autoencoder(px.RandomKeyGenerator(0))
print(pxnn.shared_params(model))

# %% [markdown]
# ## The gradient of a shared weight is a sum
#
# A copy of the model is untied. At the same states it has the same energy, and two gradients for each weight of the
# tied one: as encoder and, transposed, as decoder. The tied weight gets the sum of both.


# %%
@pxf.grad({"model": pxl.WEIGHTS})
def gradients(x: Array, *, model: Autoencoder) -> Array:
    return pxl.energies(x, model=model).mean()


images, test_images = (jnp.array(split.vectors) for split in digits()[1:])
nodes, batch = pxu.Optim(optax.sgd(0.1)), images[:64]
pxl.initialise(batch, batch, model=model)
pxl.infer(batch, 16, model=model, optim=nodes)
copy = jax.tree.map(lambda array: array, model)
set_tied(copy, False)
both, one = gradients(batch, model=copy)["model"], gradients(batch, model=model)["model"]
summed = both.encoder[0].nn.weight + both.decoder[1].nn.weight.T
print("sum of the two, less the one:", abs(summed - one.encoder[0].nn.weight).max())

# %% [markdown]
# ## Untying in the middle of training
#
# When the model changes, its optimiser must be told. `retarget` keeps what it knows of the parameters that are still
# there, such as the averages of Adam, and starts anew for new ones. If it is forgotten, training says so:


# %%
errors: list[float] = []
weights, rng = pxu.Optim(optax.adam(1e-3), pxl.WEIGHTS(model)), np.random.default_rng(0)
algorithm, epochs = pxl.PC(steps=16), 2 if QUICK else 20


def train(name: str) -> None:
    for _ in range(epochs):
        for chosen in np.split(rng.permutation(len(images))[: 22 * 64], 22):
            algorithm(images[chosen], images[chosen], model=model, nodes=nodes, weights=weights)
        errors.append(float(jnp.mean((pxl.predict(test_images, model) - test_images) ** 2)))
    count = sum(param.size for param in px.tree_extract(pxl.WEIGHTS(model)))
    print(f"{name}: {count} numbers learn, error per pixel {errors[-1]:.4f}")


train("tied")
set_tied(model, False)
try:
    train("untied")
except ValueError as error:
    print("refused:", error)
weights.retarget(pxl.WEIGHTS(model))
train("untied")
set_tied(model, True)
weights.retarget(pxl.WEIGHTS(model))
train("tied again")

# %% [markdown]
# ## Saving and loading
#
# A file has one array for each parameter, however often it occurs. A model into which it is loaded keeps its own ties.

# %%
path = tempfile.mkdtemp() + "/run"
pxu.save_params({"model": model, "weights": weights, "rkg": px.RKG}, path, px.Param)
print([name for name in pxu.saved_params(path) if "weight" in name and "model" in name])
other = Autoencoder(px.RandomKeyGenerator(1))
pxu.load_params({"model": other}, path)
print("same predictions:", bool((pxl.predict(test_images, other) == pxl.predict(test_images, model)).all()))
print("still tied:", other.decoder[1].nn.weight is other.encoder[0].nn.weight)

figure = Figure(figsize=(9, 2.6), layout="constrained")
grid = figure.add_gridspec(2, 10)
for row, shown in enumerate((test_images, pxl.predict(test_images, model))):
    for column in range(6):
        axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
        axes.imshow(shown[column].reshape(8, 8), cmap="gray", vmin=-1, vmax=1)
curve = figure.add_subplot(grid[:, 6:], title="error: tied, untied, tied again", xlabel="epoch")
curve.plot(range(1, len(errors) + 1), errors)
curve.vlines((epochs + 0.5, 2 * epochs + 0.5), 0, max(errors), "gray", "dotted")
save(figure, "sharing.png")

# %% [markdown]
# ## Exercises
#
# 1. Which layers of a network of equal sizes could be `pxnn.shared`? Do it to lesson 5; how much worse does it learn?
# 2. Share only the bias of two layers. What does `print(model)` show, and `pxnn.shared_params`?
# 3. Load the whole run, the optimiser too, and go on with training. Are the weights those of a run without a break?
#
# In the code: `minipcax/nn/_shared.py`, `minipcax/nn/_transposed.py`; `examples/3_sharing.py` for more. Next: memory.

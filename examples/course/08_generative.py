# %% [markdown]
# # 8. A generative network remembers
#
# ![Digits completed from their upper halves, some of them stored, others never seen](../pictures/generative.png)
#
# So far the image went in, and the label was predicted. Now the network is turned round. It predicts the *image*, from
# states that nobody has seen, and that inference has to find. Such a network is *generative*. A state z that nothing
# predicts needs a prediction nonetheless, else any z would do as well as any other: a learned constant μ, the *prior*.
#
# - E = ½‖z − μ‖² + ½‖h − tanh(W₁z + b₁)‖² + ½‖x − (W₂h + b₂)‖²
#
# Each term is the negative logarithm of a normal density, up to a constant: E says how unlikely z, h and x are
# together.

# %%
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

# %% [markdown]
# ## Clamping what is known
#
# The pixels are the states of the last node, clamped to an image. To clamp only *some* of them, the node is given a
# *precision* p, one number for each pixel, and its energy is ½p(x − u)² (see `pxc.se_energy`): p is 1 for a pixel that
# is seen, and 0 for one that is not. (If it were free, its state would settle at its prediction, and have no energy
# either.) So the input of this network says which pixels are seen, and its "target" is the image.


# %%
class Decoder(pxc.EnergyModule):
    def __init__(self, latent: int, hidden: int, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.prior = pxnn.LayerParam(jnp.zeros(latent))
        self.layers = [pxnn.Linear(latent, hidden, rkg=rkg), pxnn.Linear(hidden, 64, rkg=rkg)]
        self.latent, self.hidden, self.image = pxc.Vode(), pxc.Vode(), pxc.Vode()
        self.image.h.frozen = True

    def __call__(self, seen: Array, image: Array | None = None) -> Array:
        z = self.latent(self.prior.get())
        h = self.hidden(jnp.tanh(self.layers[0](z)))
        u: Array = self.image(self.layers[1](h), precision=seen, output="u")
        if image is not None:
            self.image.set("h", image)
        return u


nodes = pxu.Optim(optax.sgd(0.05, momentum=0.5))


def train(model: Decoder, images: np.ndarray, batches: int, epochs: int) -> None:
    weights, rng = pxu.Optim(optax.adamw(2e-3, weight_decay=0.01), pxl.WEIGHTS(model)), np.random.default_rng(0)
    algorithm, everything = pxl.PC(steps=30), np.ones_like(images)
    for epoch in range(epochs):
        chosen = np.split(rng.permutation(len(images)), batches)
        *_, report = [algorithm(everything[b], images[b], model=model, nodes=nodes, weights=weights) for b in chosen]
        if epoch in (0, epochs - 1):
            print(
                f"epoch {epoch + 1}: energy {report.energies[0]:.3f} before inference, {report.energies[-1]:.3f} after"
            )


def settle(model: Decoder, seen: np.ndarray, images: np.ndarray) -> Array:
    """Infers the states behind what is seen of the images; returns what they predict for all pixels."""
    pxl.initialise(seen, np.where(seen == 1, images, 0), model=model)
    pxl.relax(seen, 300, tolerance=pxl.GradientTolerance(1e-3), model=model, optim=pxl.LBFGS())
    return jax.vmap(model.layers[1])(model.hidden.h.get())


# %% [markdown]
# ## An associative memory
#
# Forty digits are learned by heart. Recall is nothing new: it is inference, with the upper half clamped. The states
# that fit the upper half best predict the lower half as well. Is what is recalled nearest to the image that was meant?

# %%
data = digits()
stored, new = data.train.vectors[:40], data.test.vectors
memory = Decoder(32, 64, px.RandomKeyGenerator(0))
train(memory, stored, batches=2, epochs=40 if QUICK else 400)
upper = (np.arange(64) < 32).astype(np.float32)
recalled = settle(memory, np.tile(upper, (40, 1)), stored)
nearest = np.argmin(((recalled[:, None] - stored) ** 2).sum(axis=-1), axis=1)
print("recalled from their upper halves:", (nearest == np.arange(40)).sum(), "of 40")

# %% [markdown]
# ## A decoder
#
# Learned from many digits with few latent states, the same network cannot keep them by heart. It has to find out what
# digits have in common, and so reconstructs and completes those that it has never seen. "Guess" is the mean digit.

# %%
decoder = Decoder(10, 64, px.RandomKeyGenerator(0))
train(decoder, data.train.vectors[: 22 * 64], batches=22, epochs=3 if QUICK else 30)
guess, lower = data.train.vectors.mean(axis=0), upper == 0
completed = settle(decoder, np.tile(upper, (len(new), 1)), new)
print("error per pixel of the lower half:", ((completed - new)[:, lower] ** 2).mean())
print("error of a guess:", ((guess - new)[:, lower] ** 2).mean())
settle(decoder, np.ones_like(new), new)
latent = decoder.latent.h.get()
decoded = jax.vmap(decoder.layers[1])(jnp.tanh(jax.vmap(decoder.layers[0])(latent)))
print(f"error of whole digits, from {latent.shape[1]} numbers each: {((decoded - new) ** 2).mean():.3f}")

figure = Figure(figsize=(9.5, 2.6), layout="constrained")
grid = figure.add_gridspec(3, 13, width_ratios=[1] * 6 + [0.3] + [1] * 6)
for left, images, results in ((0, stored, recalled), (7, new, completed)):
    rows: dict[str, Array | np.ndarray] = {"image": images}
    rows |= {"seen": np.where(upper == 1, images, -1), "completed": results}
    for row, (name, shown) in enumerate(rows.items()):
        for column in range(6):
            axes = figure.add_subplot(grid[row, left + column], xticks=[], yticks=[])
            axes.imshow(shown[column].reshape(8, 8), cmap="gray", vmin=-1, vmax=1)
            axes.set_ylabel("" if left + column else name)
            axes.set_title({0: "stored", 7: "never seen"}.get(left + column, "") if row == 0 else "", loc="left")
save(figure, "generative.png")

# %% [markdown]
# ## Exercises
#
# 1. How many images can the memory store? Double their number until recall begins to fail, then double the states.
# 2. Add noise to the stored images, and let all pixels be seen. Does `settle` remove it? Does decoding z, as above?
# 3. Draw z from a normal distribution around the prior, and decode it. How many look like digits? (Lesson 10 samples.)
#
# In the code: `minipcax/predictive_coding/_energy.py`; `examples/4_memory.py` for more. Next: all algorithms together.

# %% [markdown]
# # 6. Convolutions
#
# ![A digit, the states of a convolution, and how inference changes them](../pictures/convolutions.png)
#
# A *convolution* looks at an image through a small window, the *kernel*, and says at each place how much it sees of a
# pattern. All places share the kernel's weights. Several kernels give several images, the *channels*. A *padding* of 1
# puts a border of zeros around the image, so that the outcome is as large as it was. Nothing about predictive coding
# changes: there is a state for each channel and place, with a prediction and an energy.

# %%
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

data = digits()
images, test_images = data.train.images[:, None], data.test.images[:, None]  # with an axis of one channel
convolution = pxnn.Conv2d(1, 8, kernel_size=3, padding=1, rkg=px.RandomKeyGenerator(0))
print(convolution, images[0].shape, "→", convolution(jnp.array(images[0])).shape)
patch = images[0, 0, 2:5, 3:6]  # what channel 5 sees at row 3, column 4
by_hand = (convolution.nn.weight[5, 0] * patch).sum() + convolution.nn.bias[5, 0, 0]  # type: ignore[index]
print("one number of it:", convolution(jnp.array(images[0]))[5, 3, 4], "by hand:", by_hand)

# %% [markdown]
# A linear layer between the same sizes would have 64 × 512 weights; this one has 8 × 9.
#
# ## Layers work on one sample
#
# There is no axis of samples in the shapes above. A model is written for one sample, and an algorithm maps it over the
# batch, with a mask as in lesson 2: nodes have an axis of samples, weights have none. `jax.vmap` does it for a layer.
# The activation function is `gelu`, which is close to max(x, 0), but smooth.

# %%
print("a batch of 5:", jax.vmap(convolution)(jnp.array(images[:5])).shape)


class Model(pxc.EnergyModule):
    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.convolutions = [pxnn.Conv2d(1, 8, 3, padding=1, rkg=rkg), pxnn.Conv2d(8, 16, 3, padding=1, rkg=rkg)]
        self.pool = pxnn.MaxPool2d(2, 2)  # the largest of each 2 × 2: half the height, half the width
        self.linear = pxnn.Linear(16 * 2 * 2, 10, rkg=rkg)
        self.vodes = [pxc.Vode() for _ in self.convolutions]
        self.output = pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for convolution, vode in zip(self.convolutions, self.vodes, strict=True):
            x = self.pool(vode(jax.nn.gelu(convolution(x))))
        u: Array = self.output(self.linear(x.ravel()), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


# %% [markdown]
# Training is the same as ever. `unroll=True` compiles the steps of inference one after the other, instead of as a loop,
# because JAX on CPUs runs convolutions in loops many times slower than outside. Larger networks are longer lists: VGG-5
# and AlexNet are in `examples/2_convolutions.py`.

# %%
model = Model(px.RandomKeyGenerator(0))
nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.adamw(3e-3), pxl.WEIGHTS(model))
algorithm, rng = pxl.PC(steps=8, unroll=True), np.random.default_rng(0)
for epoch in range(2 if QUICK else 12):
    for batch in np.split(rng.permutation(len(images))[: 22 * 64], 22):
        algorithm(images[batch], data.train.targets[batch], model=model, nodes=nodes, weights=weights)
    print(f"epoch {epoch + 1}: test accuracy {pxl.accuracy(test_images, data.test.labels, model):.3f}")

# %% [markdown]
# ## The states, seen
#
# The states of the first node are eight images. After the forward pass they are the predictions u. Then the output is
# clamped to a wrong label, as in lesson 4, and inference moves each state towards what that label asks for. The errors
# come back through the same kernels, and so to places in the image. Pooling hands an error on to the largest of four
# states only, and the other three mostly stay where they are.

# %%
image, wrong = test_images[:1], np.eye(10, dtype=np.float32)[[(data.test.labels[0] - 1) % 10]]
pxl.initialise(image, wrong, model=model)
before = model.vodes[0].h.get()
pxl.infer(image, 64, model=model, optim=nodes)
change = model.vodes[0].h.get() - before
print("states:", model.vodes[0].h, "; largest change of each channel:", abs(change[0]).max(axis=(1, 2)))

figure = Figure(figsize=(9, 3.2), layout="constrained")
kernels = model.convolutions[0].nn.weight.get()[:, 0]
shown = {"kernels": kernels, "states": before[0], "change": change[0]}
for row, (name, channels) in enumerate(shown.items()):
    most = abs(channels).max()
    for column, channel in enumerate([image[0, 0], *channels]):
        axes = figure.add_subplot(3, 9, 9 * row + column + 1, xticks=[], yticks=[])
        if column:
            axes.imshow(channel, cmap="RdBu", vmin=-most, vmax=most)
        else:
            axes.imshow(channel, cmap="gray")
            axes.set_ylabel(name)
save(figure, "convolutions.png")

# %% [markdown]
# ## Two layers with two modes
#
# `BatchNorm` brings each channel near mean 0 and variance 1, by a mean and a variance that it remembers. In training,
# each batch moves them a little before they are used (the very first sets them); in testing they stay. `Dropout(0.5)`
# zeroes each number with probability ½ and doubles the others, in training only. So a model must know what it is used
# for: `model.train()`, as it is when new, or `model.eval()`. `BatchNorm` is the one layer that looks across samples;
# it finds them by the name of the axis of `vmap`, which is "batch" in all algorithms.


# %%
class Block(px.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = pxnn.BatchNorm(1, axis_name="batch"), pxnn.Dropout(0.5)

    def __call__(self, x: Array) -> Array:
        return self.dropout(self.norm(x), key=px.RKG())


px.RKG.seed(0)
block = Block()
over_batch = pxf.vmap({"block": None}, axis_name="batch")(lambda x, *, block: block(x))
for set_mode in (block.train, block.eval):
    set_mode()
    print(f"after {set_mode.__name__}:", over_batch(jnp.arange(4.0)[:, None], block=block).ravel())
print("remembered:", block.norm.state)

# %% [markdown]
# ## Exercises
#
# 1. How many weights does the model have (all leaves of `pxl.WEIGHTS(model)`)? And the network of lesson 5 (copy it
#    here)? How do their accuracies compare after 12 epochs?
# 2. Put a `BatchNorm(8, "batch")` behind the first convolution. `pxl.initialise` moves its statistics, `pxl.infer` and
#    `pxl.predict` do not. Where does `model.eval()` belong?
# 3. Shift the test images one pixel to the right (`np.roll`). How do the accuracies of both networks change?
#
# In the code: `minipcax/nn/_conv.py`, `minipcax/nn/_norm.py`. Next: sharing.

# %% [markdown]
# # 14. Sweeps and ensembles
#
# ![The loss against the learning rate, for eight seeds, and the predictions of an ensemble](../pictures/sweeps.png)
#
# Which learning rate is best, and how much of a result is the luck of one seed? Both ask for many runs of one program.
# A small network leaves most of a processor idle, so we train all of them at once: `pxf.vmap`, which so far turned one
# sample into a batch, turns one *run* into many, with their models, optimisers and random keys.

# %%
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from lesson import QUICK, save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

x = jnp.linspace(-2, 2, 64)[:, None]
y = jnp.sin(2 * x) * (jnp.abs(x) < 1.5)
steps = 20 if QUICK else 600


class Model(pxc.EnergyModule):
    """1-32-1, with value nodes."""

    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.first, self.hidden = pxnn.Linear(1, 32, rkg=rkg), pxc.Vode()
        self.last, self.output = pxnn.Linear(32, 1, rkg=rkg), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.output(self.last(self.hidden(jnp.tanh(self.first(x)))), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


# %% [markdown]
# ## Randomness
#
# In JAX a random number is a function of a *key*: the same key gives the same number. A `px.RandomKeyGenerator` holds a
# key, and every draw replaces it by the next, so that no key is used twice. `px.RKG` is the one that is used unless
# told otherwise. It is state, like the weights of a model, and crosses transforms with them; and each lane of a `vmap`,
# each of the runs that are computed side by side, draws from a key of its own.

# %%
rkg = px.RandomKeyGenerator(0)
print("two draws:", jax.random.normal(rkg()), jax.random.normal(rkg()))
rkg.seed(0)
print("from the start again:", jax.random.normal(rkg()))
px.RKG.seed(0)
print("three lanes:", pxf.jit(pxf.vmap()(lambda number: number + jax.random.normal(px.RKG())))(jnp.zeros(3)))


# %% [markdown]
# ## One run
#
# A run is a function of a seed and a learning rate: it makes a model, trains it by a loop inside the program,
# `pxf.scan`, and returns the model and its losses. `optax.inject_hyperparams` makes the rate a part of the optimiser's
# state, so that it may be an array that differs from run to run.


# %%
def run(seed: Array, rate: Array) -> tuple[Model, Array]:
    model = Model(px.RandomKeyGenerator(seed))
    weights = pxu.Optim(optax.inject_hyperparams(optax.adam)(learning_rate=rate), pxl.WEIGHTS(model))
    nodes, algorithm = pxu.Optim(optax.sgd(0.1)), pxl.PC(8)

    def train(_: None, /, *, model: Model, nodes: pxu.Optim, weights: pxu.Optim) -> tuple[tuple[()], Array]:
        return (), algorithm(x, y, model=model, nodes=nodes, weights=weights).loss

    _, losses = pxf.scan(train, length=steps)(model=model, nodes=nodes, weights=weights)
    return model, losses


# %% [markdown]
# ## All runs
#
# One `vmap` maps over seeds, another over rates: 8 × 8 runs, and one compiled program. The result is a model whose
# parameters have two axes more.

# %%
seeds, rates = jnp.arange(8), jnp.logspace(-3.5, 0, 8)
all_runs = pxf.jit(pxf.vmap(in_axes=(None, 0))(pxf.vmap(in_axes=(0, None))(run)))
for attempt in ("with compilation", "again"):
    start = time.perf_counter()
    models, losses = all_runs(seeds, rates)
    losses.block_until_ready()
    print(f"64 runs of {steps} steps, {attempt}: {time.perf_counter() - start:.1f} s")
print("the weights of the first layers:", models.first.nn.weight)
final = np.asarray(losses[:, :, -1])
for rate, found in zip(rates, final, strict=True):
    print(f"rate {rate:.4f}: loss {np.mean(found):.5f} ± {np.std(found):.5f}")
print("alone, seed 3 and the second rate give", pxf.jit(run)(seeds[3], rates[1])[1][-1], "and among all", final[1, 3])

# %% [markdown]
# ## An ensemble
#
# The eight models of the best rate are an *ensemble*. Where there are data, they agree; where there are none, they do
# not, and so their spread says how much to trust them. `jax.tree.map` picks them out of all runs; mapped over the
# models, given by position, `pxl.predict` asks each of them.

# %%
best = int(np.nanargmin(final.mean(axis=1)))
ensemble = jax.tree.map(lambda array: array[best], models)
wide = jnp.linspace(-4, 4, 100)[:, None]
predictions = np.asarray(pxf.vmap(in_axes=(None, 0))(pxl.predict)(wide, ensemble))[:, :, 0]
spread = predictions.std(axis=0)
print(f"spread within the data {spread[30:70].mean():.3f}, outside {spread[[*range(20), *range(80, 100)]].mean():.3f}")

left, right = (figure := Figure(figsize=(8, 3.2), layout="constrained")).subplots(1, 2)
left.plot(rates, final, ".", color="grey")
left.plot(rates, final.mean(axis=1), label="mean of 8 seeds")
left.set(title="after training", xlabel="learning rate", ylabel="loss", xscale="log", yscale="log")
left.legend()
right.plot(wide, predictions.T, linewidth=1)
right.plot(x, y, "k.", markersize=3)
right.set(title="an ensemble of 8 models", xlabel="x")
save(figure, "sweeps.png")

# %% [markdown]
# ## Exercises
#
# 1. Sweep over the rate of the nodes as well, with a third `vmap`. How many programs are compiled?
# 2. The number of inference steps cannot be swept like this. Why not?
# 3. Give every seed its own data: draw the noise of y from `px.RKG` inside `run`. What does the spread say now?
#
# In the code: `minipcax/functional/_vmap.py`, `minipcax/core/random.py`. Next: many devices.

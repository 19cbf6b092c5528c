# %% [markdown]
# # 1. What is a parameter?
#
# ![A model is a graph: two layers hold the same box](../pictures/parameters.svg)
#
# JAX computes with arrays that never change. A model, as people think of it, does change: a training step leaves other
# weights behind. minipcax closes the gap with one idea. A *parameter* is a box that holds an array. The box stays where
# it is; what changes is the array inside.
#
# Every file of this course is a script, `python examples/course/01_parameters.py`, and opens as a notebook in Jupyter
# (with jupytext) and VS Code.

# %%
import jax
import jax.numpy as jnp

import minipcax as px
import minipcax.nn as pxnn

weight = px.Param(jnp.array([1.0, 2.0, 3.0]))
print("a parameter:", weight, "and the array in it:", weight.get())

# %% [markdown]
# A parameter computes like the array in it, and the result is an ordinary array. `set` puts another array into the box.
# `+=` does the same, so that everyone who holds the box sees the change.

# %%
other_name = weight
print("twice:", 2 * weight)
weight.set(weight * 10)
other_name += 1
print("by either name:", weight.get(), other_name.get())


# %% [markdown]
# ## Models
#
# A model is a class whose attributes are parameters, other models, and lists or dicts of them. To JAX it is a *pytree*,
# a tree whose leaves are arrays. `print` shows the tree, with the path to every parameter.


# %%
class Model(px.Module):
    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.encode = pxnn.Linear(3, 2, rkg=rkg)
        self.decode = pxnn.Linear(2, 3, rkg=rkg)
        self.scale = px.Param(jnp.array(1.0))
        self.act_fn = px.static(jnp.tanh)  # structure, which JAX does not trace

    def __call__(self, x: jax.Array) -> jax.Array:
        output: jax.Array = self.decode(self.act_fn(self.encode(x))) * self.scale
        return output


model = Model(px.RandomKeyGenerator(0))
print(model)
print("for a sample of ones:", model(jnp.ones(3)))

# %% [markdown]
# JAX can take the tree apart and put it together again: `jax.tree.map` returns a new model, in which every array is
# twice as large. The old one is as it was.

# %%
doubled = jax.tree.map(lambda array: 2 * array, model)
print("scale, before and after:", model.scale.get(), doubled.scale.get())

# %% [markdown]
# ## Sharing
#
# When two layers hold *the same box*, they share a weight. There is nothing more to it: no copying, no list of tied
# names. An autoencoder, for instance, may decode with the transposed weight of its encoder.

# %%
tied = Model(px.RandomKeyGenerator(0))
tied.decode = pxnn.Transposed(tied.encode, use_bias=False)  # type: ignore[assignment]  # another kind of layer
print(tied)
print("what is shared:", pxnn.shared_params(tied))

# %% [markdown]
# In a pytree, an array that is reached by two paths would be two leaves, and after the next step of training two
# different arrays. Here the tree has one leaf for each box. Where a box occurs again, the tree holds a *reference* to
# the first place, so what comes back from JAX is tied as before.

# %%
print("leaves of the tied model:", len(jax.tree.leaves(tied)))
copy = jax.tree.map(lambda array: array + 1, tied)
copy.encode.nn.weight.set(jnp.zeros((2, 3)))
print("zero in the encoder, so the decoder is zero too:", copy.decode(jnp.ones(2)))

# %% [markdown]
# ## Exercises
#
# 1. Make a model of three layers, of which the first and the last are one and the same `pxnn.shared(layer)`. How many
#    leaves has it?
# 2. What happens to `weight` if you write `weight = weight + 1` instead of `weight += 1`? What to `other_name`?
# 3. Put a plain number into a model, `self.rate = 0.1`, and look at `jax.tree.leaves`. Then wrap it in `px.static`.
#
# In the code: `minipcax/core/_param.py`, `minipcax/core/_ties.py`. Next: how a call crosses JAX.

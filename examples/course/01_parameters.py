# %% [markdown]
# # 1. What is a parameter?
#
# ![A model is a graph: two layers hold the same box](../pictures/parameters.svg)
#
# A *model* is a function with numbers in it, its *weights*. To *train* it is to change them, step by step, until the
# function does what it should. From lesson 3 on this course trains models by predictive coding. The first two lessons
# are about what models are made of. Every file is a script, `python examples/course/01_parameters.py` after the
# installation that the README shows, and opens as a notebook in Jupyter (with jupytext) and VS Code.
#
# ## JAX, briefly
#
# JAX is numpy and more: `jax.numpy` computes as numpy does, in 32-bit floats, on CPUs and GPUs. And JAX makes functions
# out of functions. `jax.grad` returns the one that computes the gradient, and `jax.vmap` the one that takes a *batch*,
# an array with a *sample* in each row, from one that takes a sample. `jax.jit` compiles a function. For that JAX
# *traces* it: it calls it once with a stand-in for the array, a *tracer*, and writes down what is done with it.

# %%
import jax
import jax.numpy as jnp

import minipcax as px
import minipcax.nn as pxnn


@jax.jit
def squares(x: jax.Array) -> jax.Array:
    print("tracing, x is", x)
    return (x**2).sum()


print("the results:", squares(jnp.ones(3)), squares(jnp.arange(3.0)))  # traced once, for them and for the next line
print("gradient, 2x:", jax.grad(squares)(jnp.arange(3.0)), "; of each row:", jax.vmap(squares)(jnp.ones((2, 3))))

# %% [markdown]
# Random numbers are functions, too, of a *key*: the same key gives the same number. A generator hands out new keys. It
# starts from a seed, so that a run can be repeated. `px.RKG` is the one that is used wherever none is given.

# %%
rkg = px.RandomKeyGenerator(0)
print("two keys:", jax.random.normal(rkg()), jax.random.normal(rkg()))
print("the same seed again:", jax.random.normal(px.RandomKeyGenerator(0)()))

# %% [markdown]
# ## A box for an array
#
# JAX computes with arrays that never change. A model, as people think of it, does change: a step of training leaves
# other weights behind. minipcax closes the gap with one idea. A *parameter* is a box that holds an array. The box stays
# where it is; what changes is the array inside.

# %%
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
# A model is a class whose attributes are parameters, other models, and lists or dicts of them. A *layer*, such as
# `pxnn.Linear(3, 2)`, is a small model: it makes two numbers out of three, W x + b, with a weight matrix W and a bias b
# that are random at first. It keeps them in `layer.nn`; their class, `LayerParam`, is that of parameters which learn.
# To JAX a model is a *pytree*, a tree whose leaves are arrays. `print` shows it, with the path to every parameter. What
# is not to be an array, such as a function or a size, is marked by `px.static`: it can be called, or read by `get`.


# %%
class Model(px.Module):
    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        self.encode = pxnn.Linear(3, 2, rkg=rkg)
        self.decode = pxnn.Linear(2, 3, rkg=rkg)
        self.scale = px.Param(jnp.array(1.0))
        self.act_fn = px.static(jnp.tanh)  # applied to each number; not an array

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
# names. `pxnn.shared(layer)` is a second layer with the boxes of the first. `pxnn.Transposed(layer)` computes with the
# transpose, from two numbers to three, as the decoder of a model that packs its input and unpacks it again.

# %%
tied = Model(px.RandomKeyGenerator(0))
tied.decode = pxnn.Transposed(tied.encode, use_bias=False)  # type: ignore[assignment]  # was a Linear
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
# 1. Make a model with a list of three layers, the last `pxnn.shared` of the first. How many leaves does it have?
# 2. What happens to `weight` if you write `weight = weight + 1` instead of `weight += 1`? What to `other_name`?
# 3. Put a plain number into a model, `self.rate = 0.1`, and look at `jax.tree.leaves`. Then wrap it in `px.static`.
#
# In the code: `minipcax/core/_param.py`, `minipcax/core/_ties.py`. Next: how a call crosses JAX.

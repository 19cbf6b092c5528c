# %% [markdown]
# # 2. How a call crosses JAX
#
# ![A call: values go in, a copy is made around them, and what changed is written back](../pictures/crossing_jax.png)
#
# `jax.jit`, `jax.grad` and `jax.vmap` are *transforms*: they make functions out of functions. All of them trace, and
# what they write down must be all there is to say: a function must be *pure*, read nothing but its arguments, and leave
# nothing but its result. The second call of `squares` in lesson 1 printed nothing, nor would it have changed a box.

# %%
import jax
import jax.numpy as jnp
from lesson import save
from matplotlib.figure import Figure

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu
from minipcax.functional._tracking import collect, run, write_back  # the insides, to look at

total = px.Param(jnp.array(0.0))
try:
    jax.jit(lambda x: total.set(total + x))(jnp.array(3.0))
except RuntimeError as error:
    print("refused:", error)

# %% [markdown]
# `minipcax.functional` has the same transforms, with one more rule. A parameter passed **by position is a copy**. One
# passed **by keyword is tracked**: what the function writes into it is written into yours.


# %%
@pxf.jit
def add(x: jax.Array, copy: px.Param, /, *, box: px.Param) -> None:
    copy += x
    box += x


box = px.Param(jnp.array(0.0))
add(jnp.array(3.0), total, box=box)
print("by position:", total.get(), "and by keyword:", box.get())


# %% [markdown]
# ## The crossing, step by step
#
# This model applies a shared layer twice, and counts its calls. **Collect**: a walk over keyword arguments finds the
# values, that of `px.RKG` first, each parameter once, whatever paths lead to it; the rest is the *skeleton*.


# %%
class Twice(px.Module):
    def __init__(self, rkg: px.RandomKeyGenerator) -> None:
        super().__init__()
        layer = pxnn.Linear(1, 1, rkg=rkg)
        self.layers = [layer, pxnn.shared(layer)]
        self.calls = px.Param(jnp.array(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        self.calls += 1
        return self.layers[1](self.layers[0](x))


px.RKG.seed(0)
model, x = Twice(px.RandomKeyGenerator(0)), jnp.ones(1)
tracked = collect({"model": model})
values, skeleton = tracked.values({}), tracked.skeleton
print("what JAX sees:", *values)
rebuilt = skeleton.unflatten([px.Param(f"value {index}") for index in range(len(values))])["model"]
print("the skeleton, around names of the values:", rebuilt)

# %% [markdown]
# **Run**: your function is called with a copy of the model, the skeleton rebuilt around the values. From outside, that
# is a pure function of values. JAX writes it down: `a` to `d` are the values, `e` is x, `dot_general` multiplies
# matrices; `b` and `c`, weight and bias, are used twice. `j` is the result, `f` the calls, the only new value.

# %%
print(jax.make_jaxpr(lambda values, x: run(lambda args, kw: kw["model"](*args), skeleton, values, (x,))[:2])(values, x))
output, after, changed = run(lambda args, kw: kw["model"](*args), skeleton, values, (x,))
print("the result:", output, "; what has another value:", {index: after[index].item() for index in changed})

# %% [markdown]
# **Write back**: what changed, and only that, is put into your own parameters. That comes last. So if the function
# raises, nothing has changed, neither the model nor the random key.

# %%
write_back(tracked.leaves, {index: after[index] for index in changed})
print("calls, once written back:", model.calls.get())
try:
    pxf.jit(lambda *, model: model(px.RKG()))(model=model)  # a key is not a sample of one number
except ValueError as error:
    print("refused:", error, "; calls:", model.calls.get(), "; key:", px.RKG.key.get())

# %% [markdown]
# ## Batches and gradients
#
# A *mask* answers a question about every parameter. `pxf.vmap` asks for its axis of samples. Here each sample (each
# *lane*) has a memory of its own (axis 0), and all of them use one layer (`None`). Each draws another key of `px.RKG`.
#
# `pxf.grad` asks what to differentiate: `pxu.M(pxnn.LayerParam)` says yes to parameters of this class. It returns a
# dict like the mask, whose model has gradients in the places of the weights; `value_and_grad` returns the value as
# well, and with `has_aux` a tuple of all that the function returns after it. The shared weight is *one* value used
# twice, so its gradient is the sum over both uses: for y = w(wx + b) + b, dy/dw = (wx + b) + wx.


# %%
@pxf.vmap({"layer": None, "memory": 0})
def remember(x: jax.Array, *, layer: pxnn.Linear, memory: px.Param) -> jax.Array:
    memory.set(layer(x))
    return jax.random.normal(px.RKG())


layer, memory = model.layers[0], px.Param(jnp.zeros((3, 1)))
print("noise of each sample:", remember(jnp.ones((3, 1)), layer=layer, memory=memory), memory)
differentiated = pxf.value_and_grad({"model": pxu.M(pxnn.LayerParam)}, has_aux=True)
(y, (calls,)), found = differentiated(lambda *, model: (model(x)[0], model.calls.get()))(model=model)
print("gradient:", found["model"].layers[0].nn.weight.item(), "by hand:", (layer(x) + layer.nn.weight * x).item())
print("y:", y, "; returned beside it, calls:", calls)
figure = Figure(figsize=(9.5, 1.7))
mine, seen = f"your model:\n{model}\n\n← write back: value 3, the last one", "\n".join(map(str, values))
for left, text in ((0.01, mine), (0.4, f"collect → values\n{seen}"), (0.64, f"run → a copy around them\n{rebuilt}")):
    figure.text(left, 0.95, text, va="top", family="monospace", size=7.5)
save(figure, "crossing_jax.png")

# %% [markdown]
# ## Loops and branches
#
# A tracer has no number, so Python's `if` and `while` cannot look at it. `pxf.cond` and `pxf.switch` choose a function
# when the program runs; `pxf.while_loop` and `pxf.scan` repeat one, and *carry* its result from step to step.


# %%
def halve(times: jax.Array, *, box: px.Param) -> jax.Array:
    box /= 2
    return times + 1


(times,) = pxf.while_loop(halve, lambda times, *, box: box > 1)(jnp.array(0), box=box)  # returns all that it carries
pxf.cond(halve, lambda times, *, box: times)(box > 0.5, times, box=box)  # one of the two, chosen by box > 0.5
print("halved", times, "times to be at most 1, and once more if above 0.5:", box.get())

# %% [markdown]
# ## Exercises
#
# 1. Call `squares` of lesson 1 with four numbers, then with four others. When is it traced again, and why?
# 2. Leave `"memory": 0` out of the mask of `remember`. What does the message say, and why can it not be done?
# 3. Untie the layers: `model.layers[1] = pxnn.Linear(1, 1)`. What does JAX see now, and what becomes of the gradient?
#
# In the code: `minipcax/functional/_tracking.py`, which all transforms share. Next: the first network.

"""Predictive coding networks with stateful, shared parameters, on JAX.

    import minipcax as px                       parameters and modules, on this page
    import minipcax.functional as pxf           jit, vmap, grad, scan, ... of functions that change models
    import minipcax.nn as pxnn                  layers, and how they share weights
    import minipcax.predictive_coding as pxc    value nodes, their energies and rules
    import minipcax.utils as pxu                masks, optimisers, saving
    import minipcax.learning as pxl             algorithms of inference and learning

On this page are parameters (`Param`, `ParamDict`, `StaticParam`; `get`, `set`, `static`), modules (`BaseModule` and
`Module`), random keys (`RandomKeyGenerator`; `RKG` is the global one), and functions of trees that share parameters
(`tree_apply`, `tree_extract`, `tree_inject`, `tree_ref`, `tree_unref`).

After layer l stands a value node: it holds the state h_l, and the prediction u_l = f_l(h_{l−1}; W_l) that it receives.
The energy E = Σ_l ½‖h_l − u_l‖² says how far they are apart. For each batch, the states first move down ∂E/∂h with the
weights fixed (inference), then the weights move down ∂E/∂W with the states fixed (learning):

>>> from minipcax import learning as pxl, nn as pxnn, predictive_coding as pxc, utils as pxu
>>> class Network(pxc.EnergyModule):
...     def __init__(self) -> None:
...         super().__init__()
...         self.layers = [pxnn.Linear(2, 8), pxnn.Linear(8, 1)]
...         self.vodes = [pxc.Vode(), pxc.Vode()]
...         self.vodes[1].h.frozen = True  # observed, not inferred
...
...     def __call__(self, x: Array, y: Array | None = None) -> Array:  # of one sample
...         h = self.vodes[0](jnp.tanh(self.layers[0](x)))  # stores the prediction, returns the state
...         u = self.vodes[1](self.layers[1](h), output="u")
...         if y is not None:
...             self.vodes[1].set("h", y)
...         return u
>>> model = Network()
>>> nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
>>> x, y = jnp.ones((5, 2)), jnp.ones((5, 1))
>>> reports = [pxl.PC(steps=8)(x, y, model=model, nodes=nodes, weights=weights) for _ in range(20)]
>>> bool(reports[-1].loss < reports[0].loss)
True

`help` of a package, such as `help(minipcax.learning)`, lists what it has, and `help` of every public name shows its
arguments, shapes, errors and an example. `examples/course` in the repository teaches all this from the beginning.

A typed model
=============

Annotate what a model takes and gives; its attributes get their types from what is assigned to them:

>>> class Model(pxc.EnergyModule):
...     def __init__(self) -> None:
...         super().__init__()
...         self.layer = pxnn.Linear(2, 1)  # self.layer.nn.weight is a LayerParam
...         self.act_fn = static(jax.nn.relu)  # is called as relu is
...         self.vode = pxc.Vode()  # self.vode.h is a VodeParam
...
...     def __call__(self, x: Array, y: Array | None = None) -> Array:
...         return self.vode(self.act_fn(self.layer(x)))
>>> @jit
... @value_and_grad({"model": pxl.WEIGHTS})
... def loss(x: Array, *, model: Model) -> Array:
...     return model(x).sum()
>>> loss(jnp.ones(2), modle=Model())
Traceback (most recent call last):
ValueError: the mask names the keyword 'model', expected one of ['modle']...

`mypy --strict` reports this mistake before the program runs, because transforms keep the signatures of their functions,
however deep they are nested. It also reports

- a missing, extra or wrongly typed argument, and a result or aux that is used or unpacked as a wrong type;
- a loss that is not a scalar, such as one with aux but without `has_aux`;
- a carry that changes its type in a loop, and branches that disagree (those of `switch` only where the result is used);
- an array where a parameter belongs, `layer.nn.weight = x`, and the reverse, `jnp.sin(p)`: write `p.get()`;
- an attribute that does not exist, `p.shpae`, and a call of a static that is not callable;
- anything else passed as gradients, mask or filter, and an incompatible override of `__call__`.

What it cannot check:

- what a parameter holds: bind it to an annotated name, `h: Array = vode.h.get()`; and what `vode.get("u")` finds;
- names inside strings and dicts: the keywords of a mask, the keys of rules, `grads["model"]`;
- shapes and dtypes: `Float[Array, "batch 2"]` is an `Array` to it. jaxtyping's import hook checks them at run time;
- the results of JAX's own transforms, and the arguments of a lambda;
- that a parameter is passed by position, where it is a copy and what is written to it is lost.
"""

from minipcax.core import *
from minipcax.core import __all__ as __all__

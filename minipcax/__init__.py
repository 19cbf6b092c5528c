"""minipcax: predictive coding networks with stateful, shared parameters, on JAX.

Parameters, modules and their trees are here; the rest is in `minipcax.functional`, `nn`, `predictive_coding`, `utils`
and `learning`.

A typed model
=============

Annotate what a model takes and gives; its attributes get their types from what is assigned to them:

>>> from minipcax import learning as pxl, nn as pxnn, predictive_coding as pxc, utils as pxu
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

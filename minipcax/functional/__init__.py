"""JAX's transforms and control flow, for functions of stateful models.

The protocol is the same for all of them:

- Positional arguments are pure values. A parameter passed that way is a copy: what is written to it is lost. What is
  shared in the arguments is shared in the copies, and what a function returns keeps its sharing.
- Keyword arguments are tracked. What the function writes into a parameter that it reaches through them is in the
  caller's own parameter when the call has returned: once for a parameter that is reached by many paths, and through any
  nesting of transforms. If the function raises, everything is as it was before the call.
- Static values and attributes are structure: changing them outside compiles anew, changes made inside do not escape.
- `RKG` goes along without being told.
- A mask says which parameters to map or differentiate: `M`, any callable on the keyword arguments, or a dict by
  keyword.

    @jit
    @value_and_grad({"model": M(LayerParam)})
    @vmap({"model": M(VodeParam).to((None, 0))})
    def loss(x, *, model): ...

Read `_tracking` for how it works, then any of the others.
"""

from minipcax.functional._branch import Cond, Switch, cond, switch
from minipcax.functional._grad import Grad, ValueAndGrad, grad, value_and_grad
from minipcax.functional._jit import Jit, jit
from minipcax.functional._loop import Scan, WhileLoop, scan, while_loop
from minipcax.functional._vmap import Vmap, vmap

__all__ = ["Cond", "Grad", "Jit", "Scan", "Switch", "ValueAndGrad", "Vmap", "WhileLoop", "cond", "grad", "jit", "scan"]
__all__ += ["switch", "value_and_grad", "vmap", "while_loop"]

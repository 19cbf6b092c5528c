"""JAX's transforms and control flow, for functions of stateful models.

- Compilation and batching: `jit`, `vmap`, `checkpoint`, `eval_shape`.
- Derivatives: `grad`, `value_and_grad`, `jacrev` (also called `jacobian`), `jacfwd`, `hessian`, `jvp`, `vjp`.
- Control flow: `scan`, `while_loop`, `cond`, `switch`.

Each returns a callable of the class of that name, such as `Jit`. The protocol is the same for all of them:

- Positional arguments are pure values. A parameter passed that way is a copy, and writing to it changes nothing else.
  Sharing within the arguments is kept in the copies, and sharing within the outputs is kept as well.
- Keyword arguments are tracked. If the function writes to a parameter that it reaches through them, the caller's own
  parameter has the new value when the call has returned: once for a parameter that several paths lead to, and through
  any nesting of transforms. If the function raises, everything is as it was before the call.
- Static values and attributes are structure: a change from outside compiles anew, a change from inside does not escape.
- `RKG` is carried along by every call.
- Arrays keep their sharding over a mesh of devices. With the axes that JAX makes by default, `Explicit`, it moves no
  array by itself, and errors say which must be sharded otherwise; `grad` needs a `jit` around it, or `jax.set_mesh`.
  With `Auto` axes, JAX moves what has to move.
- A mask says which parameters to map or differentiate: `M`, any callable on the keyword arguments, or a dict by
  keyword.
- They raise a `ValueError` if two paths of the keyword arguments lead to one module (use `nn.shared`), and a
  `TypeError` if an argument holds something that JAX cannot carry, such as a function (use `static`).

    @jit
    @value_and_grad({"model": M(LayerParam)})
    @vmap({"model": M(VodeParam).to((None, 0))})
    def loss(x, *, model): ...

Read `_tracking` for how it works, then `_memory`, `_base`, `_jit`, `_masking`, `_derivative` with `_grad`, `_jacobian`
and `_products`, `_vmap` with `_lanes`, `_flow` with `_loop` and `_branch`, `_checkpoint` and `_shape`. `_refusals`,
`_derivative_refusals`, `_advice`, `_closure` and `_donation` can wait.
"""

from minipcax.functional._branch import Cond, Switch, cond, switch
from minipcax.functional._checkpoint import Checkpoint, checkpoint
from minipcax.functional._grad import Grad, ValueAndGrad, grad, value_and_grad
from minipcax.functional._jacobian import Hessian, Jacobian, hessian, jacfwd, jacobian, jacrev
from minipcax.functional._jit import Jit, jit
from minipcax.functional._loop import Scan, WhileLoop, scan, while_loop
from minipcax.functional._products import Jvp, Vjp, jvp, vjp
from minipcax.functional._shape import eval_shape
from minipcax.functional._vmap import Vmap, vmap

__all__ = ["Checkpoint", "Cond", "Grad", "Hessian", "Jacobian", "Jit", "Jvp", "Scan", "Switch", "ValueAndGrad", "Vjp"]
__all__ += ["Vmap", "WhileLoop", "checkpoint", "cond", "eval_shape", "grad", "hessian", "jacfwd", "jacobian", "jacrev"]
__all__ += ["jit", "jvp", "scan", "switch", "value_and_grad", "vjp", "vmap", "while_loop"]

"""Transforms for functions of stateful models."""

from minipcax.functional._flow import Cond, Scan, Switch, WhileLoop, cond, scan, switch, while_loop
from minipcax.functional._grad import Grad, ValueAndGrad, grad, value_and_grad
from minipcax.functional._jit import Jit, jit
from minipcax.functional._vmap import Vmap, vmap

__all__ = [
    "Cond",
    "Grad",
    "Jit",
    "Scan",
    "Switch",
    "ValueAndGrad",
    "Vmap",
    "WhileLoop",
    "cond",
    "grad",
    "jit",
    "scan",
    "switch",
    "value_and_grad",
    "vmap",
    "while_loop",
]

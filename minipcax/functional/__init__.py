"""Transforms for functions of stateful models."""

from minipcax.functional._grad import Grad, ValueAndGrad, grad, value_and_grad
from minipcax.functional._jit import Jit, jit
from minipcax.functional._vmap import Vmap, vmap

__all__ = ["Grad", "Jit", "ValueAndGrad", "Vmap", "grad", "jit", "value_and_grad", "vmap"]

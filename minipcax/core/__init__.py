"""The parts of a model: parameters, modules, and the tree that they form.

Read `trace`, `structure`, `_parameter`, `_param`, `_static`, `_node`, `tree`, `_tree`, `_module` and `random`, in this
order. `_ties` (sharing under plain JAX), `operators`, `extract`, `filter`, `reach` and `surroundings` can wait. Files
without an underscore are for the other packages, too.
"""

from minipcax.core._mode import Module
from minipcax.core._module import BaseModule
from minipcax.core._param import Param, ParamCache, ParamDict
from minipcax.core._parameter import BaseParam, DynamicParam, get, set
from minipcax.core._static import StaticParam, static
from minipcax.core._tree import tree_ref, tree_unref
from minipcax.core.extract import tree_extract, tree_inject
from minipcax.core.random import RKG, RandomKeyGenerator, RKGState
from minipcax.core.tree import tree_apply

__all__ = ["RKG", "BaseModule", "BaseParam", "DynamicParam", "Module", "Param", "ParamCache", "ParamDict", "RKGState"]
__all__ += ["RandomKeyGenerator", "StaticParam", "get", "set", "static", "tree_apply", "tree_extract", "tree_inject"]
__all__ += ["tree_ref", "tree_unref"]

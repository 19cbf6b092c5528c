"""minipcax: predictive coding networks with stateful, shared parameters, on JAX.

Parameters, modules and their trees are here; the rest is in `minipcax.functional`, `nn`, `predictive_coding`, `utils`
and `learning`.
"""

from minipcax.core import *
from minipcax.core import __all__ as __all__

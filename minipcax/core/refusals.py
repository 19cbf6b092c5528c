"""Errors raised by parameters and modules."""

import jax
import numpy as np

from minipcax.core._node import Branch
from minipcax.core._parameter import BaseParam, DynamicParam
from minipcax.core.reach import reach


def kind_of(value: object) -> str:
    """Describes a value in a message: "an int", "the class Linear"."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in ('AEFHILMNORSX' if name.isupper() else 'AEIOaeio') else 'a'} {name}"


def path_to_param(value: object, closures: bool = True) -> str | None:
    """Returns where in or below an object there is a parameter that transforms must track, or `None`."""
    return reach(value, lambda node: isinstance(node, DynamicParam) and not node.is_carried, closures)


def refuse_params(value: object, place: str, closures: bool = True) -> None:
    """Raises if a value that transforms take as structure is or holds a parameter."""
    where = path_to_param(value, closures)
    if where is not None:
        found = kind_of(value) + (f" that holds a parameter at {where}" if where else "")
        raise TypeError(
            f"{place} is for what JAX must not trace, found {found}, which would keep its value and never learn: "
            "assign a Param or a Module as it is; if a class of your own holds it, make that class a Module"
        )


def refuse_param_of_class(cls: type, name: str, value: object) -> None:
    """Raises if a parameter is written in the body of a class."""
    where = path_to_param(value) if isinstance(value, (BaseParam, Branch, list, tuple, dict)) else None
    if where is not None:
        found = kind_of(value) + (f" that holds a parameter at {where}" if where else "")
        raise TypeError(
            f"{cls.__name__}.{name} expected parameters to be made in __init__, found {found} in the body of the "
            "class, which all objects would share and no transform would find: write "
            f"self.{name} = ..., or in a dataclass {name} = field(default_factory=...)"
        )


def refuse_array_for_param(place: str, present: object, value: object) -> None:
    """Raises if an array is to take the place of a parameter."""
    if isinstance(present, DynamicParam) and isinstance(value, (jax.Array, np.ndarray, np.generic, float, int)):
        raise TypeError(
            f"{place} holds {kind_of(present)}, found an array or number to put in its place: change the value "
            f"with .{place.rpartition('.')[2]}.set(...) or an augmented assignment"
        )


def refuse_clock() -> None:
    """Raises if the key of `RKG` would come from another clock in each of several processes."""
    if jax.process_count() > 1:
        raise RuntimeError(
            f"expected the random key generator RKG to be seeded, as this is one of {jax.process_count()} processes, "
            "which must draw the same keys; found that its key would come from the clock of each: call RKG.seed(0), "
            "with the same number in every process, right after jax.distributed.initialize"
        )

"""Objects of hyperparameters: immutable, and pytrees whose floats and arrays are traced, also those of containers.

So a schedule does not compile again, while everything else about an algorithm or a solver is structure.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Self, dataclass_transform

import jax
import jax.core
import numpy as np
from jax.tree_util import GetAttrKey

import minipcax.learning._refusals as refusals

TRACED = (float, np.floating, np.ndarray, jax.Array)
CONTAINERS = (tuple, list, dict)


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Hyperparameters:
    """The base of such classes. The annotated attributes of a subclass are its hyperparameters: it becomes a frozen
    dataclass without a decorator.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(cls, cls._flatten, cls._unflatten)
        for base in cls.__bases__:
            _make_dataclass(base)
        for field in fields(cls):  # of the bases: `steps = 64` is a new default, like `steps: int = 64`
            if field.name in vars(cls):
                cls.__annotations__ = {field.name: field.type} | vars(cls).get("__annotations__", {})

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        _make_dataclass(cls)  # not earlier, as the class may still be decorated
        return super().__new__(cls)

    def _flatten(self) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        traced = {name: value for name, value in vars(self).items() if _is_traced(value)}
        static = tuple((name, self._fixed(name, value)) for name, value in vars(self).items() if name not in traced)
        return [(GetAttrKey(name), value) for name, value in traced.items()], (tuple(traced), static)

    def _fixed(self, name: str, value: Any) -> Any:
        """Returns a hyperparameter as structure: a container is copied, as it may be changed in place later."""
        if not isinstance(value, CONTAINERS):
            return value
        if any(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in jax.tree.leaves(value)):
            raise refusals.mixed(self, name, value)
        return jax.tree.map(lambda leaf: leaf, value)

    @classmethod
    def _unflatten(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> Self:
        names, static = structure
        made = object.__new__(cls)
        vars(made).update(zip(names, children, strict=True))
        vars(made).update(static)
        return made


def _is_traced(value: object) -> bool:
    leaves = jax.tree.leaves(value, is_leaf=_is_hyperparameters) if isinstance(value, CONTAINERS) else [value]
    return bool(leaves) and all(isinstance(leaf, (*TRACED, Hyperparameters)) for leaf in leaves)


def _is_hyperparameters(value: object) -> bool:
    return isinstance(value, Hyperparameters)


def check_number(owner: object, name: str, value: Any, least: float = 0) -> None:  # anything that a caller may write
    """Raises unless a hyperparameter is one number of at least `least`; the value of a traced one is not known."""
    is_number = isinstance(value, (int, *TRACED)) and not isinstance(value, bool) and np.ndim(value) == 0
    if not is_number or not (isinstance(value, jax.core.Tracer) or value >= least):
        raise ValueError(f"{type(owner).__name__} expected {name} to be a number of at least {least}, found {value!r}")


def _make_dataclass(cls: type) -> None:
    own = vars(cls)
    if issubclass(cls, Hyperparameters) and "__dataclass_params__" not in own and "__init__" not in own:
        dataclass(frozen=True)(cls)

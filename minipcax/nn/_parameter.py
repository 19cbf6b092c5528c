"""The parameters of layers, and the box that a layer keeps them in.

`layer.nn` holds the parameters of a layer and nothing else, so a weight has the path `.nn.weight` in every layer, in
files as in messages. Assigning another layer's parameter shares it: `decoder.nn.bias = encoder.nn.bias`.
"""

import inspect
from typing import TYPE_CHECKING, TypeGuard

import jax
import numpy as np

from minipcax.core import BaseModule, DynamicParam, Param
from minipcax.core.refusals import kind_of


class LayerParam(Param):
    """A parameter of a layer that is learned, such as a weight or a bias; otherwise like `Param`.

    Masks for learning select it by this class: `M(LayerParam)`, `minipcax.learning.WEIGHTS`.

    Example:
        >>> LayerParam(jnp.ones((3, 4)))
        LayerParam([3,4], float32)
    """

    __slots__ = ()


class LayerState(Param):
    """A parameter of a layer that is not learned; otherwise like `Param`. `M(LayerParam)` does not select it.

    Example:
        >>> M(LayerParam).apply(LayerState(1.0))
        False
    """

    __slots__ = ()


class StateParam(LayerState):
    """A `LayerState` that holds all of a layer's state as one tree, such as the running statistics of `BatchNorm`.

    `save_params` saves it with the weights.

    Example:
        >>> isinstance(StateParam({"mean": 0.0, "var": 1.0}), LayerState)
        True
    """

    __slots__ = ()


class Parameters(BaseModule):
    """The parameters of a layer. They can be replaced by other parameters of the same shapes, but not by arrays."""

    if not TYPE_CHECKING:  # to a type checker, an undeclared attribute should be an error

        def __setattr__(self, name, value):
            present = vars(self).get(name)
            if name == "frozen":
                super().__setattr__(name, value)
                return
            if not isinstance(value, DynamicParam) and not (present is None and value is None):
                raise TypeError(
                    f"layer.nn.{name} takes a parameter, found {kind_of(value)}: change the value with "
                    f".{name}.set(...), or assign another parameter to share it; sizes and options are attributes of "
                    f"the layer itself, layer.{name} = ..."
                )
            if name not in inspect.get_annotations(type(self)):
                raise AttributeError(self._has_no(name))
            check_shared_shape(name, present, value)
            super().__setattr__(name, value)

        def __getattr__(self, name):
            if name == "frozen" or name.startswith("__"):
                return super().__getattr__(name)
            raise AttributeError(self._has_no(name))

    def _has_no(self, name: str) -> str:
        names = " and ".join(inspect.get_annotations(type(self))) or "nothing"
        return (
            f"layer.nn has no {name}: it holds the layer's parameters, here {names}; sizes and options are attributes "
            f"of the layer itself, layer.{name}"
        )


class Weights(Parameters):
    """The parameters of a layer that always has a weight."""

    weight: LayerParam
    bias: LayerParam | None = None

    def __init__(self, weight: LayerParam) -> None:
        self.weight = weight


class Affine(Parameters):
    """The parameters of a layer whose weight and bias are both optional."""

    weight: LayerParam | None = None
    bias: LayerParam | None = None


def check_shared_shape(name: str, present: object, value: object) -> None:
    """Raises if a parameter is to take the place of one of another shape."""
    if isinstance(present, Param) and isinstance(value, Param):
        old, new = (jax.tree.map(np.shape, param.get()) for param in (present, value))
        if None not in (old, new) and old != new:  # a cleared parameter can be shared by any layer
            raise ValueError(
                f"layer.nn.{name} expected a parameter of the shape of {present!r}, found {value!r}: only layers of "
                "the same sizes can share it; nn.Transposed uses a weight the other way round"
            )


def is_array(leaf: object) -> TypeGuard[jax.Array]:
    """Whether a leaf is a JAX or numpy array."""
    return isinstance(leaf, (jax.Array, np.ndarray))

"""The parameters of layers: weights that learning updates, and state that it does not."""

from minipcax.core import Param


class LayerParam(Param):
    """A weight: what masks for learning select.

    Example:
        >>> LayerParam(jnp.ones((3, 4)))
        LayerParam([3,4], float32)
    """

    __slots__ = ()


class LayerState(Param):
    """What a layer remembers beside its weights: no mask of `LayerParam`s selects it.

    Example:
        >>> M(LayerParam).apply(LayerState(1.0))
        False
    """

    __slots__ = ()


class StateParam(LayerState):
    """The whole state of a layer in one parameter, such as the running statistics of `BatchNorm`.

    Example:
        >>> isinstance(StateParam({"mean": 0.0, "var": 1.0}), LayerState)
        True
    """

    __slots__ = ()

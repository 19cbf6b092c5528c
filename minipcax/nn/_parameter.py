"""The parameters of layers: weights that learning updates, and state that it does not."""

from minipcax.core import Param


class LayerParam(Param):
    """A weight: what masks for learning select."""

    __slots__ = ()


class StateParam(Param):
    """What a layer remembers beside its weights, such as running statistics: no mask of `LayerParam`s selects it."""

    __slots__ = ()

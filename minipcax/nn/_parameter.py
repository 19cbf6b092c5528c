"""The parameters of layers: weights that learning updates, and state that it does not."""

from minipcax.core import Param


class LayerParam(Param):
    """A weight: what masks for learning select."""

    __slots__ = ()


class LayerState(Param):
    """What a layer remembers beside its weights: no mask of `LayerParam`s selects it."""

    __slots__ = ()


class StateParam(LayerState):
    """The whole state of a layer in one parameter, such as the running statistics of `BatchNorm`."""

    __slots__ = ()

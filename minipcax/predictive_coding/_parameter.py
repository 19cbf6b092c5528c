"""The parameters of value nodes: the state of one sample, and what was computed from it."""

from minipcax.core import Param, ParamCache, ParamDict


class VodeParam(Param):
    """The state `h` of a value node. With `h.frozen = True` inference leaves it as it is (an observed node).

    Example:
        >>> Vode().h, Vode().cache
        (VodeParam(None), Cache(None))
    """

    __slots__ = ()

    class Cache(ParamDict, ParamCache):
        """What a node was given or has computed, by name: `u`, `E`, other activations."""

        __slots__ = ()

"""Layers, their parameters, and sharing."""

from minipcax.nn._layer import Layer
from minipcax.nn._linear import Linear
from minipcax.nn._parameter import LayerParam, StateParam
from minipcax.nn._shared import shared

__all__ = ["Layer", "LayerParam", "Linear", "StateParam", "shared"]

"""Layers, their parameters, and sharing.

A layer maps one sample, without an axis of samples; `vmap` maps a batch. `layer.nn` holds its parameters, such as
`layer.nn.weight`, and `layer(x)` applies the layer. Initial values are those of equinox for the same key.
"""

from minipcax.nn._conv import Conv, Conv1d, Conv2d, Conv3d
from minipcax.nn._conv_transpose import ConvTranspose
from minipcax.nn._dropout import Dropout
from minipcax.nn._layer import Layer
from minipcax.nn._linear import Linear
from minipcax.nn._norm import BatchNorm, LayerNorm
from minipcax.nn._parameter import LayerParam, LayerState, StateParam
from minipcax.nn._pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AdaptivePool, AvgPool2d, MaxPool2d, Pool
from minipcax.nn._shared import shared, shared_params
from minipcax.nn._transposed import Transposed

__all__ = ["AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AdaptivePool", "AvgPool2d", "BatchNorm", "Conv", "Conv1d"]
__all__ += ["Conv2d", "Conv3d", "ConvTranspose", "Dropout", "Layer", "LayerNorm", "LayerParam", "LayerState", "Linear"]
__all__ += ["MaxPool2d", "Pool", "StateParam", "Transposed", "shared", "shared_params"]

"""The network of the benchmarks."""

from collections.abc import Callable
from itertools import pairwise

import jax.numpy as jnp
from jax import Array

import minipcax as px
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc


class MLP(pxc.EnergyModule):
    """Linear layers with a value node after each: u_l = f(W_l h_{l−1} + b_l), without f at the end."""

    def __init__(
        self,
        sizes: list[int],
        act_fn: Callable[[Array], Array] = jnp.tanh,
        energy_fn: pxc.EnergyFn = pxc.se_energy,
        bias: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        rkg = px.RandomKeyGenerator(seed)
        self.layers = [pxnn.Linear(size, after, bias, rkg=rkg) for size, after in pairwise(sizes)]
        self.vodes = [*(pxc.Vode() for _ in self.layers[:-1]), pxc.Vode(energy_fn)]
        self.vodes[-1].h.frozen = True
        self.act_fn = px.static(act_fn)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers[:-1], self.vodes[:-1], strict=True):
            x = vode(self.act_fn(layer(x)))
        prediction: Array = self.vodes[-1](self.layers[-1](x), output="u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return prediction

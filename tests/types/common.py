"""A model, and functions of it, for the small programs beside this file."""

import jax.numpy as jnp
from jax import Array

import minipcax as px
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc


class Model(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(2, 2)
        self.vode = pxc.Vode()
        self.act_fn = px.static(jnp.tanh)

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        return self.vode(self.act_fn(self.layer(x)))


def forward(x: Array, *, model: Model) -> Array:
    return model(x)


def loss(x: Array, *, model: Model) -> Array:
    return model(x).sum()


def loss_and_more(x: Array, *, model: Model) -> tuple[Array, int, str]:
    return model(x).sum(), 1, "two"


x = jnp.ones(2)
model = Model()

"""What a type checker must accept, with the types that it must find."""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import optax
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


class Model(pxc.EnergyModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = pxnn.Linear(2, 2)
        self.vode = pxc.Vode()
        self.act_fn = px.static(jnp.tanh)

    def __call__(self, x: Array) -> Array:
        return self.vode(self.layer(x))

    @pxf.jit
    def loss(self, x: Array, scale: float = 1.0) -> Array:
        return scale * self(x).sum()


model = Model()
x = jnp.ones(2)
assert_type(model.loss(x), Array)
assert_type(model.loss(x, scale=2.0), Array)


@pxf.jit
def forward(x: Array, *, model: Model) -> Array:
    return model(x)


@pxf.jit(static_argnums=1)
def repeated(x: Array, times: int, *, model: Model) -> tuple[Array, int]:
    return model(x), times


@pxf.value_and_grad(pxu.M(pxnn.LayerParam))
def loss(x: Array, *, model: Model) -> Array:
    return model(x).sum()


@pxf.jit
@pxf.value_and_grad({"model": True}, has_aux=True)
def with_aux(x: Array, *, model: Model) -> tuple[Array, int, str]:
    return model(x).sum(), 1, "two"


@pxf.jit
@pxf.value_and_grad({"model": True}, argnums=0)
def positional(x: Array, *, model: Model) -> Array:
    return model(x).sum()


@pxf.jit
@pxf.vmap({"model": None})
@pxf.value_and_grad({"model": True})
def nested(x: Array, *, model: Model) -> Array:
    return model(x).sum()


@pxf.grad({"model": True})
def gradient(x: Array, *, model: Model) -> Array:
    return model(x).sum()


assert_type(forward(x, model=model), Array)
assert_type(repeated(x, 3, model=model), tuple[Array, int])
assert_type(loss(x, model=model), tuple[Array, dict[str, Any]])
assert_type(with_aux(x, model=model), tuple[tuple[Array, tuple[int, str]], dict[str, Any]])
assert_type(positional(x, model=model), tuple[Array, tuple[Any, dict[str, Any]]])
assert_type(nested(x, model=model), tuple[Array, dict[str, Any]])
assert_type(gradient(x, model=model), dict[str, Any])


def add(x: Array, total: Array, count: int, *, model: Model) -> tuple[tuple[Array, int], str]:
    return (total + x, count), ""


def add_one(x: Array, total: Array) -> tuple[Array, str]:
    return total + x, ""


assert_type(pxf.scan(add, x)(x, 0, model=model), tuple[tuple[Array, int], str])
assert_type(pxf.scan(add_one, x)(x), tuple[tuple[Array], str])
assert_type(pxf.cond(forward, forward)(True, x, model=model), Array)
assert_type(pxf.switch([forward, forward])(0, x, model=model), Array)

p = px.Param(x)
assert_type(p + 1, Array)
assert_type(2.0 * p, Array)
assert_type(p == p, Array)
assert_type(p[0], Array)
assert_type(p.shape, tuple[int, ...])
assert_type(float(p), float)
p += 1
assert_type(px.static(3).get(), int)
assert_type(px.static(jax.nn.relu)(x), Array)
assert_type(pxnn.shared(model), Model)
assert_type(pxnn.shared(model.layer), pxnn.Linear)
assert_type(model.vode.h, pxc.VodeParam)
assert_type(px.RKG(), Array)
assert_type(list(model.submodules(pxc.Vode)), list[pxc.Vode[Any]])
assert_type(list(model.submodules()), list[px.BaseModule])


class State(pxc.VodeParam):
    pass


assert_type(pxc.Vode(param_type=State).h, State)
assert_type(model.vode(x), Array)
assert_type(model.vode(x, output=None), pxc.Vode[pxc.VodeParam])
optim = pxu.Optim(optax.sgd(0.1), pxu.M(pxnn.LayerParam)(model))
with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
    forward(x, model=model)

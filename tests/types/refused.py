"""What a type checker must refuse: each mistake carries the code of the error on its line."""

import jax.numpy as jnp
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.utils as pxu


class Model(px.Module):
    @pxf.jit
    def loss(self, x: Array, scale: float = 1.0) -> Array:
        return scale * x


model = Model()
x = jnp.ones(2)


@pxf.jit
def forward(x: Array, *, model: Model) -> Array:
    return x


@pxf.vmap({"model": None}, in_axes=0)
def mapped(x: Array, *, model: Model) -> Array:
    return x


@pxf.jit
@pxf.vmap({"model": None}, in_axes=0)
@pxf.value_and_grad({"model": True}, has_aux=True)
def nested(x: Array, *, model: Model) -> tuple[Array, int]:
    return x.sum(), 1


@pxf.value_and_grad({"model": True}, has_aux=True)  # E: arg-type
def no_aux(x: Array, *, model: Model) -> Array:
    return x.sum()


forward(x, modle=model)  # E: call-arg
forward(x)  # E: call-arg
forward(x, x, model=model)  # E: misc, arg-type
forward("x", model=model)  # E: arg-type
forward(x, model=x)  # E: arg-type
wrong: int = forward(x, model=model)  # E: assignment
mapped(x, modle=model)  # E: call-arg
mapped(x, model=3)  # E: arg-type
nested(x, modle=model)  # E: call-arg
nested(3.5j, model=model)  # E: arg-type
loss, gradients, more = nested(x, model=model)  # E: misc
model.loss(x, scael=2.0)  # E: call-arg
model.loss()  # E: call-arg
number: str = model.loss(x)  # E: assignment
shape = px.Param(x).shpae  # E: attr-defined
px.Param(x) + "x"  # E: arg-type
px.static(3)()  # E: misc
px.static(jnp.tanh)(x, x)  # E: call-arg
size: str = px.static(3).get()  # E: assignment
pxnn.Linear(2)  # E: call-arg
pxnn.Linear("2", 3)  # E: arg-type
pxnn.Linear(2, 3, biass=True)  # E: call-arg
pxnn.shared(x)  # E: type-var
pxu.M(3)  # E: arg-type
pxf.scan(forward, x)(model=model)  # E: arg-type
pxf.cond(forward, mapped)(True, "x", model=model)  # E: arg-type

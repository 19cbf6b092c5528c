"""One weight, used sixteen times, takes the memory of one: as a parameter, as a gradient, and in the optimiser."""

import gc

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import Array

import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu


class Deep(pxc.EnergyModule):
    """Linear layers of one weight."""

    def __init__(self, size: int, uses: int) -> None:
        super().__init__()
        first = pxnn.Linear(size, size, bias=False)
        self.layers = [first, *(pxnn.shared(first) for _ in range(uses - 1))]
        self.vodes = [pxc.Vode() for _ in self.layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            x = vode(jnp.tanh(layer(x)))
        if y is not None:
            self.vodes[-1].set("h", y)
        return x


def live() -> int:
    """The bytes of all arrays that there are."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())  # type: ignore[no-untyped-call]  # jax


def temporary(lowered: jax.stages.Lowered) -> int:
    """The bytes that the compiled program needs beside its inputs and outputs."""
    return int(lowered.compile().memory_analysis().temp_size_in_bytes)  # type: ignore[union-attr]  # where XLA tells


pytestmark = pytest.mark.usefixtures("standard_promotion", "small_heap")


@pytest.mark.parametrize(("size", "uses"), [(256, 4), pytest.param(4096, 16, marks=pytest.mark.slow)])
def test_what_lives_between_calls(size: int, uses: int) -> None:
    one = 4 * size**2
    before = live()

    def in_weights() -> float:
        return (live() - before) / one

    x = jnp.ones((1, size))
    model = Deep(size, uses)
    assert in_weights() == pytest.approx(1, abs=0.03)
    weights, nodes = pxu.Optim(optax.adamw(1e-3), pxl.WEIGHTS(model)), pxu.Optim(optax.sgd(0.1))
    assert in_weights() == pytest.approx(3, abs=0.03), "Adam has two moments"
    for _ in range(2):
        pxl.PC(2)(x, x, model=model, nodes=nodes, weights=weights)
        assert in_weights() == pytest.approx(3, abs=0.03)

    @pxf.jit
    @pxf.grad({"model": pxl.WEIGHTS})
    def gradient(x: Array, *, model: Deep) -> Array:
        return (model(x) ** 2).sum()

    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam | pxc.VodeParam.Cache):
        grads = gradient(x[0], model=model)["model"]
    assert in_weights() == pytest.approx(4, abs=0.03)
    weights.step(model, grads)
    assert in_weights() == pytest.approx(4, abs=0.03)
    del grads
    assert in_weights() == pytest.approx(3, abs=0.03)


@pytest.mark.slow
def test_what_a_program_needs_while_it_runs() -> None:
    """No more than raw JAX with one weight, and little where one cell is scanned over the steps.

    In layers one after the other, XLA adds up the gradients of all uses at once, when it has them all.
    """
    model, x = Deep(4096, 16), jnp.ones(4096)
    weight = model.layers[0].nn.weight.get()

    @pxf.jit
    @pxf.grad({"layers": pxl.WEIGHTS})
    def gradient(x: Array, *, layers: list[pxnn.Linear]) -> Array:
        for layer in layers:
            x = jnp.tanh(layer(x))
        return (x**2).sum()

    @jax.jit
    @jax.grad
    def by_hand(weight: Array, x: Array) -> Array:
        for _ in range(16):
            x = jnp.tanh(weight @ x)
        return (x**2).sum()

    @pxf.jit
    @pxf.grad({"cell": pxl.WEIGHTS})
    def scanned(x: Array, *, cell: pxnn.Linear) -> Array:
        def one(_: None, x: Array, *, cell: pxnn.Linear) -> tuple[Array, None]:
            return jnp.tanh(cell(x)), None

        (x,), _ = pxf.scan(one, length=16)(x, cell=cell)
        return (x**2).sum()

    expected = temporary(by_hand.lower(weight, x))
    assert temporary(gradient.lower(x, layers=model.layers)) <= 1.01 * expected
    assert temporary(scanned.lower(x, cell=model.layers[0])) < 3 * weight.nbytes

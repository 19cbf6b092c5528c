"""Training a stack of layers, with every algorithm, against a list of the same blocks and a node after each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.oracles import close, enable_x64

DEPTH, WIDTH, OUT = 4, 6, 2
ALGORITHMS = [
    pxl.PC(5),
    pxl.PC(5, tolerance=1e-3),
    pxl.IPC(5),
    pxl.Nudging(-0.5, 5),
    pxl.EPC(5),
    pxl.Backprop(),
]
Make = Callable[[], Any]


class Listed(pxc.EnergyModule):
    def __init__(self, make: Make, size: int, depth: int = DEPTH) -> None:
        super().__init__()
        self.blocks = [make() for _ in range(depth)]
        self.vodes: list[pxc.Vode] = [pxc.Vode() for _ in range(depth)]
        self.layer, self.output = pxnn.Linear(size, OUT), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for block, vode in zip(self.blocks, self.vodes, strict=True):
            x = vode(block(x))
        u: Array = self.output(self.layer(x.reshape(-1)), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


class Stacked(pxc.EnergyModule):
    def __init__(self, make: Make, size: int, depth: int = DEPTH, parallel: bool = True) -> None:
        super().__init__()
        self.blocks = pxc.Stack(make, depth, parallel=parallel)
        self.layer, self.output = pxnn.Linear(size, OUT), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.output(self.layer(self.blocks(x).reshape(-1)), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


class Residual(px.Module):
    """Any layer, inside x + tanh(...)."""

    def __init__(self, layer: Callable[[Array], Array]) -> None:
        super().__init__()
        self.layer = layer

    def __call__(self, x: Array) -> Array:
        return x + jnp.tanh(self.layer(x))


class Attention(px.Module):
    """One head, over the rows of x."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (pxnn.Linear(features, features) for _ in range(3))

    def __call__(self, x: Array) -> Array:
        q, k, v = (jnp.stack([layer(row) for row in x]) for layer in (self.q, self.k, self.v))
        return x + jax.nn.softmax(q @ k.T) @ v


def dense() -> Residual:
    return Residual(pxnn.Linear(WIDTH, WIDTH))


BLOCKS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "a convolution": (lambda: Residual(pxnn.Conv2d(2, 2, 3, padding=1)), (2, 4, 4)),
    "a norm": (lambda: Residual(pxnn.LayerNorm(WIDTH)), (WIDTH,)),
    "attention": (lambda: Attention(3), (4, 3)),
}


def pair(make: Make = dense, shape: tuple[int, ...] = (WIDTH,), depth: int = DEPTH) -> tuple[Listed, Stacked]:
    """A model of each kind, with the same weights."""
    px.RKG.seed(3)
    listed = Listed(make, int(np.prod(shape)), depth)
    px.RKG.seed(3)
    return listed, Stacked(make, int(np.prod(shape)), depth)


def weights_of(model: Listed | Stacked) -> list[Array]:
    """Those of all blocks, with an axis of layers, and those of the last layer."""
    if isinstance(model, Listed):
        blocks = zip(*(px.tree_extract(block, extract_fn=px.get) for block in model.blocks), strict=True)
        values = [jnp.stack(each) for each in blocks]
    else:
        values = [*px.tree_extract(model.blocks.blocks, extract_fn=px.get)]
    return [*values, *px.tree_extract(model.layer, extract_fn=px.get)]


def data(shape: tuple[int, ...] = (WIDTH,), steps: int = 20) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(steps, 3, *shape)), float), jnp.asarray(rng.normal(size=(steps, 3, OUT)), float)


def train(
    model: Listed | Stacked, algorithm: pxl.Algorithm, shape: tuple[int, ...] = (WIDTH,), momentum: float = 0.5
) -> pxl.Report:
    nodes = pxu.Optim(optax.sgd(0.1, momentum=momentum))
    weights = pxu.Optim(optax.sgd(0.02, momentum=momentum), pxl.WEIGHTS(model))
    for x, y in zip(*data(shape), strict=True):
        report = algorithm(x, y, model=model, nodes=nodes, weights=weights)
    return report


@pytest.mark.thorough
@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_it_learns_what_a_list_learns(algorithm: pxl.Algorithm, x64: bool) -> None:
    with enable_x64(x64):
        listed, stacked = pair()
        expected, found = train(listed, algorithm), train(stacked, algorithm)
        tolerance = 1e-10 if x64 else 1e-5
        close(weights_of(stacked), weights_of(listed), tolerance)
        close(found.history.energies, expected.history.energies, tolerance)
        close((found.loss, found.predictions), (expected.loss, expected.predictions), tolerance)


@pytest.mark.thorough
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_of_any_kind(block: str) -> None:
    make, shape = BLOCKS[block]
    with enable_x64(True):
        listed, stacked = pair(make, shape)
        train(listed, pxl.PC(3), shape)
        train(stacked, pxl.PC(3), shape)
        close(weights_of(stacked), weights_of(listed), 1e-10)


def test_one_layer_at_a_time() -> None:
    listed, _ = pair()
    px.RKG.seed(3)
    stacked = Stacked(dense, WIDTH, parallel=False)
    train(listed, pxl.PC(3))
    train(stacked, pxl.PC(3))
    close(weights_of(stacked), weights_of(listed), 1e-5)


@pytest.mark.thorough
def test_every_layer_has_its_energy_and_state() -> None:
    listed, stacked = pair()
    x, y = (array[0] for array in data())
    for model in (listed, stacked):
        pxl.initialise(x, y, model=model)
        pxl.infer(x, 3, model=model, optim=pxu.Optim(optax.sgd(0.1)))
    close(stacked.blocks.vodes.h.get(), jnp.stack([vode.h.get() for vode in listed.vodes], axis=1))
    close(pxl.energies(x, model=stacked), pxl.energies(x, model=listed))
    nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(stacked))
    report = pxl.PC(2)(x, y, model=stacked, nodes=nodes, weights=weights)
    assert report.history.nodes == (*(f".blocks[{number}]" for number in range(DEPTH)), ".output")
    stacked.blocks.blocks.layer.nn.bias.set(jnp.full((DEPTH, WIDTH), jnp.nan).at[0].set(0))
    with pytest.raises(FloatingPointError, match=r"the energy of .blocks\[1\] is nan at step 1 of 2"):
        pxl.PC(2)(x, y, model=stacked, nodes=nodes, weights=weights).check()


@pytest.mark.thorough
def test_batch_norm_and_dropout() -> None:
    class Block(px.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dropout = pxnn.BatchNorm(WIDTH, "batch"), pxnn.Dropout(0.5)

        def __call__(self, x: Array) -> Array:
            return x + self.dropout(self.norm(x), key=px.RKG())

    listed, stacked = pair(Block)
    x, y = (array[0] for array in data())
    for model in (listed, stacked):
        px.RKG.seed(4)
        pxl.initialise(x, y, model=model)
    close(stacked.blocks.vodes.h.get(), jnp.stack([vode.h.get() for vode in listed.vodes], axis=1), 1e-5)
    for model in (listed, stacked):
        model.eval()
    close(stacked.blocks[2].norm(x[0]), listed.blocks[2].norm(x[0]))
    close(pxl.predict(x, stacked), pxl.predict(x, listed), 1e-5)


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("depth", [DEPTH, 12])  # 10 comes after 2
def test_langevin_dynamics_with_the_noise_of_a_list(depth: int, x64: bool) -> None:
    with enable_x64(x64):
        listed, stacked = pair(depth=depth)
        for model in (listed, stacked):
            nodes, weights = pxu.Optim(pxl.langevin(0.05, 0.5)), pxu.Optim(optax.sgd(0.02), pxl.WEIGHTS(model))
            px.RKG.seed(5)
            for x, y in zip(*data(), strict=True):
                pxl.PC(4)(x, y, model=model, nodes=nodes, weights=weights)
        close(weights_of(stacked), weights_of(listed), 1e-10 if x64 else 1e-5)


@pytest.mark.thorough
def test_layers_that_are_frozen_do_not_move() -> None:
    """Neither momentum nor decay moves them, and their gradients do not count."""
    listed, stacked = pair()
    for number in (0, 2):
        listed.blocks[number].frozen = True
    stacked.blocks.freeze_only([0, 2])
    before = stacked.blocks.blocks.layer.nn.weight.get()
    rule = optax.chain(optax.clip_by_global_norm(0.05), optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    for model in (listed, stacked):
        nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(rule, pxl.WEIGHTS(model))
        for x, y in zip(*data(), strict=True):
            pxl.PC(6)(x, y, model=model, nodes=nodes, weights=weights)
    close(weights_of(stacked), weights_of(listed), 1e-5)
    after = stacked.blocks.blocks.layer.nn.weight.get()
    np.testing.assert_array_equal(after[jnp.array([0, 2])], before[jnp.array([0, 2])])
    stacked.blocks.freeze_only([])
    train(stacked, pxl.PC(6))
    assert not jnp.allclose(stacked.blocks.blocks.layer.nn.weight.get()[0], before[0])


# The state of a new adagrad is not zero.
@pytest.mark.thorough
@pytest.mark.parametrize("rule", [optax.sgd(0.1, momentum=0.9), optax.adagrad(0.05)])
@pytest.mark.usefixtures("standard_promotion")
def test_layers_that_were_frozen_start_anew(rule: optax.GradientTransformation) -> None:
    listed, stacked = pair()
    x, y = data()
    for model in (listed, stacked):
        nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(rule, pxl.WEIGHTS(model))
        for number in range(9):
            if number in (3, 6):
                frozen = [1, 3] if number == 3 else []
                if isinstance(model, Stacked):
                    model.blocks.freeze_only(frozen)
                for index in range(DEPTH) if isinstance(model, Listed) else []:
                    model.blocks[index].frozen = index in frozen
                weights.retarget(pxl.WEIGHTS(model))
            pxl.PC(6)(x[number], y[number], model=model, nodes=nodes, weights=weights)
    close(weights_of(stacked), weights_of(listed), 1e-5)


def test_zil_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ZIL expected single nodes, .* found those of a Stack in .blocks.vodes"):
        train(pair()[1], pxl.ZIL())


def test_an_entry_that_no_layer_reads_is_refused() -> None:
    class Misspelt(Stacked):
        def __call__(self, x: Array, y: Array | None = None) -> Array:
            u = super().__call__(x, y)
            self.blocks.vodes.set("precison", jnp.ones((DEPTH, WIDTH)))
            return u

    with pytest.raises(ValueError, match="'precison', which nothing reads, but its energy reads 'precision'"):
        train(Misspelt(dense, WIDTH), pxl.PC(2))


def test_saving_and_loading(tmp_path: Path) -> None:
    _, stacked = pair()
    train(stacked, pxl.PC(2))
    pxu.save_params(stacked, tmp_path / "model.npz")
    px.RKG.seed(9)
    other = Stacked(dense, WIDTH)
    pxu.load_params(other, tmp_path / "model.npz")
    close(weights_of(other), weights_of(stacked), 0)


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", [pxl.PC(5), pxl.EPC(5), pxl.Backprop()], ids=lambda each: type(each).__name__)
def test_the_program_does_not_grow_with_depth(algorithm: pxl.Algorithm) -> None:
    def size(depth: int) -> int:
        model = pxl.ResidualNetwork(3, WIDTH, OUT, depth)
        nodes, weights = pxu.Optim(optax.sgd(0.1)), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))

        def step(reference: Any, x: Array, y: Array) -> Array:
            model, nodes, weights = px.tree_unref(reference)
            return algorithm(x, y, model=model, nodes=nodes, weights=weights).loss

        reference = px.tree_ref((model, nodes, weights))
        return str(jax.make_jaxpr(step)(reference, jnp.ones((4, 3)), jnp.ones((4, OUT)))).count("\n")

    assert size(8) == size(64)


def test_an_ensemble_of_stacks() -> None:
    _, stacked = pair()
    x, factors = data()[0][0], jnp.array([1.0, 0.5])

    @pxf.vmap()
    def scaled(factor: Array) -> Array:
        predictions: Array = pxl.predict(x, jax.tree.map(lambda leaf: factor * leaf, stacked))
        return predictions

    alone = [pxl.predict(x, jax.tree.map(lambda leaf, factor=factor: factor * leaf, stacked)) for factor in factors]
    close(scaled(factors), jnp.stack(alone), 1e-5)

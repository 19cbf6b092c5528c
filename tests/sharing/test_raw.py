"""Shared models against the same in raw JAX: energies, gradients, and training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu
from tests.oracles import close
from tests.sharing.support import BATCH, KINDS, XS, YS, Sharing, adamw, raw_energies, raw_train, trained, weights_of

# The paths of what is shared, by the first.
WEIGHTS, BIASES = ([f".layers[{n}].nn.{name}" for n in range(4)] for name in ("weight", "bias"))
SHARED: dict[str, dict[str, list[str]]] = {
    "unrolled": {},
    "layers": {WEIGHTS[1]: [WEIGHTS[2]], BIASES[1]: [BIASES[2]]},
    "parameters": {BIASES[0]: [BIASES[2]], WEIGHTS[1]: [WEIGHTS[2]]},
    "transposed": {WEIGHTS[0]: [WEIGHTS[3]], WEIGHTS[1]: [WEIGHTS[2]]},
}


pytestmark = pytest.mark.usefixtures("standard_promotion")


@pxf.jit
@pxf.value_and_grad({"model": pxl.NODES | pxl.WEIGHTS}, has_aux=True)
def energy_and_gradients(x: jax.Array, *, model: Sharing) -> tuple[jax.Array, dict[str, jax.Array]]:
    @pxf.vmap({"model": pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))})
    def energies(x: jax.Array, *, model: Sharing) -> dict[str, jax.Array]:
        model(x)
        return model.energies()

    with pxu.step(model, clear_params=pxc.VodeParam.Cache):
        each = energies(x, model=model)
        return jnp.stack(list(each.values())).sum(), each


@pytest.mark.parametrize("kind", KINDS)
def test_energies_and_gradients(kind: str) -> None:
    model, x, y = Sharing(kind), XS[0], YS[0]
    assert pxnn.shared_params(model) == SHARED[kind]
    pxl.initialise(x, y, model=model)
    rng = np.random.default_rng(1)
    for vode in model.vodes[:-1]:
        vode.h += rng.normal(size=(BATCH, 4)).astype(np.float32)
    hidden, uses = [vode.h.get() for vode in model.vodes[:-1]], KINDS[kind]

    (_, (found,)), grads = energy_and_gradients(x, model=model)

    @jax.jit
    def by_hand(weights: Any, hidden: Any) -> Any:
        def total(weights: Any, hidden: Any) -> Any:
            each = raw_energies(weights, uses, hidden, x, y)
            return each.sum(), each

        return jax.grad(total, argnums=(0, 1), has_aux=True)(weights, hidden)

    (weight_grads, node_grads), expected = by_hand(weights_of(model, kind), hidden)
    close(list(found.values()), list(expected))
    grads = grads["model"]
    close([vode.h.get() for vode in grads.vodes[:-1]], node_grads)
    # The gradient of a shared parameter is at its first occurrence.
    found_grads = {path: param.get() for path, param in by_path(grads).items()}
    first: dict[str, str] = {}
    for number, (w, b, _) in enumerate(uses):
        first.setdefault(w, f".layers[{number}].nn.weight")
        first.setdefault(b, f".layers[{number}].nn.bias")
    if kind == "unrolled":
        first |= {"w3": ".layers[2].nn.weight", "b3": ".layers[2].nn.bias"}
    close(found_grads, {first[name]: grad for name, grad in weight_grads.items()})


def by_path(tree: Any) -> dict[str, pxnn.LayerParam]:
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, px.BaseParam))
    return {jax.tree_util.keystr(path): node for path, node in nodes if isinstance(node, pxnn.LayerParam)}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("unrolled", "parameters"))) for kind in KINDS]
)
def test_fifty_steps_of_training(kind: str) -> None:
    """Decay and moments are applied once for each parameter, however often it is used."""
    model = Sharing(kind)
    params = by_path(model)
    weights = weights_of(model, kind)
    optim = adamw()
    ours = pxu.Optim(optim, pxl.WEIGHTS(model))
    state = optim.init(weights)
    by_hand = jax.jit(lambda weights, state, x, y: raw_train(weights, state, KINDS[kind], x, y, optim, 0.1))
    histories = trained(model, 50, ours)
    for n, history in enumerate(histories):
        weights, state, expected = by_hand(weights, state, XS[n % 4], YS[n % 4])
        close(history, expected)
    close(weights_of(model, kind), weights)
    assert len(jax.tree.leaves(ours)) == len(jax.tree.leaves(state))
    assert all(by_path(model)[path] is param for path, param in params.items())

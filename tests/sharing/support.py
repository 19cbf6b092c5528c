"""A network that shares in every way there is, and the same in raw JAX, where a weight is one array, used twice.

The network is 5-4-4-4-5 with a value node after each layer; its output is clamped to a target.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import minipcax as px
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.oracles import Network, linears

BATCH, STEPS = 6, 5
RNG = np.random.default_rng(0)
XS, YS = (jnp.asarray(RNG.normal(size=(4, BATCH, 5)), jnp.float32) for _ in range(2))
Arrays = dict[str, Array]

# Of each layer in raw JAX, which weight and bias it uses, and whether the weight is transposed.
Uses = list[tuple[str, str, bool]]
KINDS: dict[str, Uses] = {
    "unrolled": [("w0", "b0", False), ("w1", "b1", False), ("w1", "b1", False), ("w3", "b3", False)],
    "layers": [("w0", "b0", False), ("w1", "b1", False), ("w1", "b1", False), ("w3", "b3", False)],
    "parameters": [("w0", "b0", False), ("w1", "b1", False), ("w1", "b0", False), ("w3", "b3", False)],
    "transposed": [("w0", "b0", False), ("w1", "b1", False), ("w1", "b2", True), ("w0", "b3", True)],
}
SIZES = (5, 4, 4, 4, 5)


class Sharing(Network):
    def __init__(self, kind: str, seed: int = 3) -> None:
        super().__init__(linears(SIZES, seed))
        if kind == "layers":
            self.layers[2] = pxnn.shared(self.layers[1])
        elif kind == "unrolled":
            del self.layers[2]
        elif kind == "parameters":
            self.layers[2].nn.weight = self.layers[1].nn.weight
            self.layers[2].nn.bias = self.layers[0].nn.bias
        elif kind == "transposed":
            first, second = self.layers[:2]
            rkg = px.RandomKeyGenerator(seed + 1)
            self.layers[2:] = [pxnn.Transposed(second, rkg=rkg), pxnn.Transposed(first, rkg=rkg)]

    def apply_layer(self, number: int, x: Array) -> Any:
        return self.uses()[number](x)

    def uses(self) -> list[pxnn.Linear | pxnn.Transposed]:
        """The layers in the order in which they are used; unrolled, the second is used twice."""
        return self.layers if len(self.layers) == 4 else [self.layers[n] for n in (0, 1, 1, 2)]


def weights_of(model: Sharing, kind: str) -> Arrays:
    """The weights by their names in raw JAX: of each name, what its first use has."""
    found: Arrays = {}
    for layer, (weight, bias, _) in zip(model.uses(), KINDS[kind], strict=True):
        found.setdefault(weight, layer.nn.weight.get())
        found.setdefault(bias, px.get(layer.nn.bias))
    return found


def raw_predictions(weights: Arrays, uses: Uses, x: Array, hidden: list[Array]) -> list[Array]:
    predictions: list[Array] = []
    for below, (w, b, is_transposed) in zip([x, *hidden], uses, strict=False):
        matrix = weights[w].T if is_transposed else weights[w]
        predictions.append(below @ matrix.T + weights[b][None])
    return [*map(jnp.tanh, predictions[:3]), *predictions[3:]]


def raw_initial(weights: Arrays, uses: Uses, x: Array) -> list[Array]:
    hidden: list[Array] = []
    for _ in range(3):
        hidden.append(raw_predictions(weights, uses, x, hidden)[-1])
    return hidden


def raw_energies(weights: Arrays, uses: Uses, hidden: list[Array], x: Array, y: Array) -> Array:
    """Of each node and sample."""
    pairs = zip([*hidden, y], raw_predictions(weights, uses, x, hidden), strict=True)
    return jnp.stack([0.5 * ((h - u) ** 2).sum(1) for h, u in pairs])


def raw_train(
    weights: Arrays, state: Any, uses: Uses, x: Array, y: Array, optim: optax.GradientTransformation, lr: float
) -> tuple[Arrays, Any, Array]:
    """One batch of predictive coding: initialise, infer, learn."""

    def relax(hidden: list[Array], _: None) -> tuple[list[Array], Array]:
        energy, grads = jax.value_and_grad(lambda h: raw_energies(weights, uses, h, x, y).sum())(hidden)
        return jax.tree.map(lambda h, grad: h - lr * grad, hidden, grads), energy / BATCH

    hidden, history = jax.lax.scan(relax, raw_initial(weights, uses, x), length=STEPS)
    grads = jax.grad(lambda weights: raw_energies(weights, uses, hidden, x, y).sum(0).mean())(weights)
    updates, state = optim.update(grads, state, weights)
    return optax.apply_updates(weights, updates), state, history


def trained(model: Sharing, batches: int, optim: pxu.Optim | None = None) -> list[Array]:
    """Trains a model for some batches; returns the energies of each."""
    weights = optim or pxu.Optim(adamw(), pxl.WEIGHTS(model))
    nodes, algorithm = pxu.Optim(optax.sgd(0.1)), pxl.PC(STEPS)
    reports = [algorithm(XS[n % 4], YS[n % 4], model=model, nodes=nodes, weights=weights) for n in range(batches)]
    return [report.energies for report in reports]


def adamw() -> optax.GradientTransformation:
    """Its moments and its decay show how often it steps a parameter."""
    return optax.adamw(1e-2, weight_decay=0.1)

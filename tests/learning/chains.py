"""A chain of linear layers with a value node after each, and an optimiser that only takes note of the gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.utils as pxu
from tests.oracles import Network, linears


class Chain(Network):
    """u_l = f(W_l h_{l−1}), or with biases, without f at the end; the last node is observed."""

    layers: list[pxnn.Linear]

    def __init__(
        self, sizes: list[int], act_fn: Callable[[Array], Array] = jnp.tanh, seed: int = 0, bias: bool = False
    ) -> None:
        super().__init__(linears(sizes, seed, bias), act_fn)

    def orthogonal(self) -> "Chain":
        """Gives it orthogonal weights."""
        for number, layer in enumerate(self.layers):
            key = jax.random.PRNGKey(number)
            layer.nn.weight.set(jax.random.orthogonal(key, max(layer.nn.weight.shape))[: layer.out_features])
        return self

    @property
    def weights(self) -> list[Array]:
        return [layer.nn.weight.get() for layer in self.layers]


def recorder() -> optax.GradientTransformation:
    """Changes nothing; its state is the last gradients."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return init(updates), updates

    return optax.GradientTransformation(init, update)


def gradients(
    algorithm: pxl.Algorithm, model: Any, x: Array, y: Array, nodes: optax.GradientTransformation | None = None
) -> tuple[dict[str, Array], pxl.Report]:
    """What an algorithm teaches the weights, by path, and its report."""
    weights = pxu.Optim(recorder(), pxl.WEIGHTS(model))
    report = algorithm(x, y, model=model, nodes=pxu.Optim(nodes or optax.sgd(0.1)), weights=weights)
    state = weights.state.get()
    return {path: state.optax[path] for path in state.targets}, report


def train(algorithm: pxl.Algorithm, model: Any, x: Array, y: Array | None) -> pxl.Report:
    """One batch, with SGD for nodes and weights."""
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    return algorithm(x, y, model=model, nodes=pxu.Optim(optax.sgd(0.1)), weights=weights)


def relative_difference(found: dict[str, Array], expected: dict[str, Array]) -> float:
    """The largest over all weights of |found − expected| / |expected|, in the Euclidean norm."""
    assert found.keys() == expected.keys()
    differences = [jnp.linalg.norm(found[path] - expected[path]) / jnp.linalg.norm(expected[path]) for path in found]
    return float(jnp.stack(differences).max())

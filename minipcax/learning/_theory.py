"""Theory as tools: where inference ends in a linear network, and how fast it gets there in any.

With the weights W_1 … W_L of a linear chain, an input x = h_0 and a target y = h_L, the energy of the states between is
a quadratic form, E = ½ Σ_l |h_l − W_l h_{l−1}|² = ½ |A h − b|², where A has a row of blocks for each layer:

        ⎡  I                 ⎤
    A = ⎢ −W_2   I           ⎥,   H = AᵀA  is tridiagonal:  H_ll = I + W_{l+1}ᵀ W_{l+1},  H_{l,l−1} = −W_l
        ⎢       −W_3   I     ⎥
        ⎣             −W_4   ⎦

So gradient descent with step η contracts an error along an eigenvector of H by |1 − ηλ| in each step.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float

import minipcax.learning._refusals as refusals
from minipcax.core import Param, get, tree_extract
from minipcax.core.trace import has_tracers
from minipcax.functional import hessian, jit
from minipcax.learning._checks import check_minima, check_model, check_states
from minipcax.learning._energies import joined_energies
from minipcax.learning._model import NODES, Batch, Model, Sample, over_samples

Weights = Sequence[Float[Array, "_ _"] | Param]  # from input to output, each of shape (out_features, in_features)


class Conditioning(NamedTuple):
    """How fast gradient descent converges to the minimum of a quadratic form; see `conditioning`.

    Args:
        smallest: λ_min, the smallest eigenvalue of the Hessian.
        largest: λ_max, the largest.
        number: κ = λ_max / λ_min, the condition number.
        step: the best learning rate of gradient descent.
        rate: the factor by which an error shrinks in each such step, at the slowest.

    Example:
        >>> conditioning(jnp.diag(jnp.array([1.0, 3.0]))).step.item()
        0.5
    """

    smallest: Float[Array, "..."]
    largest: Float[Array, "..."]
    number: Float[Array, "..."]
    step: Float[Array, "..."]
    rate: Float[Array, "..."]


def linear_energy(
    weights: Weights, x: Float[Array, "batch in"], y: Float[Array, "batch out"]
) -> Float[Array, " batch"]:
    """Returns the energy of each sample at the end of inference in a linear network. With P_l = W_L ⋯ W_l,

        E* = ½ rᵀ S⁻¹ r,  r = y − P_1 x,  S = I + Σ_{l=2..L} P_l P_lᵀ

    Every node has the energy ½ |h − u|². The gradient of the mean over samples with respect to the weights is what `PC`
    learns from at equilibrium.

    Args:
        weights: W_1 … W_L, each of shape (out_features, in_features), of layers without biases and activation
            functions.
        x: the inputs, of shape (batch, in_features of W_1).
        y: the targets, of shape (batch, out_features of W_L).

    Raises:
        ValueError: the shapes do not form a chain from x to y.

    Example:
        >>> linear_energy([jnp.ones((1, 1)), jnp.ones((1, 1))], jnp.array([[1.0]]), jnp.array([[3.0]])).tolist()
        [1.0]

    Reference:
        Innocenti et al., Only Strict Saddles in the Energy Landscape of Predictive Coding Networks?, NeurIPS 2024.
    """
    matrices, x, y = _matrices(weights, 1), jnp.asarray(x), jnp.asarray(y)
    refusals.check_ends(matrices, x, y)
    products = [reduce(jnp.matmul, reversed(matrices[start:])) for start in range(len(matrices))]
    residuals = y - x @ products[0].T
    s = sum((product @ product.T for product in products[1:]), start=jnp.eye(len(matrices[-1]), dtype=x.dtype))
    solved: Float[Array, "batch out"] = jnp.linalg.solve(s, residuals.T).T
    return 0.5 * (residuals * solved).sum(axis=-1)


def linear_hessian(weights: Weights) -> Float[Array, "states states"]:
    """Returns the Hessian of the energy of one sample in a linear network, with respect to all states between x and y.

    It is the same for every sample and at all states: H_ll = I + W_{l+1}ᵀ W_{l+1} and H_{l,l−1} = −W_l.

    Args:
        weights: W_1 … W_L, each of shape (out_features, in_features), of layers without biases and activation
            functions; only the shape of W_1 matters.

    Returns:
        A square matrix, with a row for each element of h_1 … h_{L−1}.

    Raises:
        ValueError: there are fewer than two layers, so no state in between, or the shapes do not form a chain.

    Example:
        >>> linear_hessian([jnp.ones((1, 1)), 2 * jnp.ones((1, 1)), 3 * jnp.ones((1, 1))]).tolist()
        [[5.0, -2.0], [-2.0, 10.0]]

    Reference:
        Innocenti et al., μPC: Scaling Predictive Coding to 100+ Layer Networks, arXiv 2505.13124 (2025).
    """
    matrices = _matrices(weights, 2)
    # W_2 … W_L along a diagonal, one layer below that of A.
    below = jnp.pad(block_diag(*matrices[1:]), ((len(matrices[0]), 0), (0, 0)))
    a = jnp.eye(len(below), below.shape[1], dtype=below.dtype) - below
    return a.T @ a


@jit
def state_hessian(x: Batch, *, model: Model) -> Float[Array, "batch states states"]:
    """Returns the Hessian of the energy of each sample with respect to all inferred states, at the present ones.

    The states of a sample are flattened, and joined from input to output. In a nonlinear model, the Hessian depends on
    the states. Its size is the square of their number, so this is for small models.

    Args:
        x: the batch of samples whose states the nodes hold, of shape (batch, ...).
        model: the model; it is unchanged.

    Raises:
        TypeError: the model is not an `EnergyModule` with a call.
        ValueError: a state is cleared, no node is inferred, the energy of an inferred node has no minimum, or a layer
            looks across samples.

    Example:
        >>> model, x = ResidualNetwork(2, 4, 1, depth=2), jnp.ones((5, 2))
        >>> _ = initialise(x, jnp.ones((5, 1)), model=model)
        >>> hessians = state_hessian(x, model=model)
        >>> hessians.shape, conditioning(hessians).step.shape
        ((5, 4, 4), (5,))
    """
    check_model(model)
    check_states(model)
    check_minima(model)
    refusals.check_inferred(tree_extract(model, filter_fn=NODES.apply))
    return over_samples(_sample_hessian, "state_hessian")(x, model=model)


@hessian({"model": NODES})
def _second_derivatives(x: Sample, *, model: Model) -> Float[Array, ""]:
    return joined_energies(x, model=model).sum()


def _sample_hessian(x: Sample, *, model: Model) -> Float[Array, "states states"]:
    states = jax.tree.leaves(tree_extract(model, extract_fn=get, filter_fn=NODES.apply))
    blocks = iter(jax.tree.leaves(_second_derivatives(x, model=model)))
    return jnp.block([[next(blocks).reshape(one.size, other.size) for other in states] for one in states])


def conditioning(hessian: Float[Array, "... states states"]) -> Conditioning:
    """Returns the condition number of a Hessian, and the best step of gradient descent,

        κ = λ_max / λ_min,  η = 2 / (λ_min + λ_max),  which contracts by (κ − 1) / (κ + 1)

    The step is the learning rate of `optax.sgd` for the nodes.

    Args:
        hessian: a symmetric matrix, or several, of shape (..., states, states), as `state_hessian` returns them.

    Returns:
        A `Conditioning`, whose fields have shape (...). Inside a `jit`, the last three are NaN where the Hessian is not
        positive definite, and gradient descent does not converge.

    Raises:
        ValueError: a matrix is not square, or, outside of `jit`, not symmetric or not positive definite.

    Example:
        >>> found = conditioning(linear_hessian([jnp.ones((1, 1))] * 3))  # of eigenvalues 1 and 3
        >>> [round(float(number), 4) for number in (found.number, found.step, found.rate)]
        [3.0, 0.5, 0.5]

    Reference:
        Nesterov, Lectures on Convex Optimization, theorem 2.1.15 (2018).
    """
    hessian = jnp.asarray(hessian)
    refusals.check_square(hessian)
    eigenvalues = jnp.linalg.eigvalsh(hessian)
    smallest, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    if not has_tracers(hessian):
        refusals.check_positive(hessian, smallest)
    safe = jnp.where(smallest > 0, smallest, jnp.nan)
    return Conditioning(smallest, largest, largest / safe, 2 / (safe + largest), (largest - safe) / (largest + safe))


def _matrices(weights: Weights, least: int) -> list[Float[Array, "_ _"]]:
    matrices = [jnp.asarray(get(weight)) for weight in weights]
    refusals.check_chain(matrices, least)
    return matrices

"""Monte Carlo predictive coding: inference that samples states instead of finding the most likely ones.

A sample draws the noise of all its states in one row of random numbers, in the order of their paths. So it is the same
whether layers are the nodes of a list or those of a `Stack`, whose states come in one array, if both have one name.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from minipcax.core import RKG, BaseParam
from minipcax.core.refusals import kind_of
from minipcax.core.tree import path_name
from minipcax.learning._model import Number

# A pytree of arrays, as optax optimises it.
Tree = Any


def langevin(learning_rate: Number, momentum: Number = 0.0, temperature: Number = 1.0) -> optax.GradientTransformation:
    """Returns an optax optimiser with which inference samples states from exp(−E / temperature): Langevin dynamics,

        v ← m v − lr ∂E/∂h + √(2 lr (1 − m) temperature) ξ,  h ← h + v,  ξ ~ N(0, 1)

    Monte Carlo predictive coding is `PC` with this optimiser of the nodes, and enough steps for the states to forget
    where they started: then the weights learn the density of the data. The noise is drawn from `RKG`.

    Where the energy has curvature λ, the stationary mean is exact, and the variance is 1 / (1 − lr λ / (2 (1 + m)))
    times the exact one.

    Args:
        learning_rate: lr > 0, a number; for a schedule, of this or another argument, use
            `optax.inject_hyperparams(langevin)`.
        momentum: m, from 0 to less than 1.
        temperature: at least 0; the variance of the samples relative to that of exp(−E).

    Raises:
        ValueError: an argument is out of range.
        TypeError: an argument is a schedule or a parameter.

    Example:
        >>> nodes = Optim(langevin(0.1, momentum=0.5))

    Reference:
        Oliviers, Bogacz and Meulemans, Learning probability distributions of sensory inputs with Monte Carlo predictive
        coding, PLOS Computational Biology 20 (2024).
    """
    given = {"learning_rate": learning_rate, "momentum": momentum, "temperature": temperature}
    for name, value in given.items():
        if callable(value) or isinstance(value, BaseParam):
            found = "a schedule" if callable(value) else kind_of(value)
            raise TypeError(f"langevin expected a number as {name}, found {found}: use optax.inject_hyperparams")
    numbers = all(isinstance(value, (int, float)) for value in given.values())
    if numbers and not (learning_rate > 0 and 0 <= momentum < 1 and temperature >= 0):
        raise ValueError(
            "langevin expected a positive learning_rate, 0 <= momentum < 1 and temperature >= 0, found "
            f"{learning_rate}, {momentum}, {temperature}"
        )
    scale = (2 * learning_rate * (1 - momentum) * temperature) ** 0.5

    def init(params: Tree) -> Tree:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        def velocity(before: Array, grad: Array, noise: Array) -> Array:
            return momentum * before - learning_rate * grad + scale * noise

        velocities = jax.tree.map(velocity, state, updates, _noise_like(updates, RKG()))
        return velocities, velocities

    return optax.GradientTransformation(init, update)


def _noise_like(tree: Tree, key: Array) -> Tree:
    """Returns normal numbers in the form of a tree of arrays, a row for each index of the first axis, if it is common.

    A row goes through the arrays in the order of their paths, in which layer 10 comes after layer 2.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    if not leaves:  # where a mask gives all parameters to other optimisers
        return tree
    arrays = [array for _, array in leaves]
    lengths = {array.shape[0] if array.ndim else 1 for array in arrays}
    rows = lengths.pop() if len(lengths) == 1 else 1
    order = sorted(range(len(leaves)), key=lambda number: _in_words(path_name(leaves[number][0])))
    ends = np.cumsum([arrays[number].size // rows for number in order])
    noise = jax.random.normal(key, (rows, ends[-1]), jnp.result_type(*arrays))
    pieces = dict(zip(order, jnp.split(noise, ends[:-1], axis=1), strict=True))
    likes = [pieces[number].reshape(array.shape).astype(array.dtype) for number, array in enumerate(arrays)]
    return jax.tree.unflatten(structure, likes)


def _in_words(path: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", path))

"""What influences what, against what the functions say."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import minipcax as px
from minipcax.learning._influence import influences

A, B = frozenset({"[0]['a']"}), frozenset({"[0]['b']"})


def swapped(x: Any) -> Any:
    return x["b"] * 2, jnp.zeros(3), x["a"]


CASES: list[tuple[Callable[[Any], Any], Any]] = [
    (swapped, (B, frozenset(), A)),
    (jax.jit(swapped), (B, frozenset(), A)),
    (jax.checkpoint(swapped), (B, frozenset(), A)),
    (lambda x: swapped({"a": jax.nn.relu(x["a"]), "b": jax.nn.softmax(x["b"])}), (B, frozenset(), A)),
    (jax.vmap(swapped), (B, frozenset(), A)),
    (lambda x: {"both": x["a"] @ x["b"]}, {"both": A | B}),
    (lambda x: jax.lax.scan(lambda carry, row: (carry + row, 2 * row), x["a"][0], x["b"]), (A | B, B)),
    # What one step puts into a carry, the next puts into another.
    (
        lambda x: jax.lax.scan(lambda c, _: ((x["a"], c[0], c[2]), c[1]), (x["b"],) * 3, length=3),
        ((A | B, A | B, B), A | B),
    ),
    (lambda x: jax.lax.cond(x["a"][0] > 0, lambda b: (b, 1.0), lambda b: (2 * b, 2.0), x["b"]), (A | B, A)),
    (lambda x: jax.lax.cond(True, lambda b: (b, x["a"]), lambda b: (2 * b, x["a"]), x["b"]), (B, A)),
    (lambda x: jax.lax.fori_loop(0, jnp.int32(x["b"][0]), lambda n, a: 2 * a, x["a"]), A | B),
    (lambda x: jax.nn.one_hot(x["a"].astype(jnp.int32), 3), A),
    (lambda x: px.RKG(3)[:, 0], frozenset()),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_influences(number: int) -> None:
    function, expected = CASES[number]
    key = px.RKG.key.get()
    assert influences(function, {"a": jnp.ones(3), "b": jnp.ones(3)}) == expected
    assert px.RKG.key.get() is key

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
    (lambda x: jax.lax.scan(lambda carry, row: (carry + row, 2 * row), x["a"][0], x["b"]), (A | B, A | B)),  # at most
    (lambda x: jax.nn.one_hot(x["a"].astype(jnp.int32), 3), A),
    (lambda x: px.RKG(3)[:, 0], frozenset()),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_influences(number: int) -> None:
    function, expected = CASES[number]
    key = px.RKG.key.get()
    assert influences(function, {"a": jnp.ones(3), "b": jnp.ones(3)}) == expected
    assert px.RKG.key.get() is key

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.nn as pxnn
from tests.nn.oracles import first_key, normal, uniform, value_and_gradients
from tests.oracles import close


@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(3, 2, True), (1, 4, True), (4, 1, False)])
def test_output_and_gradients(inputs: int, outputs: int, bias: bool) -> None:
    layer = pxnn.Linear(inputs, outputs, bias)
    x, direction = normal(0, (inputs,)), normal(1, (outputs,))
    y, grads, x_grad = value_and_gradients(layer, x, direction)
    weight, shift = np.asarray(layer.nn.weight), np.zeros(()) if layer.nn.bias is None else np.asarray(layer.nn.bias)
    close(y, [sum(weight[o, i] * x[i] for i in range(inputs)) for o in range(outputs)] + shift)
    close(grads["weight"], np.outer(direction, x))
    close(x_grad, weight.T @ np.asarray(direction))
    assert ("bias" in grads) is bias
    if bias:
        close(grads["bias"], direction)


def test_weights_follow_the_scheme() -> None:
    rkg = px.RandomKeyGenerator(7)
    layer = pxnn.Linear(9, 4, rkg=rkg)
    weight_key, bias_key = jax.random.split(first_key(7), 2)
    assert layer.nn.bias is not None
    np.testing.assert_array_equal(layer.nn.weight.get(), uniform(weight_key, (4, 9), 9))
    np.testing.assert_array_equal(layer.nn.bias.get(), uniform(bias_key, (4,), 9))
    np.testing.assert_array_equal(rkg.key.get(), jax.random.split(jax.random.PRNGKey(7), 2)[0])


def test_the_global_generator_is_the_default() -> None:
    px.RKG.seed(7)
    drawn, other = pxnn.Linear(3, 2), pxnn.Linear(3, 2, rkg=px.RandomKeyGenerator(7))
    np.testing.assert_array_equal(drawn.nn.weight.get(), other.nn.weight.get())


def test_bias_has_two_names() -> None:
    assert pxnn.Linear(2, 2, use_bias=False).nn.bias is None
    assert pxnn.Linear(2, 2, bias=False).nn.bias is None
    with pytest.raises(ValueError, match="bias and use_bias, which are the same, to agree, found False and True"):
        pxnn.Linear(2, 2, False, use_bias=True)


def test_a_missing_bias_is_neither_drawn_nor_a_leaf() -> None:
    layer, other = (pxnn.Linear(2, 3, bias, rkg=px.RandomKeyGenerator(1)) for bias in (False, True))
    np.testing.assert_array_equal(layer.nn.weight.get(), other.nn.weight.get())
    assert [leaf.shape for leaf in jax.tree.leaves(layer)] == [(3, 2)]


def test_sizes_may_be_numpy_ints() -> None:
    assert pxnn.Linear(int(np.prod((2, 3))), 1)(jnp.ones(6)).shape == (1,)
    assert pxnn.Linear(np.prod((2, 3)), 1)(jnp.ones(6)).shape == (1,)  # what people write


@pytest.mark.parametrize(("sizes", "words"), [((0, 1), "in_features"), ((2, -1), "out_features")])
def test_sizes_are_checked(sizes: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=f"Linear expected {words} to be a positive int, found"):
        pxnn.Linear(*sizes)


def test_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("x of shape (3,), one sample, found (5, 3); map a batch with vmap")):
        pxnn.Linear(3, 2)(jnp.ones((5, 3)))


def test_key_is_accepted() -> None:
    layer, x = pxnn.Linear(3, 2), jnp.ones(3)
    np.testing.assert_array_equal(layer(x, key=jax.random.PRNGKey(0)), layer(x))

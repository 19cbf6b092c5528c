"""What someone who knows PyTorch, equinox or pcx would try with a layer: it works as they expect, or says why not."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
from tests.nn.oracles import normal
from tests.oracles import close

Make = Callable[[Any], Any]


class Plain:
    """A callable object that is not a pytree."""

    def __init__(self) -> None:
        self.w = jnp.ones(3)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.w * x


def key() -> jax.Array:
    return jax.random.PRNGKey(0)


def batch_norm(**options: Any) -> pxnn.BatchNorm:
    return pxnn.BatchNorm(3, "batch", inference=True, **options)


def with_bias(value: Any) -> pxnn.Linear:
    layer = pxnn.Linear(3, 2)
    assert layer.nn.bias is not None
    layer.nn.bias.set(value)
    return layer


def changed(layer: Any, path: str, value: Any) -> Any:
    *above, last = path.split(".")
    owner = layer
    for name in above:
        owner = getattr(owner, name)
    owner.set(value) if last == "set" else setattr(owner, last, value)
    return layer


X = jnp.ones(3)
PARTIAL: Any = jax.tree_util.Partial(jnp.multiply, X)  # type: ignore[no-untyped-call]  # jax
IMAGE = jnp.ones((1, 4, 4))
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # sizes
    "a bool for a size": (lambda: pxnn.Linear(3, True), ValueError, "out_features to be a positive int, found True"),
    "an array for a size": (lambda: pxnn.Linear(np.array([3]), 2), ValueError, "in_features to be a positive int"),
    "a JAX array": (lambda: pxnn.Conv2d(1, 1, jnp.ones(2, int)), ValueError, "kernel_size to be a positive int"),
    "a bool for padding": (lambda: pxnn.Conv2d(1, 1, 3, padding=True), ValueError, "padding to be a non-negative int"),
    "use_ceil in the place of padding": (lambda: pxnn.MaxPool2d(2, 2, True), ValueError, "padding to be a non-negat"),
    # flags and numbers
    "text for a flag": (lambda: pxnn.Linear(3, 2, bias="no"), ValueError, "use_bias to be True or False, found 'no'"),  # type: ignore[arg-type]  # tested on purpose, here and below
    "an array for bias": (lambda: pxnn.Linear(3, 2, bias=X), ValueError, "use_bias to be True or False, found Array"),  # type: ignore[arg-type]
    "a convolution's flag": (lambda: pxnn.Conv1d(1, 1, 3, use_bias=None), ValueError, "use_bias to be True or False"),  # type: ignore[arg-type]
    "use_ceil": (lambda: pxnn.MaxPool2d(2, use_ceil=1), ValueError, "use_ceil to be True or False, found 1"),  # type: ignore[arg-type]
    "inference": (lambda: pxnn.Dropout(0.5, "eval"), ValueError, "inference to be True or False, found 'eval'"),  # type: ignore[arg-type]
    "affine": (lambda: batch_norm(channelwise_affine=1), ValueError, "channelwise_affine to be True or False"),
    "text for p": (lambda: pxnn.Dropout("0.5"), ValueError, "p to be a probability, from 0 to 1, found '0.5'"),  # type: ignore[arg-type]
    "many": (lambda: pxnn.Dropout(np.ones(2)), ValueError, "p to be a probability, from 0 to 1, found array"),  # type: ignore[arg-type]
    "p changed later": (
        lambda: changed(pxnn.Dropout(0.5), "p", 2.0)(X, key=key()),
        ValueError,
        "p to be a probability, from 0 to 1, found 2.0",
    ),
    "eps": (lambda: pxnn.LayerNorm(3, eps=-1e-5), ValueError, "eps to be a number, that is not negative, found -1e-05"),
    "eps of a batch": (lambda: batch_norm(eps="small"), ValueError, "eps to be a number, that is not negative"),
    "without an axis": (
        lambda: pxnn.BatchNorm(3, None),
        ValueError,
        'axis_name to be that of the vmap over the batch, "batch"',
    ),
    "ints as weights": (lambda: pxnn.Conv1d(1, 1, 3, dtype=int), ValueError, "a floating dtype, found"),
    "of a norm": (lambda: pxnn.LayerNorm(3, dtype=jnp.int8), ValueError, "a floating dtype, found"),
    "of a batch norm": (lambda: batch_norm(dtype=bool), ValueError, "a floating dtype, found"),
    "not an operation": (
        lambda: pxnn.Pool(0.0, "max", 1, 2),  # type: ignore[arg-type]
        ValueError,
        "init to be a number and operation",
    ),
    "not an init": (lambda: pxnn.Pool(None, jax.lax.max, 1, 2), ValueError, "found None and"),  # type: ignore[arg-type]
    "a whole array's": (
        lambda: pxnn.Pool(-jnp.inf, jnp.max, 2, 2)(IMAGE),  # type: ignore[arg-type]
        TypeError,
        "Pool expected operation to be a function of two arrays, such as jax.lax.max, found <",
    ),
    "of two": (
        lambda: pxnn.AdaptivePool(2, 2, jnp.add)(IMAGE),  # type: ignore[arg-type]
        TypeError,
        "a function of one vector, such as jnp.mean",
    ),
    "text": (lambda: pxnn.AdaptivePool(2, 1, "mean"), ValueError, "operation to be a function, such as jnp.mean"),  # type: ignore[arg-type]
    # keys
    "a key for a generator": (
        lambda: pxnn.Linear(3, 2, rkg=key()),  # type: ignore[arg-type]
        TypeError,
        "expected rkg to be a RandomKeyGenerator, such as RandomKeyGenerator(0), found an ArrayImpl",
    ),
    "a seed": (lambda: pxnn.ConvTranspose(1, 1, 1, 3, rkg=0), TypeError, "RandomKeyGenerator(0), found an int"),  # type: ignore[arg-type]
    "not a generator": (lambda: pxnn.Transposed(pxnn.Linear(2, 2), rkg=None), TypeError, "found a NoneType"),  # type: ignore[arg-type]
    "a generator for a key": (
        lambda: pxnn.Dropout()(X, key=px.RKG),  # type: ignore[arg-type]
        TypeError,
        "expected a random key, as key=RKG() gives, found a RandomKeyGenerator",
    ),
    "a seed for a key": (lambda: pxnn.Dropout()(X, key=3), TypeError, "as key=RKG() gives, found an int"),  # type: ignore[arg-type]
    # parameters
    "reading": (lambda: pxnn.Linear(3, 2).weight, AttributeError, "Linear has no weight of its own: read .nn.weight"),  # type: ignore[attr-defined]
    "writing": (
        lambda: changed(pxnn.Linear(3, 2), "weight", jnp.ones((2, 3))),
        AttributeError,
        "Linear has no weight of its own to set: change .nn.weight",
    ),
    "writing another": (lambda: changed(pxnn.Conv1d(1, 1, 3), "bias", pxnn.LayerParam(X)), AttributeError, ".nn.bias"),
    "writing what a foreign class has": (
        lambda: changed(pxnn.Layer(jax.tree_util.Partial, jnp.add, X), "func", jnp.multiply),
        AttributeError,
        "no func of its own to set: change .nn.func",
    ),
    "nn": (
        lambda: changed(pxnn.Linear(3, 2), "nn", X),
        TypeError,
        "nn takes the parameters of a layer like it, a Weights, found an Arr",
    ),
    "a function for nn": (
        lambda: changed(pxnn.Linear(3, 2), "nn", PARTIAL),
        TypeError,
        "Linear.nn takes the parameters of a layer like it, a Weights, found a Partial",
    ),
    "the nn of a larger layer": (
        lambda: changed(pxnn.Linear(3, 2), "nn", pxnn.Linear(5, 2).nn),
        ValueError,
        "layer.nn.weight expected a parameter of the shape of LayerParam([2,3]",
    ),
    "an option": (
        lambda: changed(pxnn.Dropout(), "nn.p", 0.0),
        TypeError,
        "layer.nn.p takes a parameter, found a float: change the value with .p.set(...), or assign another parameter "
        "to share it; sizes and options are attributes of the layer itself, layer.p = ...",
    ),
    "a misspelt parameter": (
        lambda: changed(pxnn.Linear(3, 2), "nn.wieght", pxnn.LayerParam(X)),
        AttributeError,
        "layer.nn has no wieght: it holds the layer's parameters, here weight and bias; sizes and options are",
    ),
    "a weight that nothing would use": (
        lambda: changed(pxnn.Dropout(), "nn.weight", pxnn.LayerParam(X)),
        AttributeError,
        "layer.nn has no weight: it holds the layer's parameters, here nothing",
    ),
    "a size of nn": (
        lambda: pxnn.Linear(3, 2).nn.in_features,  # type: ignore[attr-defined]
        AttributeError,
        "layer.nn has no in_features: it holds the layer's parameters, here weight and bias; sizes and options are "
        "attributes of the layer itself, layer.in_features",
    ),
    "a static for a weight": (
        lambda: changed(pxnn.Linear(3, 2), "nn.weight", px.static(3)),
        TypeError,
        "weight takes a parameter, found a StaticParam",
    ),
    "a bias of another shape": (lambda: with_bias(jnp.ones(5))(X), ValueError, "expected a bias of shape (2,), found"),
    "that would be broadcast": (
        lambda: with_bias(jnp.ones(1))(X),
        ValueError,
        "bias of shape (2,), found LayerParam([1]",
    ),
    "that would make y larger": (lambda: with_bias(jnp.ones((2, 1)))(X), ValueError, "found LayerParam([2,1]"),
    "a convolution's": (
        lambda: changed(pxnn.Conv2d(1, 2, 3), "nn.bias.set", jnp.ones(2))(IMAGE),
        ValueError,
        "Conv2d expected a bias of shape (2, 1, 1), found LayerParam([2], float32)",
    ),
    "a norm's weight that would be broadcast": (
        lambda: changed(pxnn.LayerNorm((2, 2)), "nn.weight.set", jnp.ones(2))(jnp.ones((2, 2))),
        ValueError,
        "LayerNorm expected a weight of shape (2, 2), found LayerParam([2]",
    ),
    "a norm's bias of another shape": (
        lambda: changed(batch_norm(), "nn.bias.set", jnp.ones(()))(X),
        ValueError,
        "BatchNorm expected a bias of shape (3,), found LayerParam([]",
    ),
    "more outputs": (
        lambda: changed(pxnn.Linear(3, 2, bias=False), "nn.weight.set", jnp.ones((5, 3)))(X),
        ValueError,
        "Linear expected a weight with 2 outputs, found LayerParam([5,3]",
    ),
    "cleared": (lambda: changed(pxnn.Conv2d(1, 2, 3), "nn.weight.set", None)(IMAGE), AttributeError, "is cleared"),
    "statistics": (lambda: changed(batch_norm(), "state.set", None)(X), ValueError, "but its state is cleared"),
    # inputs
    "a list": (lambda: pxnn.Linear(3, 2)([1.0, 2.0, 3.0]), TypeError, "Linear expected an array, found a list: [1.0"),  # type: ignore[arg-type]
    "a number": (lambda: pxnn.LayerNorm(3)(3.0), TypeError, "LayerNorm expected an array, found a float: 3.0"),  # type: ignore[arg-type]
    "a node": (lambda: pxnn.Conv2d(1, 2, 3)(pxc.Vode()), TypeError, "Conv2d expected an array, found a Vode"),  # type: ignore[arg-type]
    "a dict": (lambda: pxnn.MaxPool2d(2)(px.ParamDict({"u": X})), TypeError, "expected an array, found a dict"),  # type: ignore[arg-type]
    "nothing": (lambda: pxnn.Dropout(0.0)(None), TypeError, "Dropout expected an array, found None"),  # type: ignore[arg-type]
    "a cleared one": (lambda: batch_norm()(px.Param(None)), TypeError, "BatchNorm expected an array, found None"),
    # other people's classes
    "a plain object": (lambda: pxnn.Layer(Plain), TypeError, "makes a Plain, whose arrays JAX does not see: make it a"),
    "a layer": (lambda: pxnn.Layer(pxnn.Linear, 3, 2), TypeError, "a Linear: that is a layer already"),
    "an object": (
        lambda: pxnn.Layer(PARTIAL),
        TypeError,
        "expects the class of a callable pytree, and its arguments, found the object Part",
    ),
    "not a filter": (lambda: pxnn.Layer(jax.tree_util.Partial, jnp.add, X, filter=3), TypeError, "a predicate or an M"),  # type: ignore[arg-type]
    "a class": (lambda: pxnn.Transposed(pxnn.Linear), TypeError, "a Linear or a Conv, found the class Linear"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("attempt", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_refused(attempt: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        attempt()


SIZES: dict[str, tuple[Make, Any, Any, tuple[int, ...]]] = {
    "Linear": (lambda n: pxnn.Linear(n, n, rkg=px.RandomKeyGenerator(0)), np.int64(3), 3, (3,)),
    "Conv": (lambda n: pxnn.Conv2d(1, 1, n, n, n, rkg=px.RandomKeyGenerator(0)), np.array([2, 3]), (2, 3), (1, 6, 6)),
    "padding": (
        lambda n: pxnn.Conv1d(1, 1, 2, padding=n, rkg=px.RandomKeyGenerator(0)),
        np.array([[1, 2]]),
        ((1, 2),),
        (1, 4),
    ),
    "groups": (lambda n: pxnn.Conv1d(n, n, 2, groups=n, rkg=px.RandomKeyGenerator(0)), np.uint8(2), 2, (2, 4)),
    "ConvTranspose": (
        lambda n: pxnn.ConvTranspose(1, 1, 1, 3, 2, output_padding=n, rkg=px.RandomKeyGenerator(0)),
        np.int32(1),
        1,
        (1, 4),
    ),
    "Pool": (lambda n: pxnn.MaxPool2d(n, n), np.array([2, 1]), (2, 1), (1, 4, 4)),
    "AdaptivePool": (lambda n: pxnn.AdaptiveAvgPool2d(n), np.int16(2), 2, (1, 4, 4)),
    "LayerNorm": (lambda n: pxnn.LayerNorm(n), np.array([2, 3]), (2, 3), (2, 3)),
    "BatchNorm": (lambda n: pxnn.BatchNorm(n, "batch", inference=True), np.int64(3), 3, (3,)),
    "Dropout": (lambda p: pxnn.Dropout(p, inference=True), np.float32(0.5), 0.5, (3,)),
}


@pytest.mark.parametrize(("make", "of_numpy", "plain", "shape"), SIZES.values(), ids=SIZES)
def test_numpy_numbers_are_accepted(make: Make, of_numpy: Any, plain: Any, shape: tuple[int, ...]) -> None:
    layer, other = make(of_numpy), make(plain)
    assert bool(jax.tree.structure(layer) == jax.tree.structure(other))  # type: ignore[operator]  # jax
    np.testing.assert_array_equal(layer(normal(0, shape)), other(normal(0, shape)))


INTEGERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "Linear": (lambda _: pxnn.Linear(4, 2), (4,)),
    "Conv": (lambda _: pxnn.Conv2d(1, 2, 3), (1, 4, 4)),
    "ConvTranspose": (lambda _: pxnn.ConvTranspose(2, 1, 2, 3, 2), (1, 4, 4)),
    "LayerNorm": (lambda _: pxnn.LayerNorm((1, 4, 4)), (1, 4, 4)),
    "BatchNorm": (lambda _: pxnn.BatchNorm(1, "batch", inference=True), (1, 4, 4)),
    "AvgPool": (lambda _: pxnn.AvgPool2d(2), (1, 4, 4)),
    "AdaptiveAvgPool": (lambda _: pxnn.AdaptiveAvgPool2d(2), (1, 4, 4)),
}


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8])
@pytest.mark.parametrize(("make", "shape"), INTEGERS.values(), ids=INTEGERS)
def test_integers_neither_round_nor_overflow(make: Make, shape: tuple[int, ...], dtype: Any) -> None:
    layer, x = make(None), jnp.arange(240, 240 + np.prod(shape)).reshape(shape) % 256
    with jax.numpy_dtype_promotion("standard"):
        close(layer(x.astype(dtype)), layer(x.astype(jnp.float32)), 1e-5)


def test_a_batch_of_integers_is_normalised_as_floats() -> None:
    run = pxf.vmap(axis_name="batch")(lambda x, *, layer: layer(x))
    x = jnp.array([[1, 5], [4, 9]])
    layers = [pxnn.BatchNorm(2, "batch") for _ in range(2)]
    close(run(x, layer=layers[0]), run(x.astype(float), layer=layers[1]))
    close(layers[0].state.get().mean, np.array([2.5, 7]))


@pytest.mark.parametrize(
    "layer", [pxnn.Conv1d(2, 2, 3, dtype=jnp.bfloat16), pxnn.ConvTranspose(1, 2, 2, 3, dtype=jnp.bfloat16)]
)
def test_a_convolution_of_mixed_precision_has_the_larger(layer: Any) -> None:
    with jax.numpy_dtype_promotion("standard"):
        assert layer(jnp.ones((2, 4))).dtype == jnp.float32
    assert layer(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.bfloat16


def test_what_looks_like_a_mistake_but_is_allowed() -> None:
    weights = pxnn.Layer(jax.tree_util.Partial, jnp.add, X, filter=jax.Array)
    assert [type(param) for param in px.tree_extract(weights)] == [pxnn.LayerParam]
    close(pxnn.Layer(lambda: jax.nn.relu)(-X), 0 * X)
    close(pxnn.Dropout(0.5)(X, key=px.RKG.key), pxnn.Dropout(0.5)(X, key=px.RKG.key.get()))

    class Named(pxnn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.in_features, self.weight = 3, self.nn.weight  # what it holds already
            self.note = px.static("its own")

        @property
        def cleared(self) -> Any:
            return px.Param(None) + 1

    for layer in (Named(), copy.deepcopy(Named()), pxnn.shared(Named())):
        assert layer.weight is layer.nn.weight
        assert layer.note == "its own"
        with pytest.raises(AttributeError, match="this Param is cleared"):
            _ = layer.cleared
        with pytest.raises(AttributeError, match="'Named' object has no attribute 'nothing'"):
            _ = layer.nothing  # type: ignore[attr-defined]
    twin = pickle.loads(pickle.dumps(pxnn.Linear(3, 2)))
    assert twin.nn.weight.shape == (2, 3)

"""What the tests of the transforms share: small models, and ways to see everything that a call may have touched."""

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import minipcax as px
import minipcax.functional as pxf
from tests.dags import occurrences, outline
from tests.oracles import changed

# A function of one array and tracked models.
Function = Callable[..., Any]

X = jnp.array([1.0, 2.0])


class Weight(px.Param):
    pass


class State(px.Param):
    pass


class Net(px.Module):
    """Two layers that share a weight, with a state, a cache, statics, and a cleared parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Weight(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        self.layers = [Head(self.first), Head(Weight(jnp.array([[0.5, 0.0], [0.0, 0.5]])))]
        self.state = State(jnp.array([1.0, -1.0]))
        self.cache = px.ParamDict({"u": jnp.zeros(2)})
        self.cleared = State(None)
        self.table: dict[str, px.StaticParam[Any]] = {"z": px.static(2.0), "a": px.static([1, 2])}

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Head(px.Module):
    def __init__(self, weight: Weight) -> None:
        super().__init__()
        self.weight = weight
        self.act_fn = px.static(jnp.tanh)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act_fn(self.weight @ x)


class Holder(px.Module):
    """A module with the given children."""

    def __init__(self, **children: Any) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...


def vmapped(fn: Function) -> Function:
    """`fn` of the same arguments, through a vmap of two lanes in which all is the same."""
    mapped = pxf.vmap(in_axes=(None, 0))(lambda x, lane, **tracked: fn(x, **tracked))
    return lambda x, **tracked: jax.tree.map(lambda y: y[0], mapped(x, jnp.arange(2), **tracked))


def differentiated(fn: Function) -> Function:
    """`fn` of the same arguments, through value_and_grad."""
    both = pxf.value_and_grad({})(fn)
    return lambda x, **tracked: both(x, **tracked)[0]


WRAPPERS: dict[str, Callable[[Function], Function]] = {
    "jit": pxf.jit,
    "vmap": vmapped,
    "value_and_grad": differentiated,
}
NESTINGS: list[tuple[str, ...]] = [(), *((a,) for a in WRAPPERS), *((a, b) for a in WRAPPERS for b in WRAPPERS)]
TRIPLES = [(a, b, c) for a in WRAPPERS for b in WRAPPERS for c in WRAPPERS]


def wrap(fn: Function, names: tuple[str, ...]) -> Function:
    """`fn` through the transforms of these names, the first one outermost."""
    for name in reversed(names):
        fn = WRAPPERS[name](fn)
    return fn


def change(model: Any, statement: str) -> None:
    """Runs a statement that changes a model, such as `model.p.set(X)`; the names in it are those of this file."""
    changed(model, statement, globals())


def refused(message: str, error: type[Exception] = ValueError) -> Any:
    """The context in which an error is raised whose message matches, over any number of lines."""
    return pytest.raises(error, match=f"(?s){message}")


def copied(value: Any) -> Any:
    """A pytree with numpy arrays for leaves, which nothing can change any more."""
    return jax.tree.map(np.array, value)


class Snapshot:
    """Everything about a model and the global key that a failed call must leave as it was."""

    def __init__(self, *models: Any) -> None:
        self.models = models
        self.outlines = [outline(model) for model in models]
        self.params = [param for model in models for _, param in occurrences(model)]
        self.values = [param.get() for param in self.params]
        # The same value may be a dict that is changed in place.
        self.contents = [copied(value) for value in self.values if isinstance(value, dict)]
        self.key = px.RKG.key.get()

    def check(self) -> None:
        assert [outline(model) for model in self.models] == self.outlines
        now = [param for model in self.models for _, param in occurrences(model)]
        assert all(a is b for a, b in zip(now, self.params, strict=True))
        assert all(param.get() is value for param, value in zip(self.params, self.values, strict=True))
        contents = [copied(value) for value in self.values if isinstance(value, dict)]
        jax.tree.map(np.testing.assert_array_equal, contents, self.contents)
        assert px.RKG.key.get() is self.key
        check_no_tracer()


def check_no_tracer() -> None:
    """Checks that no parameter made in this test, nor the global key, holds a tracer."""
    gc.collect()
    for thing in [*gc.get_objects(), px.RKG.key]:
        if isinstance(thing, px.BaseParam):
            leaves = jax.tree.leaves(thing.get())
            assert not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves), thing


class Traces:
    """Counts how often a function is traced: call it inside."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1

    def new(self) -> int:
        """How many there were since this was last asked."""
        count, self.count = self.count, 0
        return count


def psum(x: Any, axis_name: str) -> jax.Array:
    total: jax.Array = jax.lax.psum(x, axis_name)  # type: ignore[no-untyped-call]  # jax
    return total

"""The stack of layers of `dispatch.py` in other libraries: those that are installed here.

    pip install -e '.[benchmarks]' && pip install --no-deps pcx

in an environment of its own, for pcx asks for older versions of its dependencies than it needs.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
from jax import Array

# What changes nothing, and what changes every parameter; each runs again and again.
Calls = tuple[Callable[[], Any], Callable[[], Any]]
SIZE = 8


def equinox_filter_jit(layers: int, x: Array) -> Calls:
    """Immutable modules: an update returns a new model."""
    eqx: Any = import_module("equinox")

    def call(layers: Any, x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    def changed(layers: Any, x: Any) -> Any:
        arrays, rest = eqx.partition(layers, eqx.is_array)
        layers = eqx.combine(jax.tree.map(lambda array: array + 1e-6, arrays), rest)
        return layers, call(layers, x)

    forward, update = eqx.filter_jit(call), eqx.filter_jit(changed)
    model = [eqx.nn.Linear(SIZE, SIZE, key=key) for key in jax.random.split(jax.random.key(0), layers)]
    state = [model]

    def updated() -> Any:
        state[0], y = update(state[0], x)
        return y

    return lambda: forward(model, x), updated


def _nnx(layers: int) -> tuple[Any, Any, Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    nnx: Any = import_module("flax.nnx")

    class Model(nnx.Module):  # type: ignore[misc]  # it is not known here
        def __init__(self) -> None:
            self.layers = nnx.List([nnx.Linear(SIZE, SIZE, rngs=nnx.Rngs(0)) for _ in range(layers)])

    def call(model: Any, x: Any) -> Any:
        for layer in model.layers:
            x = layer(x)
        return x

    def changed(model: Any, x: Any) -> Any:
        for layer in model.layers:
            layer.kernel[...] += 1e-6
            layer.bias[...] += 1e-6
        return call(model, x)

    return nnx, Model(), call, changed


def flax_nnx_jit(layers: int, x: Array) -> Calls:
    """Mutable modules, taken apart and put together by every call."""
    nnx, model, call, changed = _nnx(layers)
    forward, update = nnx.jit(call), nnx.jit(changed)
    return lambda: forward(model, x), lambda: update(model, x)


def flax_nnx_cached_partial(layers: int, x: Array) -> Calls:
    """The same, taken apart once and for all."""
    nnx, model, call, changed = _nnx(layers)
    forward = nnx.cached_partial(nnx.jit(call), model)
    update = nnx.cached_partial(nnx.jit(changed), model)
    return lambda: forward(x), lambda: update(x)


def pcx_jit(layers: int, x: Array) -> Calls:
    """The library whose interface minipcax has."""
    px: Any = import_module("pcx")
    pxf: Any = import_module("pcx.functional")
    pxnn: Any = import_module("pcx.nn")

    class Model(px.Module):  # type: ignore[misc]  # it is not known here
        def __init__(self) -> None:
            super().__init__()
            self.layers = [pxnn.Linear(SIZE, SIZE) for _ in range(layers)]

    def call(x: Any, *, model: Any) -> Any:
        for layer in model.layers:
            x = layer(x)
        return x

    def changed(x: Any, *, model: Any) -> Any:
        for layer in model.layers:
            layer.nn.weight.set(layer.nn.weight.get() + 1e-6)
            layer.nn.bias.set(layer.nn.bias.get() + 1e-6)
        return call(x, model=model)

    forward, update, model = pxf.jit()(call), pxf.jit()(changed), Model()
    return lambda: forward(x, model=model), lambda: update(x, model=model)


PEERS: dict[str, tuple[str, Callable[[int, Array], Calls]]] = {
    "equinox filter_jit": ("equinox", equinox_filter_jit),
    "flax nnx.jit": ("flax", flax_nnx_jit),
    "flax nnx.cached_partial": ("flax", flax_nnx_cached_partial),
    "pcx jit": ("pcx", pcx_jit),
}


def installed() -> dict[str, Callable[[int, Array], Calls]]:
    """The peers that are there, by name; says which are not."""
    missing = sorted({package for package, _ in PEERS.values() if find_spec(package) is None})
    if missing:
        print(f"skipped, for they are not installed here: {', '.join(missing)}")
    return {name: make for name, (package, make) in PEERS.items() if package not in missing}

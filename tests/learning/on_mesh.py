"""What `test_mesh` checks on a mesh of devices, as a program: JAX learns how many devices there are when it starts.

Arguments: the type of the axes, `Auto` or `Explicit`, and the name of a suite below.
"""

import re
import sys
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

import minipcax as px
import minipcax.functional as pxf
import minipcax.learning as pxl
import minipcax.nn as pxnn
import minipcax.predictive_coding as pxc
import minipcax.utils as pxu

DEVICES = 8
Make = Callable[[], pxl.Model]
Place = Callable[[Any], Any]  # of a batch, or of a weight


class Flat(px.Module):
    def __call__(self, x: Array) -> Array:
        return x.reshape(-1)


class Parts(px.Module):
    """Layers one after the other, without a node between them."""

    def __init__(self, *parts: Callable[..., Array]) -> None:
        super().__init__()
        self.parts = [*parts]

    def __call__(self, x: Array) -> Array:
        for part in self.parts:
            x = part(x, key=px.RKG()) if isinstance(part, pxnn.Dropout) else part(x)
        return x


class Net(pxc.EnergyModule):
    def __init__(self, *layers: Callable[[Array], Array]) -> None:
        super().__init__()
        self.layers, self.vodes = [*layers], [pxc.Vode() for _ in layers]
        self.vodes[-1].h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        for layer, vode in zip(self.layers, self.vodes, strict=True):
            x = vode(layer(jnp.tanh(x)))
        u: Array = self.vodes[-1].get("u")
        if y is not None:
            self.vodes[-1].set("h", y)
        return u


def linear() -> pxl.Model:
    return Net(pxnn.Linear(8, 16), pxnn.Linear(16, 8))


def dropout() -> pxl.Model:
    return Net(Parts(pxnn.Linear(8, 16), pxnn.Dropout(0.5)), pxnn.Linear(16, 8))


def layer_norm() -> pxl.Model:
    return Net(Parts(pxnn.Linear(8, 16), pxnn.LayerNorm(16)), pxnn.Linear(16, 8))


def batch_norm() -> pxl.Model:
    return Net(Parts(pxnn.Linear(8, 16), pxnn.BatchNorm(16, "batch")), pxnn.Linear(16, 8))


def transposed() -> pxl.Model:
    layer = pxnn.Linear(8, 16)
    return Net(layer, pxnn.Transposed(layer))


def pooled() -> pxl.Model:
    first = Parts(pxnn.Conv2d(2, 8, 3, padding=1), pxnn.MaxPool2d(2, 2))
    second = Parts(pxnn.Conv2d(8, 8, 3, padding=1), pxnn.AvgPool2d(2, 2), pxnn.BatchNorm(8, "batch"))
    return Net(first, second, Parts(pxnn.AdaptiveAvgPool2d(1), Flat(), pxnn.Linear(8, 8)))


def convolved_back() -> pxl.Model:
    layer = pxnn.Conv2d(2, 8, 3, padding=1)
    back = Parts(pxnn.Transposed(layer), pxnn.ConvTranspose(2, 2, 2, 3), pxnn.AdaptiveMaxPool2d(2))
    return Net(layer, back, Parts(Flat(), pxnn.Linear(8, 8)))


class Stacked(pxc.EnergyModule):
    def __init__(self, make: Callable[[], px.Module], parallel: bool = True, tied: bool = False) -> None:
        super().__init__()
        self.first, self.vode = pxnn.Linear(8, 16), pxc.Vode()
        self.stack = pxc.Stack(make, 3, parallel=parallel, tied=tied)
        self.last, self.output = pxnn.Linear(16, 8), pxc.Vode()
        self.output.h.frozen = True

    def __call__(self, x: Array, y: Array | None = None) -> Array:
        u: Array = self.output(self.last(self.stack(self.vode(self.first(x)))), output="u")
        if y is not None:
            self.output.set("h", y)
        return u


def block() -> px.Module:
    return Parts(pxnn.Linear(16, 16), pxnn.Dropout(0.5))


def stack() -> pxl.Model:
    return Stacked(block)


def stack_in_turn() -> pxl.Model:
    return Stacked(block, parallel=False)


def tied_stack() -> pxl.Model:
    return Stacked(block, tied=True)


def residual() -> pxl.Model:
    return pxl.ResidualNetwork(8, 16, 8, depth=4)


DENSE: tuple[Make, ...] = (linear, dropout, layer_norm, batch_norm, stack, stack_in_turn, tied_stack, residual)
CONVOLUTIONS: tuple[Make, ...] = (pooled, convolved_back)
ALGORITHMS: tuple[pxl.Algorithm, ...] = (
    pxl.PC(2),
    pxl.PC(2, tolerance=1e-3),
    pxl.PC(2, start=pxl.RandomStart(0.1)),
    pxl.IPC(2),
    pxl.Nudging(0.5, 2),
    pxl.EPC(2),
    pxl.Backprop(),
    pxl.ZIL(),
)


def weights_of(model: pxl.Model) -> tuple[Any, ...]:
    return px.tree_extract(pxl.WEIGHTS(model))


def make_mesh(axes: str, **sizes: int) -> Mesh:
    types = (getattr(AxisType, axes),) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types)


def put(mesh: Mesh, array: Array, *spec: str | None) -> Array:
    sharding = NamedSharding(mesh, PartitionSpec(*spec))  # type: ignore[no-untyped-call]  # jax
    placed: Array = jax.device_put(array, sharding)
    return placed


def over_data(mesh: Mesh) -> Place:
    return lambda array: put(mesh, array, *(["data"] if "data" in mesh.axis_names else []))


def over_model(mesh: Mesh, axis: int) -> Place:
    """Shards weights over their outputs (axis 0), or their inputs (axis 1), where there are enough of them."""

    def place(param: Any) -> Any:
        number = axis + ("stacked" in vars(param))
        enough = number < param.ndim and param.shape[number] % mesh.shape["model"] == 0
        return put(mesh, param.get(), *([None] * number + ["model"] if enough else []))

    return place


def replicated(mesh: Mesh) -> Place:
    return lambda param: put(mesh, param.get())


def batch_for(make: Make) -> tuple[Array, Array]:
    draw = np.random.default_rng(0)
    shape = (2, 8, 8) if make in CONVOLUTIONS else (8,)
    x, y = (draw.normal(size=(2 * DEVICES, *size)) for size in (shape, (8,)))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def trained(
    make: Make, algorithm: pxl.Algorithm, nodes: pxu.Optim, place: Place, place_weight: Place
) -> tuple[pxl.Model, list[np.ndarray]]:
    """Trains for two steps; returns the model, and all that may be compared."""
    px.RKG.seed(0)
    model = make()
    for param in weights_of(model):
        param.set(place_weight(param))
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    found: list[Any] = []
    x, y = map(place, batch_for(make))
    for _ in range(2):
        report = algorithm(x, y, model=model, nodes=nodes, weights=weights)
        found += [report.energies, report.predictions]
    statistics = px.tree_extract(model, filter_fn=lambda param: isinstance(param, pxnn.StateParam))
    found += [param.get() for param in (*weights_of(model), *statistics)]
    found.append(px.RKG.key.get())
    return model, [*map(np.asarray, jax.tree.leaves(found))]


def sgd() -> pxu.Optim:
    return pxu.Optim(optax.sgd(0.1, momentum=0.5))


@cache
def trained_alone(make: Make, algorithm: pxl.Algorithm, nodes: Callable[[], pxu.Optim]) -> list[np.ndarray]:
    return trained(make, algorithm, nodes(), lambda array: array, lambda param: param.get())[1]


def check(
    mesh: Mesh,
    place_weight: Place,
    make: Make,
    algorithm: pxl.Algorithm,
    nodes: Callable[[], pxu.Optim] = sgd,
) -> pxl.Model:
    """Training on a mesh gives the numbers of one device."""
    alone = trained_alone(make, algorithm, nodes)
    model, spread = trained(make, algorithm, nodes(), over_data(mesh), place_weight)
    # The statistics of a batch are sums, whose rounding depends on how many devices add them up; and where two pixels
    # are nearly equal, rounding decides which of them is the maximum.
    atol = {batch_norm: 1e-5, pooled: 1e-4}.get(make, 1e-6)
    for one, two in zip(alone, spread, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=atol, err_msg=f"{make.__name__}, {algorithm}, {mesh}")
    return model


def check_memory(model: pxl.Model, shards: int) -> None:
    """After training, each device still holds its share of every weight, and no more."""
    for param in weights_of(model):
        held = [shard.data.nbytes for shard in param.get().addressable_shards]
        assert held == [param.get().nbytes // shards] * DEVICES, param


KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def collectives(text: str | None) -> tuple[list[str], list[str]]:
    """What a compiled program sends between devices, in loops and outside of them: the kind, and the shapes."""
    assert text is not None
    blocks: dict[str, list[str]] = {}
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.-]+) .*{$", line)
        if head:
            blocks[head[1]] = block = []
        elif blocks:
            block.append(line)
    in_loops, todo = set[str](), re.findall(r"(?:body|condition)=%?([\w.-]+)", text)
    assert todo, "the program has no loops"
    while todo:
        name = todo.pop()
        if name not in in_loops:
            in_loops.add(name)
            todo += [word for line in blocks[name] for word in re.findall(r"[\w.-]+", line) if word in blocks]
    found: tuple[list[str], list[str]] = [], []
    for name, lines in blocks.items():
        for line in lines:
            sent = re.search(rf"= (.*?) ({KINDS})(-start)?\(", line)
            if sent:
                shapes = " ".join(re.findall(r"\w+\[[\d,]*\]", sent[1]))
                found[name not in in_loops].append(f"{sent[2]} {shapes}")
    return found


def sent(mesh: Mesh, make: Make, algorithm: pxl.Algorithm) -> tuple[list[str], list[str]]:
    """What devices send each other in a step of data-parallel training, in loops and outside of them."""
    model, (x, y) = make(), map(over_data(mesh), batch_for(make))
    for param in weights_of(model):
        param.set(put(mesh, param.get()))

    @pxf.jit
    def step(x: Array, y: Array, *, model: pxl.Model, nodes: pxu.Optim, weights: pxu.Optim) -> pxl.Report:
        return algorithm(x, y, model=model, nodes=nodes, weights=weights)

    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    return collectives(step.lower(x, y, model=model, nodes=sgd(), weights=weights).compile().as_text())


def check_silence(mesh: Mesh, make: Make, algorithm: pxl.Algorithm, extra: int = 0) -> None:
    """Inference sends nothing; after it come the gradients of the weights, all energies and the loss, each once."""
    inside, outside = sent(mesh, make, algorithm)
    assert inside == [], (algorithm, inside)
    assert {kind.split()[0] for kind in outside} == {"all-reduce"}, outside
    numbers = sum(
        prod(map(int, filter(None, dims.split(",")))) for dims in re.findall(r"\[([\d,]*)\]", str(outside)[1:-1])
    )
    energies = 2 * len(make().nodes())
    assert numbers == sum(param.size for param in weights_of(make())) + energies + 1, (algorithm, outside)


def quick(axes: str) -> None:
    """A few of all others, of each kind one."""
    data, both = make_mesh(axes, data=8), make_mesh(axes, data=4, model=2)
    check(data, replicated(data), dropout, pxl.PC(2))
    check_memory(check(both, over_model(both, 0), linear, pxl.PC(2)), 2)
    check_silence(data, linear, pxl.PC(2))


def silence(axes: str) -> None:
    mesh = make_mesh(axes, data=8)
    for algorithm in (pxl.PC(2), pxl.Nudging(0.5, 2), pxl.EPC(2)):
        check_silence(mesh, linear, algorithm)
    for algorithm in (pxl.PC(2), pxl.Nudging(0.5, 2)):
        assert sent(mesh, residual, algorithm)[0] == [], algorithm
    # A backward pass through layers sums the gradient of each where it arrives.
    assert sent(mesh, residual, pxl.EPC(2))[0] in ([], ["all-reduce f32[16,16]"])
    for make in (linear, residual):
        assert sent(mesh, make, pxl.PC(3, tolerance=1e-3))[0] == ["all-reduce f32[]"]
    assert sent(mesh, linear, pxl.IPC(2))[0] != []  # its weights move in every step


def algorithms(axes: str) -> None:
    mesh = make_mesh(axes, data=8)
    for algorithm in ALGORITHMS:
        for make in (linear, dropout) if isinstance(algorithm, pxl.ZIL) else (linear, dropout, stack):
            check(mesh, replicated(mesh), make, algorithm)
    for make in (linear, stack):
        check(mesh, replicated(mesh), make, pxl.PC(2), lambda: pxu.Optim(pxl.langevin(0.1, momentum=0.5)))


def layers(axes: str) -> None:
    mesh = make_mesh(axes, data=8)
    for make in (*DENSE, transposed, *CONVOLUTIONS):
        check(mesh, replicated(mesh), make, pxl.PC(2))
    check(mesh, replicated(mesh), batch_norm, pxl.Backprop())


def model_parallel(axes: str) -> None:
    for sizes in ({"data": 4, "model": 2}, {"data": 2, "model": 4}, {"model": 8}):
        mesh = make_mesh(axes, **sizes)
        for make in DENSE:
            if "data" in sizes or make in (linear, residual):
                check(mesh, over_model(mesh, 1), make, pxl.PC(2))
                model = check(mesh, over_model(mesh, 0), make, pxl.PC(2))
                if make in (linear, residual):
                    check_memory(model, sizes["model"])
    mesh = make_mesh(axes, data=4, model=2)
    for algorithm in ALGORITHMS[1:]:
        check(mesh, over_model(mesh, 0), linear, algorithm)
    if axes == "Auto":
        for make in (transposed, *CONVOLUTIONS):
            check(mesh, over_model(mesh, 0), make, pxl.PC(2))


def check_advice(mesh: Mesh, make: Make, place: Place, place_weight: Place, place_y: Place) -> None:
    model, (x, y) = make(), batch_for(make)
    for param in weights_of(model):
        param.set(place_weight(param))
    weights = pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
    try:
        pxl.PC(2)(place(x), place_y(y), model=model, nodes=sgd(), weights=weights)
    except Exception as error:
        notes = [note for note in getattr(error, "__notes__", []) if "AxisType.Auto" in note]
        assert len(notes) == 1, (error, notes)
    else:
        raise AssertionError(make)


def transforms(axes: str) -> None:
    """Keys of `vmap` outside of `jit`, for any axis of lanes; loops and branches; and the parts of a step, by hand."""
    mesh = make_mesh(axes, data=4, model=2)
    x = jnp.arange(64.0).reshape(8, 8) / 64

    def lanes(place: Callable[..., Array], axis: int, *spec: str | None) -> list[Any]:
        px.RKG.seed(0)
        state = px.Param(place(x, *spec))

        @pxf.vmap({"state": axis}, in_axes=axis, out_axes=axis)
        def noisy(a: Array, *, state: px.Param) -> Array:
            state += a
            return a * jax.random.normal(px.RKG(), a.shape)

        return [noisy(place(x, *spec), state=state), state.get(), px.RKG.key.get()]

    def loops(place: Callable[..., Array]) -> list[Any]:
        px.RKG.seed(0)
        state = px.Param(place(x, "data"))

        def grow(t: Array, total: Array, *, state: px.Param) -> tuple[Array, Array]:
            state *= 1.5
            noise = jax.random.normal(px.RKG(), state.shape)
            return total + t * state.get(), (state.get() * noise).sum()

        def double(n: Array, *, state: px.Param) -> Array:
            state *= 2.0
            return n + 1

        (total,), sums = pxf.scan(grow, jnp.arange(3.0))(place(x, "data"), state=state)
        (count,) = pxf.while_loop(double, lambda n, *, state: state.get().sum() < 1000)(jnp.array(0), state=state)
        chosen = pxf.cond(lambda *, state: state.get(), lambda *, state: -state.get())(count > 1, state=state)
        return [total, sums, count, chosen, state.get(), px.RKG.key.get()]

    def parts(place: Callable[..., Array]) -> list[Any]:
        px.RKG.seed(0)
        model = residual()
        for param in weights_of(model):
            param.set(place(param.get()))
        x, y = (place(array, "data") for array in batch_for(residual))
        nodes, weights = sgd(), pxu.Optim(optax.sgd(0.1), pxl.WEIGHTS(model))
        predictions = pxl.initialise(x, y, model=model)
        inferred = pxl.infer(x, 3, tolerance=1e-4, model=model, optim=nodes)
        learned = pxl.learn(x, model=model, optim=weights)
        return [predictions, inferred, learned, pxl.energies(x, model=model), pxl.predict(x, model)]

    def on_mesh(array: Array, *spec: str | None) -> Array:
        return put(mesh, array, *spec)

    def alone(array: Array, *spec: str | None) -> Array:
        return array

    pairs = [
        (lanes(alone, axis), lanes(on_mesh, axis, *spec))
        for axis, spec in enumerate((("data", "model"), (None, "data")))
    ]
    for one, two in [*pairs, *((each(alone), each(on_mesh)) for each in (loops, parts))]:
        for expected, found in zip(one, two, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    if axes == "Explicit":
        data, whole = over_data(mesh), lambda param: param.get()
        check_advice(mesh, linear, data, replicated(mesh), lambda y: put(mesh, y))
        check_advice(mesh, residual, data, whole, data)
        check_advice(mesh, pooled, data, over_model(mesh, 0), data)


def in_shard_map(axes: str) -> None:
    """A step inside `jax.shard_map`, where each device has a batch of its own: the user sums the gradients."""
    if not hasattr(jax, "shard_map"):
        return
    mesh, (x, y) = make_mesh(axes, data=DEVICES), batch_for(linear)

    def start(*transforms: optax.GradientTransformation) -> tuple[pxl.Model, pxu.Optim]:
        px.RKG.seed(0)
        model = linear()
        return model, pxu.Optim(optax.chain(*transforms, optax.sgd(0.1)), pxl.WEIGHTS(model))

    def mean(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.lax.pmean(updates, "data"), state  # type: ignore[no-untyped-call]  # jax

    def step(model: Any, weights: pxu.Optim, x: Array, y: Array) -> tuple[Any, pxu.Optim, Array]:
        report = pxl.PC(2)(x, y, model=model, nodes=sgd(), weights=weights)
        return model, weights, report.predictions

    alone, weights = start()
    predictions = step(alone, weights, x, y)[2]
    on_mesh, weights = start(optax.GradientTransformation(lambda params: (), mean))
    whole, split = PartitionSpec(), PartitionSpec("data")  # type: ignore[no-untyped-call]  # jax
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(whole, whole, split, split), out_specs=(whole, whole, split), check_vma=False
    )
    on_mesh, _, found = jax.jit(mapped)(on_mesh, weights, put(mesh, x, "data"), put(mesh, y, "data"))
    np.testing.assert_allclose(found, predictions, rtol=1e-5, atol=1e-6)
    for one, two in zip(weights_of(alone), weights_of(on_mesh), strict=True):
        np.testing.assert_allclose(two.get(), one.get(), rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    suites = (quick, silence, algorithms, layers, model_parallel, transforms, in_shard_map)
    {suite.__name__: suite for suite in suites}[sys.argv[2]](sys.argv[1])

"""Identical layers in one module, whose parameters have a leading axis of layers.

Such a parameter is marked by an attribute, `stacked`, the number of layers. `each_layer` takes the values out of the
marked parameters, and puts those of one layer back in while a function is traced for it. So the function sees a module
of one layer, and is traced once for all of them. Everything else, such as a weight that is shared by all layers, is
common to them.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from operator import is_
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path

import minipcax.predictive_coding._stack_refusals as refusals
from minipcax.core import BaseModule, BaseParam, DynamicParam, RKGState, tree_extract, tree_ref, tree_unref
from minipcax.core.tree import is_dynamic, is_param, walk
from minipcax.functional import scan, vmap

AnyModule = TypeVar("AnyModule", bound=BaseModule)
Value = Any  # of a parameter: an array, a pytree of arrays, or None
Tracked = Any  # a module, or a dict of modules
Outcome = tuple[Any, dict[int, Value]]  # an output, and the values that were changed, by the number of their parameter
Layer = Callable[..., Outcome]  # of (values, *x, tracked=tracked), see `each_layer`
Way = Callable[[Layer, list[Value], tuple[Any, ...], Tracked], Outcome]


def mark(param: DynamicParam[Any], depth: int) -> None:
    """Notes that the value of a parameter has an axis of layers; as attributes do, it travels through transforms."""
    vars(param)["stacked"] = depth


def is_stacked(param: object) -> bool:
    """Whether the value of a parameter has an axis of layers."""
    return isinstance(param, DynamicParam) and "stacked" in vars(param)


def stacked_params(tree: object) -> tuple[DynamicParam[Any], ...]:
    """Returns the parameters with an axis of layers, each once."""
    return tree_extract(tree, filter_fn=is_stacked)


def at_once(layer: Layer, values: list[Value], x: tuple[Any, ...], tracked: Tracked) -> Outcome:
    """Calls all layers at once, with arguments that have an axis of layers; returns the outputs of all."""

    def lane(values: list[Value], *x: Any, tracked: Tracked) -> Outcome:
        common = tree_extract(tracked, filter_fn=_is_common)
        before = [jax.tree.flatten(param.get()) for param in common]
        output = layer(values, *x, tracked=tracked)
        for param, value in zip(common, before, strict=True):
            if not _same(value, param.get()):
                raise refusals.common_write(param, tracked)
        return output

    return vmap()(lane)(values, *x, tracked=tracked)


def _is_common(param: object) -> bool:
    return is_dynamic(param) and not is_stacked(param) and not isinstance(param, RKGState)


def one_by_one(layer: Layer, values: list[Value], x: tuple[Any, ...], tracked: Tracked) -> Outcome:
    """Like `at_once`, but one layer after the other."""

    def one(inputs: Any, /, *, tracked: Tracked) -> tuple[tuple[()], Outcome]:
        return (), layer(*inputs, tracked=tracked)

    outcome: Outcome = scan(one, (values, *x))(tracked=tracked)[1]
    return outcome


def chained(layer: Layer, values: list[Value], x: tuple[Any, ...], tracked: Tracked) -> Outcome:
    """Calls each layer with the output of the one before, the first with `x`; returns the last output."""
    depth = vars(stacked_params(tracked)[0])["stacked"]  # given, as all values may be None before the first pass
    # A GPU waits between the rounds of a loop longer than a small layer takes; a CPU only compiles longer rounds.
    unroll = 1 if jax.default_backend() == "cpu" else 8
    (output,), changes = scan(layer, values, depth, unroll=unroll)(*x, tracked=tracked)
    return output, changes


def each_layer(way: Way, fn: Callable[..., Any], tracked: Tracked, *x: Any) -> Any:
    """Calls `fn(*x, tracked=tracked)` for every layer, with the values of that layer in the parameters of `tracked`.

    Args:
        way: `at_once`, `one_by_one` or `chained`.
        fn: what to call. It may change the parameters.
        tracked: holds parameters with an axis of layers.
        x: the other arguments.
    """
    params = stacked_params(tracked)
    values = [param.get() for param in params]
    refusals.check_layers(params, tracked)

    def layer(values: list[Value], *x: Any, tracked: Tracked) -> Outcome:
        own = stacked_params(tracked)
        for param, value in zip(own, values, strict=True):
            param.set(value)
        before = [*map(jax.tree.flatten, values)]
        output = fn(*x, tracked=tracked)
        after = [param.get() for param in own]
        for param in own:
            param.set(None)
        return output, {number: value for number, value in enumerate(after) if not _same(before[number], value)}

    for param in params:
        param.set(None)
    try:
        output, changes = way(layer, values, x, tracked)
    finally:
        for param, value in zip(params, values, strict=True):
            param.set(value)
    for number, value in changes.items():
        params[number].set(value)
    return output


def _same(before: tuple[list[Any], Any], value: Value) -> bool:
    arrays, structure = jax.tree.flatten(value)
    return bool(structure == before[1]) and all(map(is_, before[0], arrays))


def stack(blocks: Sequence[AnyModule], tied: bool) -> AnyModule:
    """Moves the values of all blocks into one. A parameter that they share it shares with them.

    Raises:
        ValueError: the blocks differ in more than the values of their parameters.
    """
    flat = [tree_flatten_with_path(tree_ref(block), is_leaf=is_param) for block in blocks]
    refusals.check_alike(blocks, flat)
    nodes = [*zip(*([node for _, node in leaves] for leaves, _ in flat), strict=True)]
    structure: Any = flat[0][1]  # JAX does not name the type of its treedefs
    own = [
        not tied and isinstance(each[0], DynamicParam) and (len(each) == 1 or each[0] is not each[1]) for each in nodes
    ]
    leaves = [_together(each) if is_own else each[0] for each, is_own in zip(nodes, own, strict=True)]
    together: AnyModule = tree_unref(structure.unflatten(leaves))
    for param in (param for each, is_own in zip(nodes, own, strict=True) if is_own for param in each):
        param.set(None)  # whoever still holds it would otherwise believe that it is shared
    return together


def _together(params: tuple[Any, ...]) -> Any:
    value = jax.tree.map(lambda *values: jnp.stack(values), *(param.get() for param in params))
    param = type(params[0]).from_structure(params[0].structure(), (value,))
    mark(param, len(params))
    return param


def layers_of(block: AnyModule, numbers: Iterable[int]) -> list[AnyModule]:
    """Returns copies of some of the blocks that were stacked, which share what all layers share.

    Random key generators are not copied.
    """
    common: dict[int, Any] = {}

    def copied(param: DynamicParam[Any], value: Value) -> DynamicParam[Any]:
        return type(param).from_structure(param.structure(), (value,))

    def own(number: int, param: Any) -> Any:
        if isinstance(param, RKGState):
            return param
        if not isinstance(param, DynamicParam):
            return copy.copy(param)
        if not is_stacked(param):
            return common.setdefault(id(param), copied(param, param.get()))
        single = copied(param, jax.tree.map(lambda array: array[number], param.get()))
        for name in ("stacked", "frozen_layers"):
            vars(single).pop(name, None)
        return single

    return [tree_unref(jax.tree.map(partial(own, number), tree_ref(block), is_leaf=is_param)) for number in numbers]


def read_only(module: AnyModule) -> AnyModule:
    """Makes a module, and all below it, refuse changes; returns it."""
    for _, node in [*walk(module)]:
        if isinstance(node, BaseModule | BaseParam) and not isinstance(node, RKGState):
            vars(node).update({name: tuple(value) for name, value in vars(node).items() if isinstance(value, list)})
            cls: Any = type(node)
            object.__setattr__(node, "__class__", _read_only_class(cls))
    return module


def _refuse(module: object, *_: object) -> None:
    raise refusals.read_only(module)


class _ReadOnly:
    __slots__ = ()
    __setattr__ = __delattr__ = __setitem__ = _refuse


@cache
def _read_only_class(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (_ReadOnly, cls), {"__slots__": ()})

"""Layers of one form in one module, whose parameters have a leading axis of layers.

Such a parameter is marked by an attribute, `stacked`, the number of layers. `each_layer` takes the values out of the
marked parameters, and puts those of one layer back in while a function is traced for it. So the function sees a module
of one layer, and is traced once for all of them. Whatever is not marked, such as a weight that layers share, they have
in common.
"""

from collections.abc import Callable, Sequence
from functools import cache
from operator import is_
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path

import minipcax.predictive_coding._stack_refusals as refusals
from minipcax.core import BaseModule, DynamicParam, tree_extract, tree_ref, tree_unref
from minipcax.core.tree import is_dynamic, is_param, walk
from minipcax.functional import scan, vmap

AnyModule = TypeVar("AnyModule", bound=BaseModule)
Value = Any  # of a parameter: an array, a pytree of arrays, or None


def mark(param: DynamicParam[Any], depth: int) -> None:
    """Notes that the value of a parameter has an axis of layers; as attributes do, it travels through transforms."""
    vars(param)["stacked"] = depth


def stacked_params(tree: object) -> tuple[DynamicParam[Any], ...]:
    """Returns the parameters with an axis of layers, each once."""
    return tree_extract(tree, filter_fn=lambda param: is_dynamic(param) and "stacked" in vars(param))


Layer = Callable[..., tuple[Any, dict[int, Value]]]  # of (values, *x, module=module), as in `each_layer`
Way = Callable[[Layer, list[Value], tuple[Any, ...], BaseModule], tuple[Any, dict[int, Value]]]


def at_once(layer: Layer, values: list[Value], x: tuple[Any, ...], module: BaseModule) -> Any:
    """Calls all layers at once, with arguments that have an axis of layers; returns the outputs of all."""
    return vmap()(layer)(values, *x, module=module)


def in_turn(layer: Layer, values: list[Value], x: tuple[Any, ...], module: BaseModule) -> Any:
    """Like `at_once`, but one layer at a time."""

    def one(inputs: Any, /, *, module: BaseModule) -> tuple[tuple[()], Any]:
        return (), layer(*inputs, module=module)

    return scan(one, (values, *x))(module=module)[1]


def in_order(layer: Layer, values: list[Value], x: tuple[Any, ...], module: BaseModule) -> Any:
    """Calls the first layer with `x`, and each other with the output of the one before; returns that of the last."""
    depth = vars(stacked_params(module)[0])["stacked"]
    (output,), changes = scan(layer, values, depth)(*x, module=module)
    return output, changes


def each_layer(way: Way, fn: Callable[..., Any], module: BaseModule, *x: Any) -> Any:
    """Calls `fn(*x, module=module)` for every layer, with the values of that layer in the parameters of the module.

    Args:
        way: `at_once`, `in_turn` or `in_order`.
        fn: what to call. It may change the parameters.
        module: holds parameters with an axis of layers.
        x: the arguments.
    """
    params = stacked_params(module)
    values = [param.get() for param in params]
    refusals.check_layers(params, module)

    def layer(values: list[Value], *x: Any, module: BaseModule) -> tuple[Any, dict[int, Value]]:
        own = stacked_params(module)
        for param, value in zip(own, values, strict=True):
            param.set(value)
        before = [*map(jax.tree.flatten, values)]
        output = fn(*x, module=module)
        after = [param.get() for param in own]
        for param in own:
            param.set(None)
        return output, {number: value for number, value in enumerate(after) if not _same(before[number], value)}

    for param in params:
        param.set(None)
    try:
        output, changes = way(layer, values, x, module)
    finally:
        for param, value in zip(params, values, strict=True):
            param.set(value)
    for number, value in changes.items():
        params[number].set(value)
    return output


def _same(before: tuple[list[Any], Any], value: Value) -> bool:
    arrays, structure = jax.tree.flatten(value)
    return bool(structure == before[1]) and all(map(is_, before[0], arrays))


def stack(blocks: Sequence[AnyModule]) -> AnyModule:
    """Returns one block with the values of all. A parameter that they share it shares with them.

    Raises:
        ValueError: the blocks differ in more than the values of their parameters.
    """
    flat = [tree_flatten_with_path(tree_ref(block), is_leaf=is_param) for block in blocks]
    refusals.check_alike(blocks, flat)
    nodes = zip(*([node for _, node in leaves] for leaves, _ in flat), strict=True)
    structure: Any = flat[0][1]  # JAX does not name the type of its treedefs
    together: AnyModule = tree_unref(structure.unflatten([_together(each) for each in nodes]))
    return together


def _together(params: tuple[Any, ...]) -> Any:
    first = params[0]
    if not isinstance(first, DynamicParam) or all(param is first for param in params):
        return first
    value = jax.tree.map(lambda *values: jnp.stack(values), *(param.get() for param in params))
    param = type(first).from_structure(first.structure(), (value,))
    mark(param, len(params))
    return param


def layer_of(block: AnyModule, number: int) -> AnyModule:
    """Returns one of the blocks that were stacked: a copy, which refuses all changes."""

    def own(param: Any) -> Any:
        if not isinstance(param, DynamicParam):
            return param
        value, marked = param.get(), "stacked" in vars(param)
        value = jax.tree.map(lambda array: array[number], value) if marked else value
        copy = type(param).from_structure(param.structure(), (value,))
        vars(copy).pop("stacked", None)
        return copy

    copy: AnyModule = tree_unref(jax.tree.map(own, tree_ref(block), is_leaf=is_param))
    for _, node in walk(copy):
        if isinstance(node, BaseModule | DynamicParam):
            cls: Any = type(node)
            object.__setattr__(node, "__class__", _read_only(cls))
    return copy


class _ReadOnly:
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise refusals.read_only(self, name)


@cache
def _read_only(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (_ReadOnly, cls), {"__slots__": ()})

"""Errors about stacks of layers."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from minipcax.core import BaseModule, BaseParam, DynamicParam, RKGState
from minipcax.core.refusals import kind_of
from minipcax.core.tree import path_name, walk
from minipcax.predictive_coding._energy_module import EnergyModule

Flat = tuple[list[tuple[Any, Any]], Any]  # the leaves of a block with their paths, and its structure
USE_A_LIST = "all layers of a Stack are one program; use a list of layers and nodes instead"


def check_depth(depth: object) -> None:
    """Raises unless the depth of a stack is a positive int."""
    if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)) or depth < 1:
        raise ValueError(f"Stack expected depth to be a positive int, the number of layers, found {depth!r}")


def check_make(make: object) -> None:
    """Raises unless blocks can be made."""
    if isinstance(make, BaseModule) or not callable(make):
        raise _not_blocks(kind_of(make))


def check_blocks(blocks: Iterable[object]) -> None:
    """Raises unless these are modules that can be called, without value nodes of their own."""
    for block in blocks:
        if not isinstance(block, BaseModule) or not callable(block):
            raise _not_blocks(f"one that makes {kind_of(block)}")
        for path, node in walk(block):
            if isinstance(node, EnergyModule):
                raise ValueError(
                    f"Stack puts a value node after each block, found one in the block, at "
                    f"{path_name(path) or 'its root'}: {USE_A_LIST}"
                )


def _not_blocks(found: str) -> TypeError:
    return TypeError(
        f"Stack expected a function that makes a block, a module that can be called, found {found}: "
        "Stack(lambda: Linear(64, 64), depth=8)"
    )


def check_alike(blocks: Sequence[BaseModule], flat: Sequence[Flat]) -> None:
    """Raises if blocks differ in more than the values of their parameters."""
    for number, (leaves, structure) in enumerate(flat):
        if structure != flat[0][1]:
            places = zip(walk(blocks[0]), walk(blocks[number]), strict=False)
            different = [(path, one, other) for (path, one), (_, other) in places if _level(one) != _level(other)]
            raise _unlike(number, *(different[0] if different else ((), blocks[0], blocks[number])))
        for (path, one), (_, other) in zip(flat[0][0], leaves, strict=True):
            if one is not other and isinstance(one, RKGState):
                raise ValueError(
                    f"Stack expected blocks that draw from one generator, found one of its own in {path_name(path)}: "
                    "draw from RKG, which gives each layer another key, or make one generator for all blocks"
                )
            if one is not other and (isinstance(one, Tracer) or _form(one) != _form(other)):
                raise _unlike(number, path, one, other)
    positions: dict[int, str] = {}
    for leaves, _ in flat:
        for path, node in leaves:
            name = path_name(path)
            if isinstance(node, DynamicParam) and positions.setdefault(id(node), name) != name:
                raise ValueError(
                    f"Stack expected blocks that share a parameter in the same place, found one that is "
                    f"{positions[id(node)]} of one block and {name} of another: {USE_A_LIST}"
                )
    for same in zip(*(leaves for leaves, _ in flat), strict=True):
        path, first = same[0]
        params = {id(param) for _, param in same}
        if isinstance(first, DynamicParam) and len(params) not in (1, len(flat)):
            raise ValueError(
                f"Stack expected blocks that all share {path_name(path)}, or that each have their own, found "
                f"{len(params)} parameters in {len(flat)} blocks: {USE_A_LIST}"
            )


def _level(node: Any) -> object:
    return (
        type(node) if isinstance(node, BaseParam) else jax.tree.structure(node, is_leaf=lambda each: each is not node)
    )


def _form(node: Any) -> object:
    if isinstance(node, DynamicParam):
        leaves, structure = jax.tree.flatten(node)
        return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    if isinstance(node, BaseParam):
        return jax.tree.structure(node)
    return np.asarray(node).dtype, np.shape(node), np.asarray(node).tobytes()  # a nan is like another


def _unlike(number: int, path: tuple[Any, ...], one: object, other: object) -> ValueError:
    return ValueError(
        f"Stack expected blocks that differ only in the values of their parameters, found a difference between blocks "
        f"0 and {number} at {path_name(path) or 'their root'}, {_shown(one)} and {_shown(other)}: {USE_A_LIST}; a "
        "function is the same only if it is defined once, outside of what makes the blocks"
    )


def _shown(node: object) -> str:
    if not isinstance(node, BaseModule):
        return repr(node)
    static = ", ".join(f"{name}={vars(node)[name]!r}" for name in node._static_names if name in vars(node))
    return kind_of(node) + (f" with {static}" if static else "")


def check_layers(params: Iterable[DynamicParam[Any]], module: object) -> None:
    """Raises if a value does not have the axis of layers that its parameter should have."""
    for param in params:
        depth = vars(param)["stacked"]
        for array in jax.tree.leaves(param.get()):
            if jnp.shape(array)[:1] != (depth,):
                path = next(path_name(path) for path, node in walk(module) if node is param)
                raise ValueError(
                    f"{path} of a Stack expected a value with a leading axis of {depth} layers, found shape "
                    f"{jnp.shape(array)}: give every layer its part, jnp.stack([...])"
                )


def check_states_kept(before: object, after: object) -> None:
    """Raises if a layer that was called together with the others has changed its state."""
    if after is not before:
        raise ValueError(
            "the layers of a Stack are called all at once unless a rule such as 'h <- u:tform' says that the state "
            "follows from the prediction; found a transformation that sets h without such a rule: write one"
        )


def check_output(x: Array, output: object) -> None:
    """Raises if a block changes the shape or dtype of its input."""
    if not isinstance(output, Array) or _form_of(output) != _form_of(x):
        found = _form_of(output) if isinstance(output, Array) else kind_of(output)
        raise ValueError(
            "Stack expected a block that keeps the shape and dtype of its input, found an input of "
            f"{_form_of(x)} and an output of {found}: put layers that change them before or after the stack"
        )


def check_states(x: Array, h: Array | None, axes: int = 0) -> None:
    """Raises unless there are states of the form of the input, after so many axes of layers."""
    if h is None:
        raise ValueError(
            "the layers of a Stack have no states yet: call it under step(model, STATUS.INIT), or initialise the "
            "nodes, first"
        )
    if _form_of(h, axes) != _form_of(x):
        raise ValueError(
            f"Stack expected an input of the form of its states, {_form_of(h, axes)}, found {_form_of(x)}: states, and "
            "targets, have the form of the input"
        )


def _form_of(array: Array, axes: int = 0) -> str:
    return f"{array.dtype}{[*array.shape[axes:]]}"


def check_marks(paths: Iterable[str], depth: int, stack: BaseModule) -> None:
    """Raises if a parameter with an axis of layers was replaced by one that does not say so."""
    for path, node in walk(stack):
        if path_name(path) in paths and isinstance(node, DynamicParam) and vars(node).get("stacked") != depth:
            raise ValueError(
                f"{path_name(path)} of a Stack was replaced by a parameter without its axis of {depth} layers: change "
                f"its value instead, with .set(...), or assign the parameter of another Stack of {depth} layers"
            )


def common_write(param: DynamicParam[Any], tracked: object) -> ValueError:
    """The error for a parameter that layers share, and that one of them changes while all are called at once."""
    path = next(path_name(path) for path, node in walk(tracked) if node is param)
    return ValueError(
        f"{path} of a Stack is shared by its layers, which are called at once, and cannot be changed by them: give "
        "each layer its own, or call the layers one at a time, Stack(..., parallel=False)"
    )


def checked_number(number: Any, depth: int) -> int:
    """Returns the number of a layer, counted from the first; raises if there is no such layer."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise TypeError(
            f"a Stack expected the number of one layer, found {number!r}: for several, stack.to_list()[...]"
        )
    if not -depth <= number < depth:
        raise IndexError(f"a Stack of {depth} layers has no layer {number}: they are numbered from 0 to {depth - 1}")
    return int(number) % depth


def checked_layers(layers: Any, depth: int, params: Sequence[object]) -> tuple[int, ...]:
    """Returns the numbers of layers in order; raises if they cannot be frozen alone."""
    if not isinstance(layers, Iterable):
        raise TypeError(f"freeze_only expected the numbers of layers, such as [0] or range(4), found {layers!r}")
    if not params:
        raise ValueError(
            "the layers of this Stack have all parameters in common, and cannot be frozen one by one: freeze them all "
            "with stack.blocks.frozen = True"
        )
    return tuple(sorted({checked_number(number, depth) for number in layers}))


def read_only(owner: object) -> AttributeError:
    """The error for a change of a layer, or of what it holds."""
    return AttributeError(
        f"cannot change {kind_of(owner)} that stack[i] shows, which is a copy for looking, nor train it or put it into "
        "a model: change the parameters of stack.blocks, whose first axis is that of layers, param.set(param.at[i]."
        "set(value)), freeze layers with stack.freeze_only([i]), or take blocks of your own, stack.to_list()"
    )

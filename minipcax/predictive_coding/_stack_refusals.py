"""Errors about stacks of layers."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from minipcax.core import BaseModule, BaseParam, DynamicParam, RKGState
from minipcax.core.refusals import kind_of
from minipcax.core.tree import path_name, walk

Flat = tuple[list[tuple[Any, Any]], Any]  # the leaves of a block with their paths, and its structure
USE_A_LIST = "all layers of a Stack are one program; use a list of layers and nodes instead"


def check_depth(depth: object) -> None:
    """Raises unless the depth of a stack is a positive int."""
    if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)) or depth < 1:
        raise ValueError(f"Stack expected depth to be a positive int, found {depth!r}")


def check_make(make: object) -> None:
    """Raises unless blocks can be made."""
    if isinstance(make, BaseModule) or not callable(make):
        raise _not_blocks(f"{kind_of(make)}")


def check_blocks(blocks: Iterable[object], has_energy: type) -> None:
    """Raises unless these are modules that can be called, without value nodes of their own."""
    for block in blocks:
        if not isinstance(block, BaseModule) or not callable(block):
            raise _not_blocks(f"one that makes {kind_of(block)}")
        for path, node in walk(block):
            if isinstance(node, has_energy):
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
            if one is not other and _form(one) != _form(other):
                raise _unlike(number, path, one, other)
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
    return jax.tree.structure(node) if isinstance(node, BaseParam) else np.asarray(node).tolist()


def _unlike(number: int, path: tuple[Any, ...], one: object, other: object) -> ValueError:
    return ValueError(
        f"Stack expected blocks that differ only in the values of their parameters, found a difference between blocks "
        f"0 and {number} at {path_name(path) or 'their root'}, {_shown(one)} and {_shown(other)}: {USE_A_LIST}"
    )


def _shown(node: object) -> str:
    if not isinstance(node, BaseModule):
        return repr(node)
    static = ", ".join(f"{name}={vars(node)[name]!r}" for name in node._static_names if name in vars(node))
    return kind_of(node) + (f" with {static}" if static else "")


def check_layers(params: Iterable[DynamicParam[Any]], module: BaseModule) -> None:
    """Raises if a value does not have the axis of layers that its parameter should have."""
    for param in params:
        depth = vars(param)["stacked"]
        for array in jax.tree.leaves(param.get()):
            if jnp.shape(array)[:1] != (depth,):
                path = next(path_name(path) for path, node in walk(module) if node is param)
                raise ValueError(
                    f"{path} of a Stack expected a value with a leading axis of {depth} layers, found shape "
                    f"{jnp.shape(array)}"
                )


def check_states_of_layers(x: Array, h: Array | None) -> None:
    """Raises unless the layers have states, of the form of the input."""
    if h is None:
        raise ValueError(
            "the layers of a Stack have no states yet: call it under step(model, STATUS.INIT), or initialise "
            "the nodes, first"
        )
    if (x.shape, x.dtype) != (h.shape[1:], h.dtype):
        raise ValueError(
            f"Stack expected an input of the form of its states, {h.dtype}{[*h.shape[1:]]}, found {x.dtype}{[*x.shape]}"
        )


def check_states_kept(before: object, after: object) -> None:
    """Raises if a layer that was called together with the others has changed its state."""
    if after is not before:
        raise ValueError(
            "the layers of a Stack are called all at once unless a rule such as 'h <- u:tform' says that the state "
            "follows from the prediction; found a transformation that sets h without such a rule: write one"
        )


def check_keeps_form(x: Array, u: object) -> None:
    """Raises if a block changes the shape or dtype of its input."""
    forms = [f"{jnp.result_type(each)}{[*jnp.shape(each)]}" for each in (x, u)] if isinstance(u, Array) else None
    if forms is None or forms[0] != forms[1]:
        found = f"an input of {forms[0]} and an output of {forms[1]}" if forms else f"an output of {kind_of(u)}"
        raise ValueError(
            f"Stack expected a block that keeps the shape and dtype of its input, found {found}: put layers that "
            "change them before or after the stack"
        )


def checked_number(number: int, depth: int) -> int:
    """Returns the number of a layer, counted from the first; raises if there is no such layer."""
    if not -depth <= index(number) < depth:
        raise IndexError(f"a Stack of {depth} layers has no layer {number}")
    return range(depth)[number]


def checked_layers(layers: Iterable[int], depth: int, params: Sequence[object]) -> tuple[int, ...]:
    """Returns the numbers of layers in order; raises if they cannot be frozen alone."""
    if not params:
        raise ValueError(
            "the layers of this Stack have all parameters in common, and cannot be frozen one by one: freeze them all "
            "with stack.blocks.frozen = True"
        )
    return tuple(sorted({checked_number(number, depth) for number in layers}))


def read_only(owner: object, name: str) -> AttributeError:
    """The error for a change of a copy."""
    return AttributeError(
        f"cannot set {name} of {kind_of(owner)} that a Stack shows: stack[i] is a copy of one layer, for looking; "
        "change the parameters of stack.blocks, whose first axis is that of layers param.set(param.at[i].set(value)), "
        "or freeze layers with stack.freeze([i])"
    )

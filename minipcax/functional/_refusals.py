"""Errors raised by transforms."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from minipcax.core import BaseModule
from minipcax.core.refusals import kind_of, path_to_param
from minipcax.core.tree import is_dynamic, path_name, walk
from minipcax.functional._types import ARRAY_TYPES, Axes, Keywords, Value

Name = Callable[[], str]  # for messages: a path is looked up only if there is one


def keyword_path(path: tuple[Any, ...]) -> str:
    """A path into the keyword arguments as people write it: `model.layers[0].nn.weight`."""
    return f"{path[0].key}{path_name(path[1:])}"


def path_of(target: object, keywords: Keywords) -> str:
    """Where something is in the keyword arguments, or, as the key that every call carries, outside of them."""
    return next((keyword_path(path) for path, node in walk(keywords) if path and node is target), "RKG.key")


# The tracked arguments, before a call and after it


def reached_twice(module: BaseModule, keywords: Keywords) -> ValueError:
    """For a module that two paths lead to."""
    first, second = islice((path for path, node in walk(keywords) if node is module), 2)
    return ValueError(
        f"{type(module).__name__} is reached by two paths, {keyword_path(first)} and {keyword_path(second)}, and "
        "copying a model would silently split it in two; to use the same parameters twice, put nn.shared(module) in "
        "one of the places"
    )


def not_carried(node: object, keywords: Keywords) -> TypeError:
    """For an attribute that is not a pytree, nor an array."""
    advice = "wrap it in static(...)" if path_to_param(node) is None else "make its class a Module"
    return TypeError(
        f"{path_of(node, keywords)} is {kind_of(node)}, which JAX cannot carry: expected a parameter, a "
        f"module, an array or a container of these; {advice}"
    )


def check_structure(original: Keywords, present: Keywords) -> None:
    """Raises if a function added, removed or replaced a parameter or a bare array."""

    def by_path(keywords: Keywords) -> dict[str, Any]:
        nodes = ((path, node) for path, node in walk(keywords) if is_dynamic(node) or isinstance(node, ARRAY_TYPES))
        return {keyword_path(path): node for path, node in nodes}

    before, after = by_path(original), by_path(present)
    for path in before | after:
        old, new = before.get(path), after.get(path)
        if old is new:
            continue
        if isinstance(new, ARRAY_TYPES) and not is_dynamic(old):
            raise TypeError(
                f"{path} was assigned a bare array inside a transform, where it would be lost: bare arrays are "
                "read-only inputs; make it a Param before the call, and use .set"
            )
        done = "created" if old is None else "removed" if new is None else "replaced"
        raise ValueError(
            f"the parameter {path} was {done} inside a transform (found {new!r}, expected {old!r}): a transform "
            "may change the values of parameters, not the set of parameters; do this outside, and use .set inside"
        )


def check_arrays(arrays: Sequence[Any], value: Value, leaf: object, keywords: Keywords) -> None:
    """Raises if a parameter was set to something that JAX cannot return."""
    if not all(isinstance(array, ARRAY_TYPES) for array in arrays):
        raise TypeError(
            f"the parameter {path_of(leaf, keywords)} was set to {value!r} inside a transform: expected an array, a "
            "number, or a container of these; wrap anything else in static(...)"
        )


def check_usable(inputs: Sequence[tuple[str, Any]], error: Exception) -> None:
    """Raises if one of the inputs, given by name, is why a compiled call failed."""
    for name, value in inputs:
        for leaf in jax.tree.leaves(value):
            if not isinstance(leaf, ARRAY_TYPES):
                raise TypeError(
                    f"{name} is or holds {kind_of(leaf)}, which JAX cannot carry: expected arrays or numbers; "
                    "wrap anything else in static(...), or name a positional argument in static_argnums"
                ) from error
            if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted():
                raise RuntimeError(
                    f"{name} holds an array that was donated to an earlier call, so its memory is used again: use what "
                    "that call returned or wrote, or do not donate it"
                ) from error


def check_static(name: str, value: object) -> None:
    """Raises if a static argument of `jit` is an array, or holds a parameter."""
    where = path_to_param(value, closures=False)
    if where is not None or isinstance(value, (jax.Array, np.ndarray)):
        found = f"{kind_of(value)} that holds a parameter at {where}" if where else kind_of(value)
        raise (ValueError if where is None else TypeError)(  # as `jax.jit` does for arrays
            f"{name} is a static argument of jit, found {found}, which would keep its value of the first call: leave "
            "it out of static_argnums and static_argnames"
        )


def bound_by_position(function: str) -> TypeError:
    """For a partial function whose positional arguments hold parameters."""
    return TypeError(
        f"{function} is bound to parameters by position, where their values would be taken once and for all: bind them "
        "by keyword, which is tracked, or pass them in the call"
    )


# Masks


def check_keywords(names: Sequence[str], keywords: Keywords) -> None:
    """Raises if a mask names a keyword that is not passed."""
    for name in names:
        if name not in keywords:
            raise ValueError(f"the mask names the keyword {name!r}, expected one of {sorted(keywords)}")


def check_answer_by_keyword(answer: object, keywords: Keywords) -> None:
    """Raises if a mask of all keywords does not answer for each of them."""
    if not (isinstance(answer, Mapping) and answer.keys() == keywords.keys()):
        raise ValueError(
            f"expected the mask to give a dict with the keywords {sorted(keywords)}, as it is given, found {answer!r}"
        )


def mask_does_not_fit(keyword: str, answer: object) -> ValueError:
    """For a mask whose answer is a tree of another structure."""
    return ValueError(
        f"the mask for the keyword {keyword!r} does not fit it: expected a tree of the same structure, with one answer "
        f"in the place of each parameter, found {answer!r}"
    )


def two_answers(transform: str, first: object, second: object, param: object, keywords: Keywords) -> ValueError:
    """For a parameter that a mask treats in two ways, in two keywords or in two places of one."""
    paths = [keyword_path(path) for path, node in walk(keywords) if node is param]
    before, after = (True if answer is param else answer for answer in (first, second))  # M answers with the parameter
    return ValueError(
        f"the mask of {transform} gives {before!r} and {after!r} to one parameter, which is at {' and '.join(paths)}: "
        "give it the same answer in all of its places (None stands for a keyword that the mask leaves out), or pass it "
        "once"
    )


# Lanes of `vmap`


def check_is_axis(axis: object, what: str, name: Name, advice: str = "") -> None:
    """Raises if an axis is neither an int nor `None`."""
    if not (axis is None or (isinstance(axis, int) and not isinstance(axis, bool))):
        raise TypeError(f"{what} of vmap gives {axis!r} for {name()}: expected an axis (an int) or None{advice}")


def axes_do_not_fit(axes: Axes, name: Name) -> ValueError:
    """For axes that are not a tree of the same structure as what they are of."""
    return ValueError(
        f"in_axes of vmap does not fit {name()}: expected an axis, None, or a tree of them with the containers that "
        f"the argument has, found {axes!r}"
    )


def check_has_axis(axis: int, array: Value, name: Name) -> None:
    """Raises if an array does not have the axis over which it is mapped."""
    if not -np.ndim(array) <= axis < np.ndim(array):
        raise ValueError(f"vmap expected {name()} to have axis {axis}, but its shape is {np.shape(array)}")


def check_gets_axis(axis: int, array: Value, name: Name) -> None:
    """Raises if the value that each lane writes cannot be stacked along an axis."""
    if not -np.ndim(array) - 1 <= axis <= np.ndim(array):
        raise ValueError(
            f"vmap expected {name()} to have axis {axis}, but the function writes a value of shape {np.shape(array)} "
            "into it in each lane"
        )


def check_lanes(lanes: Sequence[tuple[Name, Value, int]]) -> None:
    """Raises if nothing is mapped, or mapped axes differ in length."""
    if not lanes:
        raise ValueError(
            "vmap has nothing to map over: every argument has axis None and no parameter has an axis; give in_axes, "
            "or a kwargs_mask"
        )
    (first, array, axis), *others = lanes
    for name, other, other_axis in others:
        if np.shape(other)[other_axis] != np.shape(array)[axis]:
            raise ValueError(
                f"vmap's lane counts disagree: {np.shape(array)[axis]} in {first()} (axis {axis} of "
                f"{np.shape(array)}), {np.shape(other)[other_axis]} in {name()} (axis {other_axis} of "
                f"{np.shape(other)})"
            )


def two_axes(what: str, first: Axes, second: Axes, param: object) -> ValueError:
    """For a parameter in several places, which are mapped differently."""
    return ValueError(
        f"{what} of vmap gives the axes {first} and {second} to one parameter, {param!r}, which is in several places: "
        "give all of them the same axis, or copy one of the models (copy.deepcopy)"
    )


def differs_by_lane(path: str) -> ValueError:
    """For a parameter that all lanes share, and into which each writes another value."""
    return ValueError(
        f"{path} has axis None, so all lanes share it, but the function writes another value into it in each lane: "
        "give it an axis in the kwargs_mask, reduce over the lanes before writing, or clear it in the end, if it is a "
        "cache"
    )

"""Errors raised by the transforms that differentiate, which are named in their first words."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from minipcax.core.tree import is_param, path_name
from minipcax.functional._refusals import Name
from minipcax.functional._types import ARRAY_TYPES, Value


def nothing_to_differentiate(transform: str) -> TypeError:
    """For a transform that was given neither a mask nor `argnums`."""
    return TypeError(
        f"{transform} was not told what to differentiate: give argnums=0 for the first positional argument (the "
        "default of JAX), or a mask of the keyword arguments, such as {'model': M(LayerParam)}"
    )


def check_is_bool(answer: object, name: Name, transform: str) -> None:
    """Raises if a mask says anything but yes or no of a parameter; the parameter itself means yes."""
    if not (answer is None or isinstance(answer, bool) or is_param(answer)):
        raise TypeError(f"the mask of {transform} gives {answer!r} for {name()}: expected True, False or None")


def check_differentiable(value: Value, name: Name, transform: str) -> None:
    """Raises if a selected value has no derivatives."""
    for array in jax.tree.leaves(value):
        if not jnp.issubdtype(jnp.result_type(array), jnp.inexact):
            raise TypeError(
                f"the mask of {transform} selects {name()}, whose dtype is {jnp.result_type(array)}: only "
                "floating-point values have gradients; leave it out of the mask"
            )


def check_argnum(number: int, count: int, transform: str) -> None:
    """Raises if a positional argument to differentiate is not there."""
    if not -count <= number < count:
        raise ValueError(
            f"argnums of {transform} names the positional argument {number}, but the call has {count} of them"
        )


def lacks_aux(output: object, transform: str) -> TypeError:
    """For a function that, with `has_aux`, does not return a tuple."""
    return TypeError(f"with has_aux, {transform} expected the function to return value, *aux, found {output!r}")


def check_scalar(value: object, transform: str, advice: str = "") -> None:
    """Raises if the function to differentiate does not return a scalar."""
    if not isinstance(value, ARRAY_TYPES) or jnp.shape(value) != ():
        shape = f"an array of shape {jnp.shape(value)}" if isinstance(value, ARRAY_TYPES) else None
        raise TypeError(
            f"{transform} expected the function to return a scalar, found {shape or f'a {type(value).__name__}'}: sum "
            f"or average it{advice}; whatever else the function returns needs has_aux=True"
        )


def check_continuous(output: object, transform: str) -> None:
    """Raises if a function returns numbers that have no derivatives."""
    for path, array in jax.tree_util.tree_leaves_with_path(output):
        if not (isinstance(array, ARRAY_TYPES) and jnp.issubdtype(jnp.result_type(array), jnp.inexact)):
            kind = jnp.result_type(array) if isinstance(array, ARRAY_TYPES) else type(array).__name__
            raise TypeError(
                f"{transform} expected the function to return floating-point arrays, found {kind} at "
                f"output{path_name(path)}: return it behind them, with has_aux=True"
            )


# Tangents and cotangents


def lacks_tangents(transform: str) -> TypeError:
    """For a call without any argument."""
    return TypeError(f"{transform} expected the tangents as its first argument, found no arguments")


def check_form(derivatives: object, argnums: int | tuple[int, ...]) -> None:
    """Raises if tangents are not of the structure that `grad` returns."""
    tracked, positional = derivatives, None
    if argnums != ():
        if not (isinstance(derivatives, (tuple, list)) and len(derivatives) == 2):
            raise _not_a_form("a pair of positional and tracked tangents", derivatives)
        positional, tracked = derivatives
    count = len(argnums) if isinstance(argnums, tuple) else 0
    if count and not (isinstance(positional, (tuple, list)) and len(positional) == count):
        raise _not_a_form(f"tangents for {count} positional arguments", positional)
    if not isinstance(tracked, Mapping):
        raise _not_a_form("a dict of tangents by keyword", tracked)


def _not_a_form(expected: str, found: object) -> TypeError:
    return TypeError(f"jvp expected {expected}, as grad returns gradients, found {found!r}")


def check_fits(types: Sequence[tuple[str, Any]], found: Sequence[tuple[str, Any]], what: str) -> None:
    """Raises if arrays are not there, or not of the expected types."""
    for name in dict(found).keys() - dict(types).keys():
        raise TypeError(f"{what}, found an entry at {name or 'the top'}, where nothing is differentiated")
    for name, kind in types:
        array = dict(found).get(name)
        if not isinstance(array, ARRAY_TYPES):
            raise TypeError(f"{what}, found {array!r} at {name or 'the top'}: expected {_words(kind)}")
        takes_on = isinstance(array, (int, float, complex)) and kind.shape == ()
        if not takes_on and (jnp.shape(array), jnp.result_type(array)) != (kind.shape, kind.dtype):
            raise TypeError(
                f"{what}, found {_words(jnp.asarray(array))} at {name or 'the top'}: expected {_words(kind)}"
            )


def _words(kind: Any) -> str:  # an array, or its type
    return f"{kind.dtype}{list(kind.shape)}"

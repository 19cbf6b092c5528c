"""`eval_shape`: what a function would return, without computing it."""

from collections.abc import Callable
from typing import Any

import jax

from minipcax.core import tree_unref
from minipcax.functional._base import P, Transform, named_after
from minipcax.functional._tracking import as_tree, collect, run
from minipcax.functional._types import Keywords, Value

Shapes = Any  # the structure of what the function returns, with a `jax.ShapeDtypeStruct` in the place of each array


class _EvalShape(Transform[P, Shapes]):
    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Shapes:
        tracked = collect(keywords)

        def pure(values: list[Value], *args: Any) -> Any:
            output, _, _ = run(self._call, tracked.skeleton, values, args)
            return output

        return tree_unref(jax.eval_shape(named_after(self.fn, pure), tracked.values(keywords), *as_tree(args)))


def eval_shape(fn: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Shapes:
    """Returns the shapes and dtypes of the result of a call: `jax.eval_shape`, with tracked keyword arguments.

    Nothing is computed, so nothing is written: parameters and the key of `RKG` are unchanged.

    Args:
        fn: the function.
        args: its positional arguments, in which a `jax.ShapeDtypeStruct` may stand for an array.
        kwargs: its tracked keyword arguments.

    Returns:
        The structure that the function returns, with a `jax.ShapeDtypeStruct` in the place of each array.

    Example:
        >>> def double(x: Array, *, calls: Param) -> Array:
        ...     calls += 1
        ...     return 2 * x
        >>> calls = Param(jnp.array(0))
        >>> eval_shape(double, jax.ShapeDtypeStruct((3, 2), jnp.float32), calls=calls).shape, int(calls)
        ((3, 2), 0)
    """
    return _EvalShape[P](fn)(*args, **kwargs)

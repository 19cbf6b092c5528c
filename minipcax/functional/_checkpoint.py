"""`checkpoint`: a function whose intermediate values are computed again for the backward pass, instead of being kept.

The random key is among the values that go in, so a draw is the same when it is repeated.
"""

from collections.abc import Callable
from typing import Any, overload

import jax

from minipcax.core import tree_unref
from minipcax.functional._base import P, R, Transform, named_after
from minipcax.functional._tracking import as_tree, collect, run, write_back
from minipcax.functional._types import Function, Keywords, Value

Policy = Callable[..., Any]  # one of `jax.checkpoint_policies`, which JAX does not type


class Checkpoint(Transform[P, R]):
    """The callable returned by `checkpoint`, with the signature of its function.

    Example:
        >>> checkpoint(jnp.sin)
        Checkpoint(fn=sin)
    """

    def __init__(self, fn: Callable[P, R], *, policy: Policy | None = None, prevent_cse: bool = True) -> None:
        super().__init__(fn)
        self._options: dict[str, Any] = {"policy": policy, "prevent_cse": prevent_cse}

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        tracked = collect(keywords)

        def pure(values: list[Value], *args: Any) -> tuple[Any, dict[int, Value]]:
            output, after, changed = run(self._call, tracked.skeleton, values, args)
            return output, {index: after[index] for index in changed}

        # A new function for each call, for JAX remembers what it traced, with all that is read from around it.
        checkpointed = jax.checkpoint(named_after(self.fn, pure), **self._options)
        output, changes = checkpointed(tracked.values(keywords), *as_tree(args))
        write_back(tracked.leaves, changes)
        return tree_unref(output)


@overload
def checkpoint(fn: Callable[P, R], /) -> Checkpoint[P, R]: ...
@overload
def checkpoint(
    fn: None = None, /, *, policy: Policy | None = None, prevent_cse: bool = True
) -> Callable[[Callable[P, R]], Checkpoint[P, R]]: ...
def checkpoint(fn: Function | None = None, /, **options: Any) -> Any:
    """Saves memory in a backward pass at the cost of time: `jax.checkpoint`, with tracked keyword arguments.

    When the function is differentiated, only its arguments and what it returns or writes are kept; everything in
    between is computed again, with the same random draws. Values and gradients are those of the function itself. Use it
    as a decorator, bare or with options, on the parts of a model, such as its blocks; value nodes and their entries are
    written, and so kept.

    Args:
        fn: the function.
        options: `policy`, one of `jax.checkpoint_policies`, which says what else to keep; and `prevent_cse`, which may
            be False inside `scan`, for a faster program. Both are as in `jax.checkpoint`.

    Example:
        >>> @grad({"w": True})
        ... @checkpoint
        ... def loss(x: Array, *, w: Param) -> Array:
        ...     return jnp.sin(w * x)
        >>> loss(jnp.array(2.0), w=Param(jnp.array(0.0)))["w"].item()  # x cos(w x)
        2.0
    """
    return Checkpoint(fn, **options) if fn is not None else lambda fn: Checkpoint(fn, **options)

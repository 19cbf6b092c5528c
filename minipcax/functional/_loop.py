"""`scan` and `while_loop`: loops inside compiled functions, over stateful models.

A loop carries the values of all parameters from one step to the next. JAX leaves out those that never change.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, TypeVar, TypeVarTuple, overload

import jax
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from minipcax.core import get, tree_ref, tree_unref
from minipcax.functional._base import P, R, Transform, describe, named_after
from minipcax.functional._flow import FlowTransform, check_form, check_output, types_of
from minipcax.functional._tracking import Tracked, collect, run, write_back
from minipcax.functional._types import Function, Keywords, Value

X = TypeVar("X")
Y = TypeVar("Y")
Carry = TypeVar("Carry")
Carries = TypeVarTuple("Carries")


def _tuple(carry: Any) -> tuple[Any, ...]:
    return carry if isinstance(carry, tuple) else (carry,)


class Scan(Transform[P, R]):
    """The callable returned by `scan`, which takes the initial carry and the tracked keywords.

    Example:
        >>> scan(lambda x, total: (total + x, None), jnp.arange(3))
        Scan(fn=<lambda>)
    """

    def __init__(
        self,
        fn: Function,
        xs: Any = None,  # a tree of arrays
        length: int | None = None,
        reverse: bool = False,
        unroll: int | bool = 1,
    ) -> None:
        super().__init__(fn)
        if not (length is None or isinstance(length, (int, np.integer))) or self._positions[:1] == ["carry"]:
            raise TypeError(
                "scan(f, xs)(*carry) calls f(x, *carry, **tracked): found the order of jax.lax.scan, where the carry "
                "comes first; swap x and carry in f, and give the carry in the call that follows"
            )
        self.xs, self.length, self.reverse, self.unroll = xs, length, reverse, unroll
        self._takes(skip=1)

    def _keywords(self, args: tuple[Any, ...], kwargs: Keywords) -> Keywords:
        return super()._keywords((None, *args), kwargs)  # a step is given x before the carry

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        tracked = collect(keywords)
        changed: set[int] = set()

        def body(state: tuple[tuple[Any, ...], list[Value]], x: Any) -> tuple[Any, Any]:
            carry, values = state
            output, after, changes = run(
                self._call, tracked.skeleton, values, tree_ref((tree_unref(x), *tree_unref(carry)))
            )
            output = tree_unref(output)
            if not (isinstance(output, (tuple, list)) and len(output) == 2):
                raise TypeError(f"scan expected the function to return (carry, y), found {output!r}")
            new_carry, y = map(tree_ref, output)
            new_carry = _tuple(new_carry)
            check_output(types_of(carry), types_of(new_carry), "the carry of scan changes its form from step to step")
            return (new_carry, _kept(tracked, keywords, values, after, changes, changed)), y

        (carry, after), ys = jax.lax.scan(
            named_after(self.fn, body),
            (tree_ref(args), tracked.values(keywords)),
            tree_ref(self.xs),
            self.length,
            self.reverse,
            self.unroll,
        )
        write_back(tracked.leaves, {index: after[index] for index in changed})
        return tree_unref(carry), tree_unref(ys)


def _kept(
    tracked: Tracked,
    keywords: Keywords,
    before: list[Value],
    after: list[Value],
    changes: frozenset[int],
    changed: set[int],
) -> list[Value]:
    """The values to carry into the next step. Adds the positions of those that this step changed to `changed`."""
    carried = list(before)  # the same tracers, so that JAX sees which values a step does not change
    for index in changes:
        types = types_of(before[index]), types_of(after[index])
        check_form(*types, "across a loop", partial(tracked.path, index, keywords))
        if jax.tree.leaves(after[index]):  # one that stays cleared has nothing to carry
            carried[index] = after[index]
            changed.add(index)
    return carried


@overload
def scan(  # type: ignore[overload-overlap]  # a tuple is a carry too; it counts as the first
    f: Callable[Concatenate[X, P], tuple[tuple[*Carries], Y]],
    xs: X | NDArray[Any] | None = None,  # of any dtype
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> Scan[P, tuple[tuple[*Carries], Y]]: ...
@overload
def scan(
    f: Callable[Concatenate[X, Carry, P], tuple[Carry, Y]],
    xs: X | NDArray[Any] | None = None,  # of any dtype
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> Scan[Concatenate[Carry, P], tuple[tuple[Carry], Y]]: ...
def scan(
    f: Function,
    xs: Any = None,  # a tree of arrays, of JAX or numpy
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> Any:
    """Loops over the leading axis of arrays: `jax.lax.scan`, but x comes before the carry: `scan(f, xs)(*carry)`.

    Args:
        f: one step, `f(x, *carry, **tracked) -> (carry, y)`. A carry that is not a tuple stands for a tuple of one.
        xs: a tree of arrays of shape (steps, ...); without it, `x` is `None`.
        length: the number of steps, needed if there are no `xs`.
        reverse: whether to start from the end.
        unroll: how many steps to compile as one iteration of the loop; `True` means all.

    Returns:
        A function of the initial carry and the tracked keywords, which returns the last carry, a tuple, and the stacked
        `y`s, of shape (steps, ...).

    Raises:
        TypeError: `f` takes the carry first, as in JAX; or, in a call, it does not return `(carry, y)`, or the carry
            changes its structure, shapes or dtypes.
        ValueError: in a call, a parameter changes its shape or dtype, or is cleared or filled, from one step to the
            next.

    Example:
        >>> def add(x: Array, total: Array, *, steps: Param) -> tuple[Array, Array]:
        ...     steps += 1
        ...     return total + x, total
        >>> steps = Param(jnp.array(0))
        >>> (total,), ys = scan(add, jnp.arange(4.0))(jnp.array(0.0), steps=steps)
        >>> float(total), ys.tolist(), int(steps)
        (6.0, [0.0, 0.0, 1.0, 3.0], 4)
    """
    return Scan(f, xs, length, reverse, unroll)


class WhileLoop(FlowTransform[P, R]):
    """The callable returned by `while_loop`, which takes the initial carry and the tracked keywords.

    Example:
        >>> while_loop(lambda n: n + 1, lambda n: n < 3)
        WhileLoop(fn=<lambda>, cond_fun=<lambda>)
    """

    def __init__(self, fn: Function, cond_fun: Function) -> None:
        super().__init__(fn, cond_fun)
        self.cond_fun = cond_fun

    def __repr__(self) -> str:
        return f"WhileLoop(fn={describe(self.fn)}, cond_fun={describe(self.cond_fun)})"

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        step, condition = self._calls()
        tracked = collect(keywords)
        changed: set[int] = set()

        def goes_on(state: tuple[tuple[Any, ...], list[Value]]) -> Any:
            carry, values = state
            answer = get(run(condition, tracked.skeleton, values, carry)[0])
            if not (np.shape(answer) == () and jax.numpy.issubdtype(jax.numpy.result_type(answer), bool)):
                raise TypeError(
                    "while_loop(f, cond_fun) expected cond_fun to return a scalar bool, found "
                    f"{types_of(answer)}: the step comes first, then the condition"
                )
            return answer

        def body(state: tuple[tuple[Any, ...], list[Value]]) -> Any:
            carry, values = state
            output, after, changes = run(step, tracked.skeleton, values, carry)
            output = _tuple(output)
            what = (
                "the carry of while_loop changes its form from step to step (the step comes first, then the condition)"
            )
            check_output(types_of(carry), types_of(output), what)
            return output, _kept(tracked, keywords, values, after, changes, changed)

        carry, after = jax.lax.while_loop(
            named_after(self.cond_fun, goes_on), named_after(self.fn, body), (tree_ref(args), tracked.values(keywords))
        )
        write_back(tracked.leaves, {index: after[index] for index in changed})
        return tree_unref(carry)


@overload
def while_loop(  # type: ignore[overload-overlap]  # as for scan
    f: Callable[P, tuple[*Carries]], cond_fun: Callable[P, ArrayLike] | Transform[P, ArrayLike]
) -> WhileLoop[P, tuple[*Carries]]: ...
@overload
def while_loop(
    f: Callable[Concatenate[Carry, P], Carry],
    cond_fun: Callable[Concatenate[Carry, P], ArrayLike] | Transform[Concatenate[Carry, P], ArrayLike],
) -> WhileLoop[Concatenate[Carry, P], tuple[Carry]]: ...
def while_loop(f: Function, cond_fun: Function) -> Any:
    """Loops while a condition holds: `jax.lax.while_loop`, but the step comes before the condition.

    Args:
        f: one step, `f(*carry, **tracked) -> carry`. A carry that is not a tuple stands for a tuple of one.
        cond_fun: a function of the same arguments that returns whether to continue, a scalar bool. What it writes or
            draws is discarded.

    Returns:
        A function of the initial carry and the tracked keywords, which returns the last carry, a tuple.

    Raises:
        TypeError: in a call, `cond_fun` does not return a scalar bool, or the carry changes its structure, shapes or
            dtypes.
        ValueError: in a call, a parameter changes its form, as for `scan`.

    Example:
        >>> loop = while_loop(lambda n, *, p: (n + 1,), lambda n, *, p: n < p)
        >>> loop(jnp.array(0), p=Param(jnp.array(5)))[0].item()
        5
    """
    return WhileLoop(f, cond_fun)

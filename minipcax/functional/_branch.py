"""`cond` and `switch`: branches inside compiled functions, over stateful models.

Every branch returns the values of all parameters, whether it changed them or not, because the branches of one program
must return the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Concatenate

import jax
from jax.typing import ArrayLike

from minipcax.core import get, tree_unref
from minipcax.functional._base import P, R, Transform, describe, named_after
from minipcax.functional._flow import Call, FlowTransform, check_form, check_output, types_of
from minipcax.functional._tracking import as_tree, collect, run, write_back
from minipcax.functional._types import Function, Keywords, Value


class Switch(FlowTransform[P, R]):
    """The callable returned by `switch`, which takes the index before the arguments of the branches.

    Example:
        >>> switch([lambda x: x, lambda x: -x, abs])
        Switch(fn=<lambda>, <lambda>, abs)
    """

    def __init__(self, branches: Sequence[Function]) -> None:
        self.branches = tuple(branches)
        if not self.branches:
            raise ValueError("switch expected at least one branch, found none")
        super().__init__(*self.branches)
        self._takes("which")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fn={', '.join(map(describe, self.branches))})"

    def _select(self, which: Any, functions: list[Function], args: tuple[Any, ...]) -> Any:
        return jax.lax.switch(which, functions, *args)

    def _keywords(self, args: tuple[Any, ...], kwargs: Keywords) -> Keywords:
        return super()._keywords(args[1:], kwargs)  # the first argument is not for the branches

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        if not args:
            raise TypeError(f"{self!r} expected a predicate or index as its first argument, found no arguments")
        tracked = collect(keywords)
        changed: set[int] = set()
        types: dict[int, Any] = {}  # of each parameter after the first branch
        outputs: list[Any] = []

        def pure(fn: Function, call: Call) -> Function:
            def branch(values: list[Value], *args: Any) -> tuple[Any, list[Value]]:
                output, after, changes = run(call, tracked.skeleton, values, args)
                for index, value in enumerate(map(types_of, after)):
                    first = types.setdefault(index, value)
                    check_form(first, value, "in all branches", partial(tracked.path, index, keywords))
                changed.update(changes)
                outputs.append(types_of(output))
                check_output(outputs[0], outputs[-1], "the branches return different outputs")
                # There are several ways to be cleared, such as None and {}, and the branches must agree on one.
                return output, [value if jax.tree.leaves(value) else None for value in after]

            return named_after(fn, branch)

        which, rest = get(args[0]), as_tree(args[1:])
        output, after = self._select(
            which, [*map(pure, self.branches, self._calls())], (tracked.values(keywords), *rest)
        )
        write_back(tracked.leaves, {index: after[index] for index in changed})
        return tree_unref(output)


def switch(branches: Sequence[Callable[P, R]]) -> Switch[Concatenate[ArrayLike, P], R]:
    """Runs one of several functions: `jax.lax.switch`, with tracked keyword arguments.

    Args:
        branches: a sequence of functions that take the same arguments and return the same structure.

    Returns:
        A function of the index of the branch, an int that is clamped to the range of branches, of their arguments and
        of the tracked keywords. It returns what the branch returns.

    Raises:
        ValueError: there are no branches; or, in a call, they leave a parameter with different shapes or dtypes, or
            cleared in some only.
        TypeError: in a call, the branches return different structures, shapes or dtypes.

    Example:
        >>> choose = switch([lambda x: x, lambda x: 10 * x, lambda x: -x])
        >>> choose(1, jnp.array(2.0)).item()
        20.0
    """
    return Switch(branches)


class Cond(Switch[P, R]):
    """The callable returned by `cond`, which takes the predicate before the arguments of the branches.

    Example:
        >>> cond(lambda x: x, lambda x: -x)
        Cond(fn=<lambda>, <lambda>)
    """

    def __init__(self, true_fun: Function, false_fun: Function) -> None:
        super().__init__((true_fun, false_fun))

    def _select(self, which: Any, functions: list[Function], args: tuple[Any, ...]) -> Any:
        return jax.lax.cond(which, *functions, *args)


# mypy infers P and R from true_fun alone, because false_fun has a union type, and so refuses one that differs.
def cond(true_fun: Callable[P, R], false_fun: Callable[P, R] | Transform[P, R]) -> Cond[Concatenate[ArrayLike, P], R]:
    """Runs one of two functions: `jax.lax.cond`, with tracked keyword arguments.

    Args:
        true_fun: the function to run if the predicate is true.
        false_fun: the function to run if it is false; it takes the same arguments and returns the same structure.

    Returns:
        A function of the predicate, a scalar bool, of the arguments and of the tracked keywords. It returns what the
        branch returns.

    Raises:
        ValueError: in a call, the branches leave a parameter with different shapes or dtypes, or cleared in one only.
        TypeError: in a call, the branches return different structures, shapes or dtypes.

    Example:
        >>> def reset(*, p: Param) -> None:
        ...     p.set(jnp.zeros_like(p.get()))
        >>> p = Param(jnp.ones(2))
        >>> cond(reset, lambda *, p: None)(True, p=p)
        >>> p.tolist()
        [0.0, 0.0]
    """
    return Cond(true_fun, false_fun)

"""`scan`, `while_loop`, `cond` and `switch`: control flow inside compiled functions, over stateful models.

A loop carries the values of all parameters from one step to the next; JAX leaves out those that never change. A branch
gives back the values of all parameters. Neither may change what the values look like: a compiled loop has one program
for all of its steps, and what follows a branch must not depend on which was taken.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Concatenate, TypeVar, TypeVarTuple, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from numpy.typing import NDArray

from minipcax.functional._base import P, R, Transform, describe, named_after
from minipcax.functional._tracking import Keywords, Tracked, Value, collect, write_back

X = TypeVar("X")
Y = TypeVar("Y")
Carry = TypeVar("Carry")
Carries = TypeVarTuple("Carries")


def _tuple(carry: Any) -> tuple[Any, ...]:
    return carry if isinstance(carry, tuple) else (carry,)


def _form(value: Value) -> Any:
    """What a value looks like: its containers, shapes and dtypes. Without any array, it counts as cleared."""
    if not jax.tree.leaves(value):
        return "cleared"
    return jax.tree.map(lambda array: f"{jnp.result_type(array)}{list(jnp.shape(array))}", value)


def _refuse_other_output(before: Any, after: Any, what: str) -> None:
    """Refuses outputs that do not fit those before. A Python number takes on any dtype."""
    structures: list[Any] = [jax.tree.structure(output) for output in (before, after)]
    if structures[0] == structures[1] and all(map(_fit, jax.tree.leaves(before), jax.tree.leaves(after))):
        return
    raise TypeError(f"{what}: expected {_form(before)}, found {_form(after)}; return the same shapes and dtypes")


def _fit(one: Any, other: Any) -> bool:
    types = jax.typeof(one), jax.typeof(other)
    return types[0].shape == types[1].shape and (
        types[0].dtype == types[1].dtype or any(getattr(kind, "weak_type", False) for kind in types)
    )


def _refuse_new_form(before: Value, after: Value, where: str, path: Callable[[], str]) -> None:
    if _form(before) != _form(after):
        raise ValueError(
            f"the parameter {path()} does not keep its form {where}: expected {_form(before)}, found {_form(after)}; "
            "give it its shape and dtype before, and set or clear it on all ways through"
        )


class _Part(Transform[..., Any]):
    """One of the functions of a loop or branch. Each may be bound to a model of its own."""

    def __init__(self, fn: Callable[..., Any], all_bound: Keywords) -> None:
        super().__init__(fn)
        self._keys: dict[str, str] = {}  # under which keyword to find what this function is bound to
        self._all_bound = all_bound
        for name, value in self._bound.items():
            key = name
            while all_bound.setdefault(key, value) is not value:
                key += "_"
            self._keys[name] = key

    def _call(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        own = {name: keywords[key] for name, key in self._keys.items()}
        given = {name: value for name, value in keywords.items() if name not in self._all_bound}
        return super()._call(args, {**given, **own})


class Scan(Transform[P, R]):
    """What `scan` makes.

    Example:
        >>> scan(lambda x, total: (total + x, None), jnp.arange(3))
        Scan(fn=<lambda>)
    """

    def __init__(
        self,
        fn: Callable[..., Any],  # see Transform
        xs: Any = None,
        length: int | None = None,
        reverse: bool = False,
        unroll: int | bool = 1,
    ) -> None:
        super().__init__(fn)
        self.xs, self.length, self.reverse, self.unroll = xs, length, reverse, unroll

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        tracked = collect(keywords)
        changed: set[int] = set()

        def body(state: tuple[tuple[Any, ...], list[Value]], x: Any) -> tuple[Any, Any]:
            carry, values = state
            output, after, changes = self._run(tracked.skeleton, values, (x, *carry))
            if not (isinstance(output, (tuple, list)) and len(output) == 2):
                raise TypeError(f"scan expected the function to return (carry, y), found {output!r}")
            new_carry, y = output
            _refuse_other_output(carry, _tuple(new_carry), "the carry of scan changes its form from step to step")
            return (_tuple(new_carry), _kept(tracked, keywords, values, after, changes, changed)), y

        (carry, after), ys = jax.lax.scan(
            named_after(self.fn, body),
            (args, tracked.values(keywords)),
            self.xs,
            self.length,
            self.reverse,
            self.unroll,
        )
        write_back(tracked.leaves, {index: after[index] for index in changed})
        return carry, ys


def _kept(
    tracked: Tracked,
    keywords: Keywords,
    before: list[Value],
    after: list[Value],
    changes: frozenset[int],
    changed: set[int],
) -> list[Value]:
    """The values to carry into the next step; notes in `changed` which ones this step changed."""
    carried = list(before)
    for index in changes:
        _refuse_new_form(before[index], after[index], "across a loop", partial(tracked.path, index, keywords))
        if jax.tree.leaves(after[index]):
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
    f: Callable[..., Any],
    xs: Any = None,  # what f takes as x, but with a leading axis of steps; arrays of numpy become those of JAX
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> Any:
    """Loops over the leading axis of arrays: `jax.lax.scan`, with tracked keyword arguments.

    Args:
        f: one step, `f(x, *carry, **tracked) -> (carry, y)`.
        xs: what to loop over, arrays with a leading axis of steps; without it, `x` is `None`.
        length: the number of steps, where there are no `xs`.
        reverse: whether to start from the end.
        unroll: how many steps to put into one pass of the compiled loop.

    Returns:
        A function of the initial carry and the tracked keywords, which returns the last carry, a tuple, and the stacked
        `y`s.

    Raises:
        ValueError: a parameter changes its shape or dtype, or is cleared or filled, from one step to the next.

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


class WhileLoop(Transform[P, R]):
    """What `while_loop` makes.

    Example:
        >>> while_loop(lambda n: n + 1, lambda n: n < 3)
        WhileLoop(fn=<lambda>, cond_fun=<lambda>)
    """

    def __init__(self, fn: Callable[..., Any], cond_fun: Callable[..., Any]) -> None:  # see Transform
        super().__init__(fn)
        self.cond_fun = cond_fun
        self._bound = {}
        self._step, self._condition = _Part(fn, self._bound), _Part(cond_fun, self._bound)

    def __repr__(self) -> str:
        return f"WhileLoop(fn={describe(self.fn)}, cond_fun={describe(self.cond_fun)})"

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        tracked = collect(keywords)
        changed: set[int] = set()

        def goes_on(state: tuple[tuple[Any, ...], list[Value]]) -> Any:
            carry, values = state
            return self._condition._run(tracked.skeleton, values, carry)[0]

        def body(state: tuple[tuple[Any, ...], list[Value]]) -> Any:
            carry, values = state
            output, after, changes = self._step._run(tracked.skeleton, values, carry)
            _refuse_other_output(carry, _tuple(output), "the carry of while_loop changes its form from step to step")
            return _tuple(output), _kept(tracked, keywords, values, after, changes, changed)

        carry, after = jax.lax.while_loop(
            named_after(self.cond_fun, goes_on), named_after(self.fn, body), (args, tracked.values(keywords))
        )
        write_back(tracked.leaves, {index: after[index] for index in changed})
        return carry


@overload
def while_loop(  # type: ignore[overload-overlap]  # as for scan
    f: Callable[P, tuple[*Carries]], cond_fun: Callable[P, ArrayLike] | Transform[P, ArrayLike]
) -> WhileLoop[P, tuple[*Carries]]: ...
@overload
def while_loop(
    f: Callable[Concatenate[Carry, P], Carry],
    cond_fun: Callable[Concatenate[Carry, P], ArrayLike] | Transform[Concatenate[Carry, P], ArrayLike],
) -> WhileLoop[Concatenate[Carry, P], tuple[Carry]]: ...
def while_loop(f: Callable[..., Any], cond_fun: Callable[..., Any]) -> Any:
    """Loops while a condition holds: `jax.lax.while_loop`, with tracked keyword arguments.

    Args:
        f: one step, `f(*carry, **tracked) -> carry`.
        cond_fun: whether to go on, a scalar bool, from the same arguments; what it writes or draws is not kept.

    Returns:
        A function of the initial carry and the tracked keywords, which returns the last carry, a tuple.

    Raises:
        ValueError: a parameter changes its shape or dtype, or is cleared or filled, from one step to the next.

    Example:
        >>> loop = while_loop(lambda n, *, p: (n + 1,), lambda n, *, p: n < p)
        >>> loop(jnp.array(0), p=Param(jnp.array(5)))[0].item()
        5
    """
    return WhileLoop(f, cond_fun)


class Switch(Transform[P, R]):
    """What `switch` makes; `Cond` is its case of two branches.

    Example:
        >>> switch([lambda x: x, lambda x: -x, abs])
        Switch(fn=<lambda>, <lambda>, abs)
    """

    def __init__(self, branches: Sequence[Callable[..., Any]]) -> None:  # see Transform
        self.branches = tuple(branches)
        if not self.branches:
            raise ValueError("switch expected at least one branch, found none")
        super().__init__(self.branches[0])
        self._bound = {}
        self._parts = [_Part(branch, self._bound) for branch in self.branches]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(fn={', '.join(map(describe, self.branches))})"

    def _select(self, which: Any, functions: list[Callable[..., Any]], args: tuple[Any, ...]) -> Any:
        return jax.lax.switch(which, functions, *args)

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        if not args:
            raise TypeError(f"{self!r} expected what decides between its branches as the first argument, found none")
        which, *rest = args
        tracked = collect(keywords)
        changed: set[int] = set()
        forms: dict[int, Value] = {}  # what the first branch makes of each parameter
        outputs: list[Any] = []

        def pure(part: _Part) -> Callable[..., Any]:
            def branch(values: list[Value], *args: Any) -> tuple[Any, list[Value]]:
                output, after, changes = part._run(tracked.skeleton, values, args)
                for index, value in enumerate(after):
                    first = forms.setdefault(index, value)
                    _refuse_new_form(first, value, "in all branches", partial(tracked.path, index, keywords))
                changed.update(changes)
                outputs.append(output)
                _refuse_other_output(outputs[0], output, "the branches return different outputs")
                return output, [value if jax.tree.leaves(value) else None for value in after]

            return named_after(part.fn, branch)

        functions = [pure(part) for part in self._parts]
        output, after = self._select(which, functions, (tracked.values(keywords), *rest))
        write_back(tracked.leaves, {index: after[index] for index in changed})
        return output


def switch(branches: Sequence[Callable[P, R]]) -> Switch[Concatenate[ArrayLike, P], R]:
    """Runs one of several functions: `jax.lax.switch`, with tracked keyword arguments.

    Args:
        branches: the functions, which take the same arguments and return the same structure.

    Returns:
        A function of the index of the branch (clamped to those there are), the arguments and the tracked keywords.

    Raises:
        ValueError: a parameter has another shape or dtype after one branch than after another.

    Example:
        >>> choose = switch([lambda x: x, lambda x: 10 * x, lambda x: -x])
        >>> choose(1, jnp.array(2.0)).item()
        20.0
    """
    return Switch(branches)


class Cond(Switch[P, R]):
    """What `cond` makes.

    Example:
        >>> cond(lambda x: x, lambda x: -x)
        Cond(fn=<lambda>, <lambda>)
    """

    def __init__(self, true_fun: Callable[..., Any], false_fun: Callable[..., Any]) -> None:  # see Transform
        super().__init__((true_fun, false_fun))

    def _select(self, which: Any, functions: list[Callable[..., Any]], args: tuple[Any, ...]) -> Any:
        return jax.lax.cond(which, *functions, *args)


# mypy takes P and R from true_fun alone, and so refuses a false_fun that is not like it, because that has a union type.
def cond(true_fun: Callable[P, R], false_fun: Callable[P, R] | Transform[P, R]) -> Cond[Concatenate[ArrayLike, P], R]:
    """Runs one of two functions: `jax.lax.cond`, with tracked keyword arguments.

    Args:
        true_fun: what to run when the predicate is true.
        false_fun: what to run when it is not.

    Returns:
        A function of the predicate, the arguments and the tracked keywords.

    Raises:
        ValueError: a parameter has another shape or dtype after one branch than after the other.

    Example:
        >>> def reset(*, p: Param) -> None:
        ...     p.set(jnp.zeros_like(p.get()))
        >>> p = Param(jnp.ones(2))
        >>> cond(reset, lambda *, p: None)(True, p=p)
        >>> p.tolist()
        [0.0, 0.0]
    """
    return Cond(true_fun, false_fun)

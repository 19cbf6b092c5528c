"""`jit`: compiled functions of stateful models.

The compiled program takes the values of all parameters and gives back those that changed, so a call that changes
nothing costs no copies. Which ones change is known when the function is traced.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import jax

from minipcax.core import tree_extract, tree_unref
from minipcax.core.structure import Structure
from minipcax.functional._base import P, R, Transform, named_after
from minipcax.functional._closure import warn_of_models
from minipcax.functional._tracking import (
    ARRAY_TYPES,
    Keywords,
    Skeleton,
    Tracked,
    Value,
    as_tree,
    collect,
    run,
    write_back,
)

# What a program is compiled for: the structure of the tracked keywords, and the static ones.
Static = tuple[Skeleton, tuple[tuple[str, Structure], ...]]


class Jit(Transform[P, R]):
    """What `jit` makes.

    Example:
        >>> jit(jnp.sin)
        Jit(fn=sin)
    """

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
        donate_argnums: int | Sequence[int] = (),
        donate_argnames: str | Sequence[str] = (),
        keep_unused: bool = False,
        inline: bool = False,
        compiler_options: dict[str, Any] | None = None,  # XLA's, of any type
    ) -> None:
        super().__init__(fn)
        self._static = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
        self._static_names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        # A name may be given by position as well.
        self._static += tuple(self._positions.index(name) for name in self._static_names if name in self._positions)
        self._replaced: dict[tuple[Any, ...], list[int]] = {}  # what to donate, by skeleton and static arguments
        self._donated = (donate_argnames,) if isinstance(donate_argnames, str) else tuple(donate_argnames)

        def pure(static: Static, values: list[Value], *args: Any) -> tuple[Any, dict[int, Value]]:
            warn_of_models(fn)
            skeleton, named = static
            output, after, changed = run(partial(self._call_with, named), skeleton, values, args)
            output = output if tree_unref(output) is output else _WithReferences(output)
            return output, {index: after[index] for index in changed}

        def donating(
            static: Static, donated: dict[int, Value], values: list[Value], *args: Any
        ) -> tuple[R, dict[int, Value]]:
            merged = [donated.get(index, value) for index, value in enumerate(values)]
            result: tuple[R, dict[int, Value]] = self._compiled(static, merged, *args)
            if not donated.keys() <= result[1].keys():
                raise _ReplacesLess
            return result

        options: dict[str, Any] = {"keep_unused": keep_unused, "inline": inline, "compiler_options": compiler_options}
        self._compiled = jax.jit(
            named_after(fn, pure),
            static_argnums=(0, *_shifted(self._static, 2)),
            donate_argnums=() if self._donated else _shifted(donate_argnums, 2),
            **options,
        )
        self._donating = jax.jit(
            named_after(fn, donating),
            static_argnums=(0, *_shifted(self._static, 3)),
            donate_argnums=(1, *_shifted(donate_argnums, 3)),
            **options,
        )

    def _call_with(self, named: tuple[tuple[str, Structure], ...], args: tuple[Any, ...], keywords: Keywords) -> Any:
        return self._call(args, {**keywords, **{name: value.get() for name, value in named}})

    def _taken(self, keywords: Keywords) -> tuple[Keywords, tuple[tuple[str, Structure], ...]]:
        """The keyword arguments to track, and the static ones."""
        named = tuple((name, Structure(keywords[name])) for name in self._static_names if name in keywords)
        return {name: value for name, value in keywords.items() if name not in self._static_names}, named

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        named: tuple[tuple[str, Structure], ...] = ()
        if self._static_names:
            keywords, named = self._taken(keywords)
        tracked = collect(keywords)
        values = tracked.values(keywords)
        args = self._as_tree(args)
        static = tracked.skeleton, named
        try:
            if self._donated:
                output, changes = self._donate(tracked, static, values, args, keywords)
            else:
                output, changes = self._compiled(static, values, *args)
        except (TypeError, ValueError, RuntimeError) as error:
            numbers = {number % len(args) for number in self._static if args}
            inputs = [(f"argument {number}", arg) for number, arg in enumerate(args) if number not in numbers]
            inputs += [(tracked.path(index, keywords), values[index]) for index in range(1, len(values))]
            _refuse_unusable(inputs, error)
            raise
        if changes:
            write_back(tracked.leaves, changes)
        return tree_unref(output.tree) if isinstance(output, _WithReferences) else output

    def _as_tree(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._static:
            return as_tree(args)
        static = {number % len(args) for number in self._static if args}
        others = iter(as_tree(tuple(arg for number, arg in enumerate(args) if number not in static)))
        return tuple(arg if number in static else next(others) for number, arg in enumerate(args))

    def _donate(
        self, tracked: Tracked, static: Static, values: list[Value], args: tuple[Any, ...], keywords: Keywords
    ) -> Any:
        """Donates, of the named keywords, only what the call replaces: tracing tells, and is not done again."""
        key = static, *(args[number] for number in self._static if number < len(args))
        if key not in self._replaced:
            names = [name for name in self._donated if name in keywords]
            params = {id(param) for name in names for param in tree_extract(keywords[name])}
            _, changes = self._compiled.eval_shape(static, values, *args)  # type: ignore[no-untyped-call]  # jax
            self._replaced[key] = [index for index in changes if id(tracked.leaves[index]) in params]
        uses = Counter(map(id, jax.tree.leaves((values, args))))  # one array may be the value of several parameters
        donated = {
            index: values[index]
            for index in self._replaced[key]
            if all(uses[id(array)] == 1 for array in jax.tree.leaves(values[index]))
        }
        kept = [None if index in donated else value for index, value in enumerate(values)]
        try:
            return self._donating(static, donated, kept, *args)
        except _ReplacesLess:
            del self._replaced[key]
            return self._donate(tracked, static, values, args, keywords)

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> jax.stages.Lowered:
        """The program that a call with these arguments would compile, as `jax.jit(...).lower` gives it."""
        keywords, named = self._taken(self._keywords(args, kwargs))
        tracked = collect(keywords)
        return self._compiled.lower((tracked.skeleton, named), tracked.values(keywords), *self._as_tree(args))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _WithReferences:
    """An output in which something repeats. Others need not be looked through after every call."""

    tree: Any


def _refuse_unusable(inputs: list[tuple[str, Any]], error: Exception) -> None:
    """Says which of the inputs, by name, is the reason that a call failed, if one is."""
    for name, value in inputs:
        for leaf in jax.tree.leaves(value):
            if not isinstance(leaf, ARRAY_TYPES):
                raise TypeError(
                    f"{name} is or holds a {type(leaf).__name__}, which JAX cannot carry: expected arrays or numbers; "
                    "wrap what is not one in static(...), or name a positional argument in static_argnums"
                ) from error
            if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted():
                raise RuntimeError(
                    f"{name} holds an array that was donated to an earlier call, so its memory is used again: use what "
                    "that call returned or wrote, or do not donate it"
                ) from error


class _ReplacesLess(Exception):
    """With arguments of other shapes, a function may replace fewer parameters than it did before."""


def _shifted(argnums: int | Sequence[int], by: int) -> tuple[int, ...]:
    """Positions of the user's arguments among those of the function that JAX sees; negative ones count from the end."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    return tuple(number + by if number >= 0 else number for number in numbers)


@overload
def jit(fn: Callable[P, R], /) -> Jit[P, R]: ...
@overload
def jit(
    fn: None = None,
    /,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    donate_argnames: str | Sequence[str] = (),
    keep_unused: bool = False,
    inline: bool = False,
    compiler_options: dict[str, Any] | None = None,  # XLA's, of any type
) -> Callable[[Callable[P, R]], Jit[P, R]]: ...
def jit(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compiles a function: `jax.jit`, with tracked keyword arguments.

    It traces once for each structure of the arguments. Bare or with options, it is a decorator.

    Args:
        fn: the function.
        options: `static_argnums`, `static_argnames`, `donate_argnums`, `donate_argnames`, `keep_unused`, `inline` and
            `compiler_options`, as in `jax.jit`. Donating a tracked keyword donates only the arrays that the call
            replaces.

    Example:
        >>> @jit
        ... def count(x: Array, *, calls: Param) -> Array:
        ...     calls += 1
        ...     return 2 * x
        >>> calls = Param(jnp.array(0))
        >>> float(count(jnp.array(3.0), calls=calls)), int(calls)
        (6.0, 1)
    """
    return Jit(fn, **options) if fn is not None else lambda fn: Jit(fn, **options)

"""`jit`: compiled functions of stateful models.

The compiled program takes the values of all parameters and returns those that changed, so a call that changes nothing
copies nothing. Which ones change is known when the function has been traced.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from inspect import Signature
from typing import Any, overload

import jax

import minipcax.functional._refusals as refusals
from minipcax.core import tree_unref
from minipcax.core.structure import Structure
from minipcax.functional._base import P, R, Transform, named_after
from minipcax.functional._closure import warn_of_models
from minipcax.functional._donation import Donation
from minipcax.functional._tracking import Skeleton, as_tree, collect, run, write_back
from minipcax.functional._types import Function, Keywords, Value

Named = tuple[tuple[str, Structure], ...]  # static keywords
Static = tuple[Skeleton, Named]  # beside the shapes of arrays, what a program is compiled for


class Jit(Transform[P, R]):
    """The callable returned by `jit`, with the signature of its function.

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
        self._check(static_argnums, static_argnames, donate_argnums, donate_argnames)
        static_numbers = _sequence(static_argnums)
        # As in `jax.jit`, a name may be given by position, and what has a position by name.
        by_number = [self._positions[number] for number in static_numbers if 0 <= number < len(self._positions)]
        self._static_names = _sequence(static_argnames) or tuple(by_number)
        by_name = [self._positions.index(name) for name in self._static_names if name in self._positions]
        self._static = (*dict.fromkeys((*static_numbers, *by_name)),)

        def pure(static: Static, values: list[Value], *args: Any) -> tuple[Any, tuple[()] | None, dict[int, Value]]:
            warn_of_models(fn)
            skeleton, named = static
            self._check_static(named, args)
            output, after, changed = run(partial(self._call_with, named), skeleton, values, args)
            # A bool that is known after tracing: None and () are structure, so it costs the compiled program nothing.
            repeats = None if tree_unref(output) is output else ()
            return output, repeats, {index: after[index] for index in changed}

        options: dict[str, Any] = {"keep_unused": keep_unused, "inline": inline, "compiler_options": compiler_options}
        donated_names, donated = _sequence(donate_argnames), _sequence(donate_argnums)
        self._compiled = jax.jit(
            named_after(fn, pure),
            static_argnums=(0, *_shifted(self._static, 2)),
            donate_argnums=() if donated_names else _shifted(donated, 2),
            **options,
        )
        self._donation = None
        if donated_names:
            static, argnums = (0, *_shifted(self._static, 3)), (1, *_shifted(donated, 3))
            options |= {"static_argnums": static, "donate_argnums": argnums}
            self._donation = Donation(fn, self._compiled, donated_names, self._static, options)

    def _check(self, *options: Any) -> None:
        """Raises what `jax.jit` raises if its options do not fit the function."""

        def stub(*args: Any, **kwargs: Any) -> None: ...

        with suppress(TypeError, ValueError):  # the signature of a builtin is not known
            parameters = inspect.signature(self.fn).parameters.values()
            vars(stub)["__signature__"] = Signature([p for p in parameters if p.name != "self"])
        names = ("static_argnums", "static_argnames", "donate_argnums", "donate_argnames")
        jax.jit(stub, **{name: option for name, option in zip(names, options, strict=True) if option != ()})

    def _check_static(self, named: Named, args: tuple[Any, ...]) -> None:
        """Raises if a static argument holds what must be traced."""
        for number in self._static_among(args):
            refusals.check_static(f"argument {number}", args[number])
        for name, value in named:
            refusals.check_static(name, value.get())

    def _call_with(self, named: Named, args: tuple[Any, ...], keywords: Keywords) -> Any:
        return self._call(args, {**keywords, **{name: value.get() for name, value in named}})

    def _split(self, keywords: Keywords) -> tuple[Keywords, Named]:
        """The keyword arguments to track, and the static ones."""
        if not self._static_names:
            return keywords, ()
        named = tuple((name, Structure(keywords[name])) for name in self._static_names if name in keywords)
        return {name: value for name, value in keywords.items() if name not in self._static_names}, named

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        keywords, named = self._split(keywords)
        tracked = collect(keywords)
        values = tracked.values(keywords)
        args = self._as_tree(args)
        static = tracked.skeleton, named
        try:
            if self._donation is None:
                output, repeats, changes = self._compiled(static, values, *args)
            else:
                output, repeats, changes = self._donation.call(static, values, args, tracked.leaves, keywords)
        except (TypeError, ValueError, RuntimeError) as error:
            static_positions = self._static_among(args)
            inputs = [(f"argument {number}", arg) for number, arg in enumerate(args) if number not in static_positions]
            inputs += [(tracked.path(index, keywords), values[index]) for index in range(1, len(values))]
            refusals.check_usable(inputs, error)
            raise
        if changes:
            write_back(tracked.leaves, changes)
        return output if repeats is None else tree_unref(output)

    def _as_tree(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._static:
            return as_tree(args)
        static = self._static_among(args)
        others = iter(as_tree(tuple(arg for number, arg in enumerate(args) if number not in static)))
        return tuple(arg if number in static else next(others) for number, arg in enumerate(args))

    def _static_among(self, args: tuple[Any, ...]) -> set[int]:
        """The positions of the static arguments of a call, which may leave out those that have defaults."""
        return {number % len(args) for number in self._static if -len(args) <= number < len(args)}

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> jax.stages.Lowered:
        """Returns the program that a call with these arguments would compile, as `jax.jit(...).lower` does."""
        keywords, named = self._split(self._keywords(args, kwargs))
        tracked = collect(keywords)
        return self._compiled.lower((tracked.skeleton, named), tracked.values(keywords), *self._as_tree(args))


def _sequence(given: Any) -> tuple[Any, ...]:
    """One number or name, or several of them."""
    return (given,) if isinstance(given, (int, str)) else tuple(given)


def _shifted(argnums: tuple[int, ...], by: int) -> tuple[int, ...]:
    """Positions among the arguments of the function that JAX sees. Negative ones count from the end, and stay."""
    return tuple(number + by if number >= 0 else number for number in argnums)


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
def jit(fn: Function | None = None, /, **options: Any) -> Any:
    """Compiles a function: `jax.jit`, with tracked keyword arguments.

    The function is traced once for each structure of its arguments: shapes, dtypes, classes, statics, modes, sharing,
    and which parameters are cleared. Use it as a decorator, bare or with options.

    Args:
        fn: the function.
        options: `static_argnums`, `static_argnames`, `donate_argnums`, `donate_argnames`, `keep_unused`, `inline` and
            `compiler_options`, as in `jax.jit`. Donating a tracked keyword donates only the arrays that the call
            replaces.

    Raises:
        ValueError: the options do not fit the function, or, in a call, two paths lead to one module.
        TypeError: in a call, an argument holds something that JAX cannot carry, or a static argument a parameter.

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

"""Donating the arrays of tracked keywords: only those that the call replaces, for the others are still needed.

Which these are is known when the function has been traced. So `jit` first traces it, and then hands over its values in
two groups, of which one is donated.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax

from minipcax.core import tree_extract
from minipcax.functional._base import named_after
from minipcax.functional._types import Function, Keywords, Value


class Donation:
    """Calls a compiled function so that the arrays of some keywords are donated.

    Args:
        fn: the user's function.
        compiled: the pure function `compiled(static, values, *args)`, compiled, which returns the changed values last.
        names: the keywords.
        static: the positions of static arguments.
        options: for `jax.jit`.
    """

    def __init__(
        self, fn: Function, compiled: Any, names: tuple[str, ...], static: Sequence[int], options: Any
    ) -> None:
        self._compiled, self._names, self._static = compiled, names, static
        self._replaced: dict[Any, list[int]] = {}  # by what is static, the positions of the values to donate

        def donating(static: Any, donated: dict[int, Value], values: list[Value], *args: Any) -> Any:
            result = compiled(static, [donated.get(index, value) for index, value in enumerate(values)], *args)
            # What is donated but not replaced would be lost, so this call must not happen.
            if not donated.keys() <= result[-1].keys():
                raise _ReplacesLess
            return result

        self._donating = jax.jit(named_after(fn, donating), **options)

    def call(
        self, static: Any, values: list[Value], args: tuple[Any, ...], leaves: Sequence[Any], keywords: Keywords
    ) -> Any:
        """What the compiled function returns."""
        key = static, *(args[number] for number in self._static if -len(args) <= number < len(args))
        if key not in self._replaced:
            names = [name for name in self._names if name in keywords]
            params = {id(param) for name in names for param in tree_extract(keywords[name])}
            *_, changes = self._compiled.eval_shape(static, values, *args)
            self._replaced[key] = [index for index in changes if id(leaves[index]) in params]
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
            return self.call(static, values, args, leaves, keywords)


class _ReplacesLess(Exception):
    """With arguments of other shapes, a function may replace fewer parameters than it did before."""

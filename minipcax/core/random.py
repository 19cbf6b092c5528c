"""Random keys as state: a generator holds a key, and each draw splits it.

`RKG` is the generator that everything uses unless told otherwise. Its key is *lent* to a transform: while a function is
traced, the thread that traces it sees the traced key, and every other thread the real one. The loan ends when the
function does, however it ends.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload

import jax
import jax.core
from jaxtyping import Array, Int, UInt32

from minipcax.core._module import BaseModule
from minipcax.core._param import Param
from minipcax.core.refusals import refuse_clock
from minipcax.core.trace import current_trace, in_vmap, refuse_escape, thread

P = ParamSpec("P")
R = TypeVar("R")


class RKGState(Param):
    """The parameter that holds the key of a `RandomKeyGenerator`, an array of shape (2,).

    The key of `RKG` is taken from the clock when it is first needed, because an import must not start JAX. With several
    processes, whose clocks differ, call `RKG.seed(...)` first.

    Raises:
        RuntimeError: all lanes of a `vmap` would draw the same key, because the generator was made outside it.

    Example:
        >>> RandomKeyGenerator(3).key, RandomKeyGenerator(3).key.tolist()
        (RKGState([2], uint32), [0, 3])
    """

    __slots__ = ()

    @property
    def value(self) -> Any:  # an array, or in a transform a tracer
        """The key; inside a transform, the traced one."""
        lent = self._lent()
        if lent is not None:
            return lent.value
        if self._value is None and self.is_carried:
            refuse_clock()
            with jax.ensure_compile_time_eval():  # the first to look may be a trace, which must not keep it
                self._value = jax.random.PRNGKey(time.time_ns() & 0xFFFFFFFF)
        return self._value

    @value.setter
    def value(self, value: object) -> None:
        self.check(value)
        lent = self._lent()
        (self if lent is None else lent)._value = value

    def check(self, value: object) -> None:
        """Raises if a tracer would be left behind, or if all lanes of a `vmap` would draw the same key."""
        if self._lent() is not None:  # which ends with the trace that it was made for
            return
        if in_vmap() and self._trace != current_trace():
            raise RuntimeError(
                "every lane of vmap would draw the same from this RandomKeyGenerator, which was made outside of it: "
                "pass what holds it as an argument of the function that is mapped, or draw from RKG"
            )
        advice = "; a model that is made inside draws from a RandomKeyGenerator that is made there: rkg=..."
        refuse_escape(f"this {type(self).__name__}", self._trace, value, advice)

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:
        attributes, slots = super().__getstate__()
        return attributes, {**slots, "_value": self.value}  # the lent key, if there is one

    def split(self, n: int = 1) -> UInt32[Array, "{n} 2"]:
        """Draws n keys, an array of shape (n, 2)."""
        # A key must not be used twice: https://docs.jax.dev/en/latest/random-numbers.html.
        keys = jax.random.split(self.get(), n + 1)
        self.set(keys[0])
        return keys[1:]

    @property
    def is_carried(self) -> bool:  # type: ignore[override]  # a property, for one class
        """Whether this is the key of `RKG`."""
        return self is global_key

    def _lent(self) -> Param | None:
        return thread.lent_keys[-1] if thread.lent_keys and self.is_carried else None


@contextmanager
def lend_key(key: object) -> Iterator[None]:
    """Within the block, this thread reads `key` as that of `RKG`, and writes to it."""
    thread.lent_keys.append(Param(key))
    try:
        yield
    finally:
        thread.lent_keys.pop()


def keeping_key(fn: Callable[P, R]) -> Callable[P, R]:
    """Returns the function with the present key of `RKG`: it draws the same in every call, and advances nothing."""
    key = global_key.value

    def keyed(*args: P.args, **kwargs: P.kwargs) -> R:
        with lend_key(key):
            return fn(*args, **kwargs)

    return keyed


class RandomKeyGenerator(BaseModule):
    """Draws random keys for `jax.random` from a key that advances with each draw.

    Each draw is `jax.random.split(key, n + 1)`: the first row becomes the new key, the others are returned. `RKG` is
    the global generator, the default wherever the library draws; transforms carry it without being told.

    Args:
        seed: an int, for `jax.random.PRNGKey`.

    Raises:
        RuntimeError: see `RKGState`.

    Example:
        >>> rkg = RandomKeyGenerator(0)
        >>> rkg().shape, rkg(1).shape, rkg(3).shape
        ((2,), (1, 2), (3, 2))
        >>> rkg.seed(0)
        >>> bool((rkg() == jax.random.split(jax.random.PRNGKey(0))[1]).all())
        True
    """

    def __init__(self, seed: int | Int[Array, ""] = 0) -> None:
        self.key = RKGState(jax.random.PRNGKey(seed))

    def seed(self, seed: int | Int[Array, ""] = 0) -> None:
        """Starts again from the key of `seed`, an int."""
        self.key.set(jax.random.PRNGKey(seed))

    @overload
    def __call__(self) -> UInt32[Array, "2"]: ...
    @overload
    def __call__(self, n: int) -> UInt32[Array, "{n} 2"]: ...
    def __call__(self, n: int | None = None) -> UInt32[Array, "..."]:
        """Returns one key, of shape (2,), or, with `n`, an array of n keys, of shape (n, 2)."""
        return self.key.split(1)[0] if n is None else self.key.split(n)


with jax.core.eval_context():  # outside of any trace, also if the import is traced
    global_key = RKGState(None)
RKG = RandomKeyGenerator.__new__(RandomKeyGenerator)  # without a seed
vars(RKG)["key"] = global_key  # an assignment would look at its value

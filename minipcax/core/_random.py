"""Random keys as state: a generator holds a key, and each draw splits it.

`RKG` is the generator that everything uses unless told otherwise. Its key is *lent* to a transform: while a function is
traced, the thread that traces it sees the traced key, and every other thread the real one. The loan ends when the
function does, however it ends.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, overload

import jax
from jaxtyping import Array, Int, UInt32

from minipcax.core._module import BaseModule
from minipcax.core._param import Param


class _Loans(threading.local):
    """The keys lent to this thread in place of that of `RKG`, innermost last."""

    def __init__(self) -> None:
        self.keys: list[Any] = []


_loans = _Loans()


class RKGState(Param):
    """The key of a random key generator.

    That of `RKG` is drawn from the clock when it is first needed, for importing must not start JAX.

    Example:
        >>> RandomKeyGenerator(3).key, RandomKeyGenerator(3).key.tolist()
        (RKGState([2], uint32), [0, 3])
    """

    __slots__ = ("_key",)
    _key: Any

    @property
    def value(self) -> Any:  # a key, or a tracer that stands for one
        if self is not global_key:
            return self._key
        if keys := _loans.keys:
            return keys[-1]
        if self._key is None:
            with jax.ensure_compile_time_eval():  # a trace that happens to be the first to look must not keep it
                self._key = jax.random.PRNGKey(time.time_ns() & 0xFFFFFFFF)
        return self._key

    @value.setter
    def value(self, key: object) -> None:
        if isinstance(key, jax.core.Tracer) and self is global_key and not _loans.keys:
            raise RuntimeError(
                "RKG was drawn from inside a transform of JAX, which would leave a tracer in it: use that of "
                "minipcax.functional, or pass a RandomKeyGenerator"
            )
        if _loans.keys and self is global_key:
            _loans.keys[-1] = key
        else:
            self._key = key

    @staticmethod
    @contextmanager
    def lend(key: object) -> Iterator[None]:
        """Within the block, this thread sees `key` as that of `RKG`, and what is written there goes to it."""
        _loans.keys.append(key)
        try:
            yield
        finally:
            _loans.keys.pop()


class RandomKeyGenerator(BaseModule):
    """Draws random keys, and remembers how far it has come.

    Each draw is `jax.random.split(key, n + 1)`: the first row becomes the new state, the others are handed out.

    Args:
        seed: what the first key is made from.

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
        """Starts again from `seed`."""
        self.key.set(jax.random.PRNGKey(seed))

    @overload
    def __call__(self) -> UInt32[Array, "2"]: ...
    @overload
    def __call__(self, n: int) -> UInt32[Array, "{n} 2"]: ...
    def __call__(self, n: int | None = None) -> UInt32[Array, "..."]:
        """Returns one key, or, with `n`, an array of n keys."""
        keys = jax.random.split(self.key.get(), (1 if n is None else n) + 1)
        self.key.set(keys[0])
        return keys[1] if n is None else keys[1:]


global_key = RKGState(None)
RKG = object.__new__(RandomKeyGenerator)  # not from a seed: see RKGState
RKG.key = global_key

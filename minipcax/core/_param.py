"""The parameters that models hold: one that acts like its array, and a dict of arrays."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
from jax.typing import DTypeLike

from minipcax.core._parameter import DynamicParam, get, is_own_name
from minipcax.core.operators import ArrayOperators, array_of

# An array, any pytree of arrays, or None when cleared.
Value = Any


class Param(ArrayOperators, DynamicParam[Value]):
    """A parameter that stands for its array in arithmetic.

    It has the operators and attributes of its array. Operators return plain arrays, but augmented assignment, such as
    `+=`, changes the parameter in place. `p.frozen = True` keeps inference and learning from changing it.

    Args:
        value: an array of any shape, a pytree of arrays, a parameter that holds one, or `None` for a cleared parameter.

    Raises:
        AttributeError: an operator or array attribute is used while the parameter is cleared.
        RuntimeError: see `DynamicParam`.

    Example:
        >>> p = Param(jnp.arange(3.0))
        >>> alias = p
        >>> p += 1
        >>> alias is p, (2 * p).tolist(), p.shape
        (True, [2.0, 4.0, 6.0], (3,))
        >>> p
        Param([3], float32)
    """

    __slots__ = ()

    # Inference and learning leave frozen parameters as they are.
    frozen: bool = False

    def __init__(self, value: Value = None) -> None:
        super().__init__(get(value))

    if TYPE_CHECKING:  # the attributes of the array that people use; a misspelt one is an error for a type checker

        @property
        def shape(self) -> tuple[int, ...]: ...
        @property
        def dtype(self) -> jax.numpy.dtype: ...
        @property
        def ndim(self) -> int: ...
        @property
        def size(self) -> int: ...
        @property
        def T(self) -> jax.Array: ...
        @property
        def at(self) -> Any: ...  # jax types it for its own use only
        @property
        def sharding(self) -> jax.sharding.Sharding: ...
        def sum(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> jax.Array: ...
        def mean(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> jax.Array: ...
        def astype(self, dtype: DTypeLike) -> jax.Array: ...
        def reshape(self, *shape: int | tuple[int, ...]) -> jax.Array: ...
        def item(self) -> bool | int | float | complex: ...
        def tolist(self) -> Any: ...  # nested lists, as deep as the array

    else:

        def __getattr__(self, name):
            if is_own_name(name):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            return getattr(array_of(self), name)

        def __setitem__(self, index, value):
            raise TypeError(
                f"{type(self).__name__} does not support item assignment, as JAX's arrays do not: write "
                "param.set(param.at[index].set(value))"
            )


Values = dict[str, Any] | None  # arrays, or pytrees of them; `None` when cleared


class ParamDict(DynamicParam[Values]):
    """A parameter that holds a dict of arrays; without one it is cleared, and reads as an empty dict.

    Args:
        value: the dict, which is held itself, not copied; or `None`.

    Raises:
        KeyError: `param[key]` is read but there is no such entry.

    Example:
        >>> p = ParamDict()
        >>> "u" in p, p.get("u", 0)
        (False, 0)
        >>> p["u"] = jnp.ones(2)
        >>> "u" in p, sorted(p.get())
        (True, ['u'])
    """

    __slots__ = ()

    def __init__(self, value: Values = None) -> None:
        super().__init__(value)

    def get(self, key: str | None = None, default: object = None) -> Any:  # the dict, or what it holds
        """Returns the entry under `key`, or `default` if there is none; without a key, the whole dict."""
        if key is None:
            return self.value
        return (self.value or {}).get(key, default)

    def __getitem__(self, key: str) -> Any:  # arrays, or pytrees of them
        return (self.value or {})[key]

    def __setitem__(self, key: str, value: object) -> None:
        self.check(value)
        if self.value is None:
            self.value = {}
        self.value[key] = get(value)

    def __contains__(self, key: object) -> bool:
        return key in (self.value or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self.value or {})


class ParamCache:
    """A marker base class of parameters that hold intermediate results, so that a mask can clear them together.

    Example:
        >>> class Cache(ParamDict, ParamCache): ...
        >>> M(ParamCache).apply(Cache())
        True
    """

    __slots__ = ()

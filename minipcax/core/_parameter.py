"""Parameters: named boxes around values, which live in a model and keep their identity.

JAX works on immutable arrays and pure functions. A *parameter* is the mutable thing on top: a box with one value in it,
which several places of a model may hold at once. When the value is replaced (`set`), all of them see it: what is shared
is the box, not the array.

Every parameter is a JAX pytree with one child, its value, so `jax.tree.map` reaches the array inside. Any other
attribute (`p.frozen = True`) is part of the tree's *structure*, which JAX compares and never traces.

    BaseParam            one value, get, set
    ├── DynamicParam     transforms trace the value, and write it back
    └── StaticParam      the value is structure: functions, names, modes, ...
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

import jax
import numpy as np

from minipcax.core.structure import Structure
from minipcax.core.trace import current_trace, refuse_escape

T = TypeVar("T")


class BaseParam(Generic[T]):
    """The abstract base class of parameters: a mutable box around one value, read with `get`, replaced with `set`.

    A subclass is a pytree as soon as it is defined; its one child is the value. Any other attribute, such as `frozen`,
    is part of the tree structure.

    Args:
        value: the value.

    Raises:
        TypeError: `BaseParam` itself is instantiated, or a parameter is used as a bool.

    Example:
        >>> import copy
        >>> p = Param(1.0)
        >>> p.set(2.0) is p, p.get()
        (True, 2.0)
        >>> p.frozen = True
        >>> jax.tree.map(lambda x: x + 1, p).frozen
        True
    """

    # A transform reads hundreds of values at C speed because they are in a slot. Attributes are in `__dict__`.
    __slots__ = ("__dict__", "__weakref__", "_value")

    _has_leaves: ClassVar[bool] = True
    _value: T

    def __init__(self, value: T) -> None:
        if type(self) is BaseParam:
            raise TypeError("BaseParam is abstract: use Param for arrays, static(...) for anything else")
        self._value = value

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # See https://docs.jax.dev/en/latest/custom_pytrees.html. The last is the first without keys, which is quicker.
        jax.tree_util.register_pytree_with_keys(
            cls,
            lambda param: (
                [(jax.tree_util.GetAttrKey("value"), param.value)] if cls._has_leaves else [],
                param.structure(),
            ),
            cls.from_structure,
            lambda param: ([param.value] if cls._has_leaves else [], param.structure()),
        )

    def structure(self) -> tuple[Structure, ...]:
        """Returns the part of this parameter that is not its value: the names and values of its attributes."""
        attributes = vars(self)
        if not attributes:
            return ()
        return tuple(item for name in sorted(attributes) for item in (Structure(name), Structure(attributes[name])))

    @classmethod
    def from_structure(cls, structure: tuple[Structure, ...], children: Iterable[T]) -> Self:
        """Makes a new parameter from its structure and its value."""
        param = cls.__new__(cls)
        (param._value,) = children
        if not structure:
            return param
        for name, attribute in zip(structure[::2], structure[1::2], strict=True):
            vars(param)[name.get()] = attribute.get()
        return param

    @property
    def value(self) -> T:
        """The value; assigning to it replaces it."""
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        self.check(value)
        self._value = value

    def check(self, value: object) -> None:
        """Raises if this parameter must not hold `value`."""

    def get(self) -> T:
        """Returns the value."""
        return self.value

    def set(self, value: T) -> Self:
        """Replaces the value, by another or by that of a parameter, for every holder of this one; returns this one."""
        self.value = get(value)
        return self

    def __bool__(self) -> bool:
        raise TypeError(
            f"parameters can not be used as Python bool (found a {type(self).__name__}); to see whether one is there, "
            "compare with `is None`; to test its value, use `.get()`"
        )

    def __repr__(self) -> str:
        value = self.value
        if isinstance(value, (jax.Array, np.ndarray)):
            return f"{type(self).__name__}([{','.join(map(str, value.shape))}], {value.dtype})"
        return f"{type(self).__name__}({value!r})"


class DynamicParam(BaseParam[T]):
    """A parameter that transforms track: its value is traced, and what a function writes into it is kept.

    Args:
        value: the value, a pytree of arrays.

    Raises:
        RuntimeError: a value that JAX is tracing is written to a parameter that was made outside of that trace.

    Example:
        >>> jax.tree.leaves(DynamicParam((1.0, 2.0)))
        [1.0, 2.0]
    """

    # The trace in which this parameter was made. It may hold the tracers of that one, for they end together.
    __slots__ = ("_trace",)
    _trace: object

    is_carried: ClassVar[bool] = False  # whether every call carries it, without being told

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        param = object.__new__(cls)
        param._trace = current_trace()
        return param

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:  # attributes, and slots
        attributes, slots = cast(Any, super().__getstate__())
        return attributes, {name: value for name, value in slots.items() if name != "_trace"}  # a copy records its own

    def check(self, value: object) -> None:
        """Raises if `value` holds a tracer that would stay here when its trace is over."""
        refuse_escape(f"this {type(self).__name__}", self._trace, value)


def is_own_name(name: str) -> bool:
    """Whether an attribute is a parameter's own, and so never looked up in its value."""
    return name == "value" or (name.startswith("__") and name.endswith("__"))


PlainArray = TypeVar("PlainArray", bound=jax.Array)
AnyParam = TypeVar("AnyParam", bound=BaseParam[Any])


@overload
def get(x: BaseParam[T]) -> T: ...
@overload
def get(x: PlainArray) -> PlainArray: ...
@overload
def get(x: Any) -> Any: ...  # no type says "the value of a parameter, or the object itself"
def get(x: Any) -> Any:
    """Returns the value of a parameter, and anything else unchanged.

    Example:
        >>> get(Param(3)), get(3)
        (3, 3)
    """
    return x.get() if isinstance(x, BaseParam) else x


@overload
def set(obj: AnyParam, x: Any) -> AnyParam: ...  # x: whatever the parameter may hold, or another parameter
@overload
def set(obj: Any, x: Any) -> Any: ...  # as for `get`
def set(obj: Any, x: Any) -> Any:
    """Writes `x` into a parameter, and returns the parameter; if `obj` is anything else, returns `x`.

    `x` may itself be a parameter, which stands for its value.

    Example:
        >>> p = Param(1)
        >>> set(p, Param(2)) is p, p.get(), set(1, Param(2))
        (True, 2, 2)
    """
    return obj.set(x) if isinstance(obj, BaseParam) else get(x)

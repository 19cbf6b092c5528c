"""Layers: a definition, and the stateful shell around it.

`layer.nn` is the definition: a pytree with the usual names (`weight`, `bias`), whose call is the layer's equation.
The shell, a `Module`, gives it the train/eval mode and a uniform call. `Layer` puts any callable pytree from elsewhere
into the same shell, its arrays as `LayerParam`s.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import jax
import numpy as np
from jax.tree_util import all_leaves
from jaxtyping import Array, Num

from minipcax.core import BaseModule, BaseParam, DynamicParam, Module, Param, StaticParam, get, static
from minipcax.core.filter import Filter, as_predicate
from minipcax.core.refusals import kind_of
from minipcax.core.tree import is_param, walk
from minipcax.nn._parameter import LayerParam, LayerState

P = ParamSpec("P")
Y = TypeVar("Y")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # which `typing` has from Python 3.13 on

    D = TypeVarWithDefault("D", bound=Callable[..., Any], covariant=True, default=Any)
else:
    D = TypeVar("D")


class Definition(BaseModule):
    """The base of layer definitions: they hold parameters, and may be given others (which shares them), not arrays."""

    if not TYPE_CHECKING:  # a type checker should refuse what is not declared

        def __setattr__(self, name, value):
            present = vars(self).get(name)
            kind = DynamicParam if isinstance(present, DynamicParam) else BaseParam
            if is_array(value) or (isinstance(present, BaseParam) and not isinstance(value, kind)):
                raise TypeError(
                    f"{type(self).__name__}.{name} takes a parameter, found {kind_of(value)}: "
                    f"change the value with .{name}.set(...), or assign another parameter to share it"
                )
            if isinstance(present, Param) and isinstance(value, Param):
                old, new = (jax.tree.map(np.shape, param.get()) for param in (present, value))
                if not (old is None or new is None or old == new):  # a cleared one takes any shape
                    raise ValueError(
                        f"{type(self).__name__}.{name} expected a parameter of the shape of {present!r}, found "
                        f"{value!r}: only layers of the same sizes can share it; nn.Transposed uses a weight the other "
                        "way round"
                    )
            super().__setattr__(name, value)


def is_array(leaf: object) -> bool:
    """Whether a leaf is a JAX or numpy array."""
    return isinstance(leaf, (jax.Array, np.ndarray))


class Layer(Module, Generic[D]):
    """The shell around a definition. `D` is the class of the definition; the layer is called with its arguments.

    Args:
        cls: makes the definition, any callable pytree.
        args: what to call `cls` with.
        filter: which leaves become `LayerParam`s, a class or a predicate; the others become static, arrays among them a
            `LayerState`.
        kwargs: what to call `cls` with.

    Raises:
        TypeError: what `cls` makes can not be called, or is no pytree.

    Example:
        >>> layer = Layer(jax.tree_util.Partial, jnp.multiply, jnp.array(2.0))
        >>> jax.tree.leaves(layer.nn, is_leaf=lambda node: isinstance(node, LayerParam))
        [LayerParam([], float32)]
        >>> float(layer(jnp.array(3.0)))
        6.0
    """

    nn: Any  # a D, but with parameters in the places of arrays, which no type can say; subclasses say more

    # The arguments are those of cls, but parameters may take the place of arrays.
    def __init__(self, cls: Callable[..., D], *args: Any, filter: Filter = is_array, **kwargs: Any) -> None:
        super().__init__()
        if not all_leaves([cls]):
            raise TypeError(
                f"Layer expects the class of a callable pytree, and its arguments, found the object {cls!r}"
            )
        definition, is_weight = cls(*args, **kwargs), as_predicate(filter)
        _check_definition(cls, definition)

        def wrap(leaf: Any) -> BaseParam[Any]:
            if isinstance(leaf, BaseParam):
                return leaf
            return LayerParam(leaf) if is_weight(leaf) else LayerState(leaf) if is_array(leaf) else static(leaf)

        self.nn = jax.tree.map(wrap, definition, is_leaf=is_param)

    if not TYPE_CHECKING:  # a type checker should refuse what is not declared

        def __setattr__(self, name, value):
            if name == "nn" and not callable(value):
                raise TypeError(f"{type(self).__name__}.nn takes a callable pytree, found {kind_of(value)}")
            if name not in ("frozen", *vars(self)) and not hasattr(type(self), name) and "nn" in vars(self):
                held = getattr(self.nn, name, value)
                if held is not value and (is_array(value) or isinstance(held, BaseParam) or held != value):
                    raise AttributeError(f"{type(self).__name__} has no {name} of its own to set: change .nn.{name}")
            super().__setattr__(name, value)

        def __getattr__(self, name):
            if name not in ("nn", "frozen") and hasattr(vars(self).get("nn"), name):
                raise AttributeError(f"{type(self).__name__} has no {name} of its own: read .nn.{name}")
            return super().__getattr__(name)  # which says what is missing

    def mode(self, value: Module.MODE | None = None) -> Module.MODE | None:
        """As `Module.mode`; sets every `inference` flag of the definition as well."""
        mode = super().mode(value)
        if value is not None:
            for _, node in walk(self.nn):
                flag = None if is_param(node) else getattr(node, "inference", None)
                if isinstance(flag, StaticParam):
                    flag.set(value is Module.MODE.EVAL)
                elif isinstance(flag, bool):  # the definition is this layer's own copy, also where its class is frozen
                    object.__setattr__(node, "inference", value is Module.MODE.EVAL)
        return mode

    def __call__(self: "Layer[Callable[P, Y]]", *args: P.args, **kwargs: P.kwargs) -> Y:
        """Calls the definition with the values of its parameters; passes `key` on only when given."""
        if kwargs.get("key") is None:
            kwargs.pop("key", None)
        definition: Callable[P, Y] = jax.tree.map(get, self.nn, is_leaf=is_param)
        return definition(*args, **kwargs)


def _check_definition(cls: object, definition: object) -> None:
    """Refuses what can not be called, and objects in which JAX, and so learning, does not see the weights."""
    expected = f"Layer expects a class of callable pytrees, found {cls!r}, which makes"
    if not callable(definition):
        raise TypeError(f"{expected} {definition!r}")
    if isinstance(definition, Layer):
        raise TypeError(f"{expected} {kind_of(definition)}: that is a layer already, use it as it is")
    is_function = inspect.isroutine(definition) or hasattr(definition, "__wrapped__")
    if all_leaves([definition]) and not is_function:
        raise TypeError(
            f"{expected} {kind_of(definition)}, whose arrays JAX does not see: make it a minipcax.Module with "
            "LayerParams, or a pytree"
        )


class ArrayLayer(Layer):
    """A layer of this library: from one array to another, by a definition that takes parameters as they are."""

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # it knows what its definitions take
        self, x: Num[Array, "..."] | Param, *, key: Array | None = None
    ) -> Num[Array, "..."]:
        """The layer's equation, for one sample; only `Dropout` draws from the key."""
        y: Array = self.nn(self.sample(x))
        return y

    def sample(self, x: object) -> Num[Array, "..."]:
        """The array that is given, or that is held by the parameter which is given."""
        value = get(x)
        if value is None:
            raise TypeError(
                f"{type(self).__name__} expected an array, found None: if a value node before it has no state yet, "
                "initialise the nodes first"
            )
        if not is_array(value):
            raise TypeError(f"{type(self).__name__} expected an array, found {kind_of(value)}: {value!r:.80}")
        array: Array = value
        return array

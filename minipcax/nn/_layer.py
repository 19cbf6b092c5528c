"""Layers: the parameters in `layer.nn`, and the sizes and the equation around them.

There are two kinds. The layers of this library are `ArrayLayer`s: each class states its sizes and its equation. `Layer`
itself wraps a callable pytree from another library, with its arrays made `LayerParam`s, as `layer.nn`.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import jax
from jax.tree_util import all_leaves
from jaxtyping import Array, Num

from minipcax.core import BaseParam, Module, Param, StaticParam, get, static
from minipcax.core.filter import Filter, as_predicate
from minipcax.core.refusals import kind_of
from minipcax.core.tree import is_param, walk
from minipcax.nn._parameter import LayerParam, LayerState, Parameters, check_shared_shape, is_array

P = ParamSpec("P")
Y = TypeVar("Y")

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # in `typing` from Python 3.13 on

    D = TypeVarWithDefault("D", bound=Callable[..., Any], covariant=True, default=Any)
else:
    D = TypeVar("D")


class Layer(Module, Generic[D]):
    """Wraps a callable pytree of another library, such as a layer of equinox, and makes its arrays parameters.

    The pytree is `layer.nn`, with a parameter in the place of every leaf. The layer takes the arguments of the pytree
    and returns what it returns. It is also the base class of all layers of this library.

    Args:
        cls: the class of the pytree, or a function that returns one.
        args: the arguments of `cls`.
        filter: which leaves become `LayerParam`s: a class, a union of classes or a predicate, by default all arrays.
            Other arrays become `LayerState`s, and all other leaves `StaticParam`s.
        kwargs: the keyword arguments of `cls`.

    Raises:
        TypeError: `cls` is not a class or function, or what it returns is not callable or not a pytree.

    Example:
        >>> layer = Layer(jax.tree_util.Partial, jnp.multiply, jnp.array(2.0))
        >>> jax.tree.leaves(layer.nn, is_leaf=lambda node: isinstance(node, LayerParam))
        [LayerParam([], float32)]
        >>> float(layer(jnp.array(3.0)))
        6.0
    """

    nn: Any  # a D with parameters in the places of arrays, which no type can express; subclasses say more

    # The arguments are those of cls, but parameters may take the place of arrays.
    def __init__(self, cls: Callable[..., D], *args: Any, filter: Filter = is_array, **kwargs: Any) -> None:
        super().__init__()
        if not callable(cls) or not all_leaves([cls]):
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

    if not TYPE_CHECKING:  # to a type checker, an undeclared attribute should be an error

        def __setattr__(self, name, value):
            if name == "nn":
                self._check_nn(value)
            if name not in ("frozen", *vars(self)) and not hasattr(type(self), name) and "nn" in vars(self):
                held = getattr(self.nn, name, value)
                if held is not value and (is_array(value) or isinstance(held, BaseParam) or held != value):
                    raise AttributeError(f"{type(self).__name__} has no {name} of its own to set: change .nn.{name}")
            super().__setattr__(name, value)

        def __getattr__(self, name):
            if name not in ("nn", "frozen") and hasattr(vars(self).get("nn"), name):
                raise AttributeError(f"{type(self).__name__} has no {name} of its own: read .nn.{name}")
            return super().__getattr__(name)  # which says what is missing

    def _check_nn(self, value: object) -> None:
        if not callable(value):
            raise TypeError(f"{type(self).__name__}.nn takes a callable pytree, found {kind_of(value)}")

    def mode(self, value: Module.MODE | None = None) -> Module.MODE | None:
        """Like `Module.mode`; also sets every `inference` flag in `nn`."""
        mode = super().mode(value)
        if value is not None:
            for _, node in walk(self.nn):
                flag = None if is_param(node) else getattr(node, "inference", None)
                if isinstance(flag, StaticParam):
                    flag.set(value is Module.MODE.EVAL)
                elif isinstance(flag, bool):  # the pytree is this layer's own copy, even if its class is frozen
                    object.__setattr__(node, "inference", value is Module.MODE.EVAL)
        return mode

    def __call__(self: "Layer[Callable[P, Y]]", *args: P.args, **kwargs: P.kwargs) -> Y:
        """Calls the pytree with the values of its parameters; passes `key` on unless it is None."""
        if kwargs.get("key") is None:
            kwargs.pop("key", None)
        definition: Callable[P, Y] = jax.tree.map(get, self.nn, is_leaf=is_param)
        return definition(*args, **kwargs)


def _check_definition(cls: object, definition: object) -> None:
    """Raises if it is not callable, or if JAX cannot see its arrays."""
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
    """A layer of this library, from one array to another: `_forward` is its equation."""

    def __init__(self) -> None:
        super(Layer, self).__init__()  # that of Layer wraps other classes

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # it knows what it is called with
        self, x: Num[Array, "..."] | Param, *, key: Array | None = None
    ) -> Num[Array, "..."]:
        """Applies the layer to one sample: an array, or a parameter that holds one. Only `Dropout` needs a key."""
        return self._forward(self._array(x))

    def _forward(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        raise NotImplementedError

    def mode(self, value: Module.MODE | None = None) -> Module.MODE | None:
        """Like `Module.mode`; also sets the layer's `inference` flag, if it has one."""
        mode = super().mode(value)
        if value is not None and "inference" in self._static_names:
            self.inference = value is Module.MODE.EVAL
        return mode

    def _check_nn(self, value: object) -> None:
        present = vars(self).get("nn", value)
        if not isinstance(value, Parameters) or type(value) is not type(present):
            expected = f"the parameters of a layer like it, a {type(present).__name__}"
            raise TypeError(f"{type(self).__name__}.nn takes {expected}, found {kind_of(value)}")
        for name, param in vars(value).items():
            check_shared_shape(name, vars(present).get(name), param)

    def _array(self, x: object) -> Num[Array, "..."]:
        """Returns `x` itself, or the array in the parameter `x`."""
        value = get(x)
        if is_array(value):
            return value
        found = f"{kind_of(value)}: {value!r:.80}"
        if value is None:
            found = "None: if a value node before it has no state yet, initialise the nodes first"
        raise TypeError(f"{type(self).__name__} expected an array, found {found}")

"""Modules: the building blocks of a model.

A module is a plain Python object whose attributes are its children in the pytree: parameters, other modules, and lists
and dicts of these. Nothing is registered, and no fields are declared:

    class Model(Module):
        def __init__(self):
            super().__init__()
            self.scale = Param(1.0)

Two things are structure instead of children: the values of `StaticParam`s, and the attributes that a class names, as in
`class Layer(Module, static=("size",))`, because they define the layer and are not part of its state.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, overload

import jax
from jax.tree_util import GetAttrKey

from minipcax.core._node import Branch
from minipcax.core._param import Param
from minipcax.core._parameter import DynamicParam
from minipcax.core._ties import HasTies, followed, tied
from minipcax.core.refusals import refuse_array_for_param, refuse_param_of_class, refuse_params
from minipcax.core.structure import Structure, snapshot
from minipcax.core.trace import last_change, refuse_escape
from minipcax.core.tree import children, leaves, path_name, walk

Child = Any  # a parameter, a module, a bare array, or a container of these
# The part of a module that is not its children: their names, the static attributes, and whether it has ties.
Definition = tuple[tuple[str, ...], tuple[tuple[str, Structure], ...], HasTies]
AnyModule = TypeVar("AnyModule", bound="BaseModule")


class BaseModule(Branch):
    """The base class of all modules: a pytree of its attributes, in the order in which its class first assigned them.

    Attributes are parameters, modules, or lists, tuples and dicts of these; arrays and numbers are read-only inputs of
    transforms. Wrap anything else in `static`, or name it as in `class Layer(BaseModule, static=("size",))`. Assign
    attributes normally: transforms do not notice changes made through `vars(module)`. `module.frozen = True` freezes
    all parameters below it, which inference and learning then do not change. A module may hold one parameter at several
    paths, but not one module: see `nn.shared`.

    Raises:
        TypeError: an array is assigned in the place of a parameter, or a parameter to an attribute that is static.

    Example:
        >>> class Pair(BaseModule):
        ...     def __init__(self) -> None:
        ...         self.b = Param(jnp.zeros(2))
        ...         self.a = Param(None)
        >>> pair = Pair()
        >>> pair
        Pair(
          .b: Param([2], float32)
          .a: Param(None)
        )
        >>> pair.a = pair.b
        >>> pair
        Pair(
          .b: Param([2], float32)
          .a → .b
        )
    """

    __slots__ = ()
    # The names of all children ever assigned, in order, so that all objects of a class have one tree structure, in
    # whatever order each of them got its attributes. A dict serves as an ordered set.
    _order: ClassVar[dict[str, None]] = {}

    def __init_subclass__(cls, static: Iterable[str] = (), **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(static, str):
            raise TypeError(f"{cls.__name__}: static= takes a tuple of names, found {static!r}: write ({static!r},)")
        inherited = (name for base in cls.__bases__ for name in getattr(base, "_static_names", ()))
        cls._static_names = (*dict.fromkeys((*inherited, *static)),)  # each once
        cls._order = {}
        for name, value in vars(cls).items():
            refuse_param_of_class(cls, name, value)
        _register(cls)

    if TYPE_CHECKING:
        frozen: Any  # a bool, unless a model has a child of that name

    else:  # so that a misspelt attribute is an error for a type checker

        def __getattr__(self, name):
            if name == "frozen":
                return bool(self._params_below()) and all(param.frozen for param in self._params_below())
            return super().__getattribute__(name)  # raises

        def __setattr__(self, name, value):
            if name == "frozen" and isinstance(value, bool):
                for param in self._params_below():
                    param.frozen = value
                return
            if name == "__orig_class__":  # Python's own note on an object made by Vode[...]()
                return
            place = f"{type(self).__name__}.{name}"
            refuse_array_for_param(place, vars(self).get(name), value)
            refuse_escape(place, self._trace, value)
            if name in self._static_names:
                # A function may close over a model that it only reads.
                refuse_params(value, f"{place}, which its class says is static,", closures=False)
            type(self)._order.setdefault(name)
            super().__setattr__(name, value)
            last_change.token = object()

    def _params_below(self) -> list[Param]:
        return [param for param in leaves(self) if isinstance(param, Param) and not param.is_carried]

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        last_change.token = object()

    def _names(self) -> tuple[str, ...]:
        return self._layout(tuple(vars(self)))[0]

    def _with(self, children: Iterable[Child]) -> Self:
        attributes = vars(self)
        names, static_names = self._layout(tuple(attributes))
        other = self._blank()
        vars(other).update(zip(names, children, strict=True))
        # As JAX would have copied them, so that a change in the copy does not reach the original.
        vars(other).update([(name, snapshot(attributes[name])) for name in static_names])
        return other

    def _flatten(self) -> tuple[tuple[Child, ...], Definition]:
        attributes = vars(self)
        names, static_names = self._layout(tuple(attributes))
        static = tuple([(name, Structure(attributes[name])) for name in static_names])
        children, has_ties = tied(self, names)  # see `_ties`: without repeats, just the attributes
        return tuple(children), (names, static, has_ties)

    @classmethod
    @cache
    def _layout(cls, attributes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The attributes of an object that are children, and those that are static, in order.

        The answer never changes, because names are only added at the end of the order.
        """
        for name in attributes:  # some may have got there without __setattr__
            cls._order.setdefault(name)
        return (
            tuple(name for name in cls._order if name in attributes and name not in cls._static_names),
            tuple(name for name in cls._static_names if name in attributes),
        )

    def _flatten_with_keys(self) -> tuple[tuple[tuple[Any, Child], ...], Definition]:
        values, definition = self._flatten()
        return tuple((GetAttrKey(name), value) for name, value in zip(definition[0], values, strict=True)), definition

    @classmethod
    def _unflatten(cls, definition: Definition, values: Iterable[Child]) -> Self:
        names, static, has_ties = definition
        module = cls._blank()
        if has_ties:
            values = followed([((GetAttrKey(name),), value) for name, value in zip(names, values, strict=True)])
        vars(module).update(zip(names, values, strict=True))
        vars(module).update((name, held.get()) for name, held in static)
        return module

    @overload
    def submodules(self) -> Iterator["BaseModule"]: ...
    @overload
    def submodules(self, cls: type[AnyModule]) -> Iterator[AnyModule]: ...
    def submodules(self, cls: type[Any] | None = None) -> Iterator[Any]:
        """Yields the nearest modules of a class below this one, each once.

        It looks through lists, tuples, dicts and modules of other classes, but not below a match.

        Args:
            cls: the class; by default any module.
        """
        target = cls or BaseModule
        seen = {id(self)}

        def nearest(node: object) -> Iterator[Any]:
            for _, child in children(node):
                if isinstance(child, BaseModule):
                    if id(child) in seen:
                        continue
                    seen.add(id(child))
                if isinstance(child, target):
                    yield child
                else:
                    yield from nearest(child)

        return nearest(self)

    def __repr__(self) -> str:
        first: dict[int, str] = {}
        lines = []
        for path, node in walk(self):
            if isinstance(node, DynamicParam):
                name = path_name(path)
                shared = first.setdefault(id(node), name) != name
                lines.append(f"  {name} → {first[id(node)]}\n" if shared else f"  {name}: {node!r}\n")
        return f"{type(self).__name__}(\n{''.join(lines)})" if lines else f"{type(self).__name__}()"


def _register(cls: type[BaseModule]) -> None:
    jax.tree_util.register_pytree_with_keys(cls, cls._flatten_with_keys, cls._unflatten, cls._flatten)


_register(BaseModule)

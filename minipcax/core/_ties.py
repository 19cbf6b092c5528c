"""Ties: how a model that plain JAX takes apart keeps its sharing.

For `jax.tree.map`, `jax.grad` or `optax`, a model is a tree with a leaf for each path, so that one parameter with two
paths would become two. Instead, the nearest module above both paths gives JAX the parameter in the first place, and a
`Tie`, which has no leaf, in the second. When JAX builds that module again, around any other leaves, the module follows
its ties:

      model                     what JAX is given               what JAX gives back
       ├ layers[0].weight ─┐     ├ layers[0].weight: W           ├ layers[0].weight ─┐
       ├ layers[1].weight ─┴ W   ├ layers[1].weight: Tie(2 keys  ├ layers[1].weight ─┴ f(W)
       └ scale: s                │   up, then layers[0].weight)  └ scale: f(s)
                                 └ scale: s

A tie says how many keys up the module is that follows it, and which keys lead down from there to the parameter. JAX is
given *views* of the modules on the way to a tie: other objects with the same attributes, which show JAX children of
their own, with the tie among them. So there are two ways to look at a model: by its attributes, as all functions in
`tree` do, and as JAX does, which also looks into views (`in_view`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from jax.tree_util import GetAttrKey

from minipcax.core._node import Branch, Node, Path, parts
from minipcax.core._parameter import BaseParam
from minipcax.core.tree import ParamRef, children, path_name


class Tie(ParamRef):
    """Stands where a parameter occurs again, for JAX. Reads and writes go to the parameter."""

    __slots__ = ("_target",)
    _target: BaseParam[Any] | None  # None after JAX has built the tree again

    def __init__(self, levels: int, path: Path, target: BaseParam[Any] | None = None) -> None:
        for name, value in (("_value", (levels, path)), ("_target", target)):
            object.__setattr__(self, name, value)

    @property
    def original(self) -> BaseParam[Any]:
        """The parameter, if it is known."""
        return self if self._target is None else self._target

    @property
    def value(self) -> Any:
        """The value of the parameter."""
        return self._known().value

    @value.setter
    def value(self, value: Any) -> None:
        self._known().value = value

    def _known(self) -> BaseParam[Any]:
        if self._target is None:
            raise ValueError(
                f"this place is tied to {path_name(self._value[1])} of a module around it, which JAX was not given: "
                "give it the whole module, or a nn.shared copy of this part"
            )
        return self._target

    def __getattr__(self, name: str) -> Any:  # whatever the parameter has
        if name.startswith("__") or self._target is None:
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        return getattr(self._target, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._target, name, value)

    def __repr__(self) -> str:
        return f"Tie({path_name(self._value[1])})"

    def structure(self) -> tuple[Any, ...]:
        return tuple(self._value)

    @classmethod
    def from_structure(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> "Tie":
        return cls(*structure)


@dataclass(frozen=True)
class HasTies:
    """Part of the structure of a module: whether it has ties to follow.

    Any two are equal, so that a tree of axes or labels, which has no ties, fits a model that has. Nothing is lost: ties
    are nodes of the tree, which JAX compares anyway.
    """

    answer: bool = field(compare=False)

    def __bool__(self) -> bool:
        return self.answer


TIES, NO_TIES = HasTies(True), HasTies(False)


def tied(module: Branch, names: tuple[str, ...]) -> tuple[Sequence[Node], HasTies]:
    """The children of a module, as JAX is given them."""
    in_view = module._view is not None
    attributes = vars(module)
    given = module._view[1] if in_view else [attributes[name] for name in names]
    if not _has_repeats(given, in_view):
        return given, NO_TIES
    first: dict[int, tuple[Path, Path]] = {}

    def tie(path: Path, node: Node, inside: Path) -> Node:
        """The node that JAX is given. `inside` is the path of the child of `module` that it is in or below, or ()."""
        if isinstance(node, ParamRef):
            return node
        if isinstance(node, BaseParam):
            start, around = first.setdefault(id(node), (path, inside))
            # If `layer.a` and `layer.b` are one parameter, `layer` ties them, and `model`, above it, need not.
            return node if start == path or (inside and inside == around) else Tie(len(path), start, node)
        if isinstance(node, Branch):
            node = node if in_view else _seen_through(node)
            keys, old = node._names(), _given(node, in_view)
            new = [tie((*path, GetAttrKey(key)), child, inside or path) for key, child in zip(keys, old, strict=True)]
            return node if all(map(is_, old, new)) else _view_of(node, new)
        below, build = parts(node) or ((), lambda _: node)
        return build([tie(path + key, child, inside) for key, child in below])

    return [tie((GetAttrKey(key),), child, ()) for key, child in zip(names, given, strict=True)], TIES


def _given(node: Branch, in_view: bool) -> Sequence[Node]:
    """The children of a module, or those that a view shows JAX."""
    if in_view and node._view is not None:
        children: Sequence[Node] = node._view[1]
        return children
    attributes = vars(node)
    return [attributes[name] for name in node._names()]


def _view_of(node: Branch, given: Sequence[Node]) -> Branch:
    view = object.__new__(type(node))
    for name, value in (("__dict__", vars(node)), ("_trace", node._trace), ("_view", (_seen_through(node), given))):
        object.__setattr__(view, name, value)
    return view


def _seen_through(node: Branch) -> Branch:
    """The module behind a view, which may have got into a model, as with `is_leaf` of `jax.tree.map`."""
    return node if node._view is None else node._view[0]


def _has_repeats(given: Sequence[Node], in_view: bool) -> bool:
    """Whether a parameter occurs more than once in or below these nodes, or there is a view where none should be."""
    if len(given) == 1 and isinstance(given[0], Branch) and (in_view or given[0]._view is None):
        return False  # that module has its own ties
    params, nodes = [], [*given]
    for node in nodes:  # grows as it goes
        if isinstance(node, BaseParam):
            if not isinstance(node, ParamRef):
                params.append(id(node))
        elif isinstance(node, Branch):
            if node._view is None:
                static = node._static_names
                nodes += [child for name, child in vars(node).items() if name not in static]
            elif in_view:
                nodes += node._view[1]
            else:
                return True
        elif isinstance(node, (list, tuple)):
            nodes += node
        elif isinstance(node, dict):
            nodes += node.values()
        elif node is not None and not hasattr(node, "dtype"):
            nodes += [child for _, child in children(node)]
    return len({*params}) < len(params)


def followed(below: Sequence[tuple[Path, Node]]) -> list[Node]:
    """The children of a module that JAX has built, after following the ties of this module."""

    def follow(path: Path, node: Node) -> Node:
        if isinstance(node, Tie):
            levels, target = node._value
            return _at(target, below, node) if levels == len(path) else node
        if isinstance(node, Branch):
            keys, old = node._names(), _given(node, in_view=True)
            new = [follow((*path, GetAttrKey(key)), child) for key, child in zip(keys, old, strict=True)]
            return node if all(map(is_, old, new)) else node._with(new)
        below_node, build = parts(node) or ((), lambda _: node)
        return build([follow(path + key, child) for key, child in below_node])

    return [follow(key, child) for key, child in below]


def _at(path: Path, below: Sequence[tuple[Path, Node]], otherwise: Node) -> Node:
    """The node at the end of a path, or `otherwise` if something else is in its way."""
    key, *rest = path
    child = next((child for (its_key,), child in below if its_key == key), otherwise)
    return _at(tuple(rest), children(child), otherwise) if rest and child is not otherwise else child

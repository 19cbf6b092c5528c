"""Walks over a model, which visit a parameter as often as it occurs.

For how repeats become references, see `_tree`; for how JAX sees a model, see `_ties`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from jax import tree_util as jtu

from minipcax.core._node import Branch, Node, Path, parts
from minipcax.core._parameter import BaseParam, DynamicParam
from minipcax.core.filter import Predicate

Tree = TypeVar("Tree")


class ParamRef(BaseParam[Any]):
    """Stands where a parameter occurs again. Its value is the position of the parameter, in traversal order.

    If the argument of `tree_ref` already holds a reference, that is wrapped in another, which `tree_unref` removes.
    """

    __slots__ = ()
    _has_leaves = False

    @property
    def original(self) -> BaseParam[Any]:
        """The node that is meant to be in this place: for a `Tie`, the parameter."""
        return self

    def structure(self) -> tuple[Any, ...]:
        """The position, which is compared with that of other references."""
        return (self._value,)

    @classmethod
    def from_structure(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> "ParamRef":
        """A reference to this position."""
        return cls(*structure)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParamRef) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash((type(self), self._value))


def is_param(node: Node) -> bool:
    """Whether a node is a parameter."""
    return isinstance(node, BaseParam)


def is_dynamic(node: Node) -> bool:
    """Whether a node is a parameter that transforms track."""
    return isinstance(node, DynamicParam)


def children(node: Node) -> Sequence[tuple[Path, Node]]:
    """The nodes right below a node, with the keys that lead to them."""
    taken_apart = parts(node)
    return taken_apart[0] if taken_apart else ()


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Yields every node with its path, from the root down, once per occurrence."""
    node = node.original if isinstance(node, ParamRef) else node
    yield path, node
    for key, child in children(node):
        yield from walk(child, path + key)


def leaves(node: Node) -> list[Node]:
    """The parameters and all other leaves, in order, once per occurrence."""
    found: list[Node] = []

    def look(node: Node) -> None:
        if isinstance(node, BaseParam):
            found.append(node.original if isinstance(node, ParamRef) else node)
        elif isinstance(node, Branch):
            attributes = vars(node)
            for name in node._names():
                look(attributes[name])
        elif (taken_apart := parts(node)) is None:
            found.append(node)
        else:
            for _, child in taken_apart[0]:
                look(child)

    look(node)
    return found


def map_params(fn: Callable[[Any], object], node: Node, views: list[Branch] | None = None) -> Node:
    """Returns a tree of the same structure, with `fn(param)` in the place of every occurrence of a parameter.

    It holds no views (see `_ties`); those that it finds are added to `views`.
    """
    if isinstance(node, BaseParam):
        return fn(node.original if isinstance(node, ParamRef) else node)
    if isinstance(node, Branch):  # not through `parts`, which makes keys, and that takes time
        if views is not None and node._view is not None:
            views.append(node)
        attributes = vars(node)
        return node._with([map_params(fn, attributes[name], views) for name in node._names()])
    taken_apart = parts(node)
    if taken_apart is None:
        return node
    below, build = taken_apart
    return build([map_params(fn, child, views) for _, child in below])


path_name = jtu.keystr  # a path as people write it: `.layers[0].nn.weight`


def paths_of_params(tree: object) -> list[tuple[DynamicParam[Any], list[str]]]:
    """The dynamic parameters in traversal order, each once, with all paths that lead to it."""
    found: dict[int, tuple[DynamicParam[Any], list[str]]] = {}
    for path, node in walk(tree):
        if isinstance(node, DynamicParam):
            found.setdefault(id(node), (node, []))[1].append(path_name(path))
    return list(found.values())


def copied(tree: Tree) -> Tree:
    """A copy of a tree down to the values of parameters, which keeps the sharing within modules."""
    copy: Tree = jax.tree.map(lambda leaf: leaf, tree)
    return copy


# `fn` takes nodes of the types that `filter_fn` accepts, which no type can say.
def tree_apply(fn: Callable[[Any], object], filter_fn: Predicate, tree: object, recursive: bool = True) -> None:
    """Calls `fn` with every node that `filter_fn` accepts, once per occurrence, from the root down.

    Args:
        fn: a function of a node; what it returns is ignored.
        filter_fn: a function of a node (a module, parameter or container) that returns whether to call `fn` with it.
        tree: a model, or any tree of models and parameters.
        recursive: whether to look below a match as well.

    Example:
        >>> tree_apply(lambda p: p.set(0), lambda node: isinstance(node, Param), [p := Param(1)])
        >>> p.get()
        0
    """
    matches = filter_fn(tree)
    if matches:
        fn(tree)
    if recursive or not matches:
        for _, child in children(tree):
            tree_apply(fn, filter_fn, child, recursive)

"""A model as a tree: what JAX sees of it, and how one parameter may be in it many times.

A pytree is a tree, but a model that shares parameters is a graph without cycles (a DAG): one parameter is reached by
several paths. Flattening would turn each path into a copy. So the repeats are first replaced by references:

    a = [p, q, p]                       # one parameter, reached twice
    tree_ref(a) == [p, q, reference(0)] # a true tree, which JAX may take apart
    tree_unref(...) == [p, q, p]        # the same object twice again

The other functions walk a model: `tree_apply` visits nodes, `tree_extract` and `tree_inject` read and write parameters.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, overload

import jax
from jax import tree_util as jtu

from minipcax.core._filter import Predicate
from minipcax.core._parameter import BaseParam, DynamicParam, get, set

Tree = TypeVar("Tree")
Extracted = TypeVar("Extracted")
# Nodes of a tree may be of any type, and its leaves too.
Node = Any
Path = tuple[Any, ...]


class ParamRef(BaseParam[Any]):
    """Stands where a parameter occurs again: its value is the parameter's position among all, in traversal order.

    A reference that `tree_ref` finds in its argument is wrapped in one more, which `tree_unref` takes off again.
    """

    __slots__ = ()
    _has_leaves = False

    def structure(self) -> tuple[Any, ...]:
        return (self.value,)

    @classmethod
    def from_structure(cls, structure: tuple[Any, ...], children: Iterable[Any]) -> "ParamRef":
        return cls(*structure)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParamRef) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((ParamRef, self.value))


def is_param(node: Node) -> bool:
    """Whether a node is a parameter, where a walk over a model stops."""
    return isinstance(node, BaseParam)


def is_dynamic(node: Node) -> bool:
    """Whether a node is a parameter that transforms track."""
    return isinstance(node, DynamicParam)


def tree_ref(pydag: Tree) -> Tree:
    """Replaces every repeat of a parameter by a reference to its first occurrence, which stays the same object.

    Example:
        >>> p = Param(1.0)
        >>> tree = tree_ref([p, p])
        >>> tree[0] is p, tree[1]
        (True, ParamRef(0))
        >>> [node is p for node in tree_unref(tree)]
        [True, True]
    """
    positions: dict[int, int] = {}
    repeats = False

    def ref(node: Node) -> Node:
        nonlocal repeats
        if not isinstance(node, BaseParam):
            return node
        if isinstance(node, ParamRef) or id(node) in positions:
            repeats = True
            return ParamRef(positions.get(id(node), node))
        positions[id(node)] = len(positions)
        return node

    tree: Tree = jax.tree.map(ref, pydag, is_leaf=is_param)
    return tree if repeats else pydag


def tree_unref(tree: Tree) -> Tree:
    """Puts the parameters back that `tree_ref` replaced.

    Raises:
        ValueError: a reference points at a parameter that the tree does not have.

    Example:
        >>> p = Param(1.0)
        >>> tree_unref(tree_ref([p, [p]]))[1][0] is p
        True
    """
    params: list[Node] = []
    references = False

    def unref(node: Node) -> Node:
        nonlocal references
        if isinstance(node, ParamRef):
            references = True
            if isinstance(node.value, ParamRef):
                return node.value
            if node.value >= len(params):
                raise ValueError(
                    f"{node!r} points at parameter number {node.value}, but only {len(params)} come before it: "
                    "pass the whole tree that tree_ref gave, with nothing removed"
                )
            return params[node.value]
        if isinstance(node, BaseParam):
            params.append(node)
        return node

    pydag: Tree = jax.tree.map(unref, tree, is_leaf=is_param)
    return pydag if references else tree


def children(node: Node) -> list[tuple[Path, Node]]:
    """The nodes right below one, with the keys that lead to them. What a parameter holds is its own affair: none."""
    if isinstance(node, BaseParam):
        return []
    below = jtu.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)[0]
    return [] if len(below) == 1 and below[0][1] is node else below


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every node with its path, from the root down, once per occurrence."""
    yield path, node
    for key, child in children(node):
        yield from walk(child, path + key)


path_name = jtu.keystr  # a path as people write it: `.layers[0].nn.weight`


def paths_of_params(tree: object) -> list[tuple[DynamicParam[Any], list[str]]]:
    """The dynamic parameters in traversal order, each once, with all paths that lead to it."""
    found: dict[int, tuple[DynamicParam[Any], list[str]]] = {}
    for path, node in jtu.tree_leaves_with_path(tree, is_leaf=is_param):
        if isinstance(node, DynamicParam):
            found.setdefault(id(node), (node, []))[1].append(path_name(path))
    return list(found.values())


# Functions that are applied to nodes take those of their own types, which filter_fn alone knows.
def tree_apply(fn: Callable[[Any], object], filter_fn: Predicate, tree: object, recursive: bool = True) -> None:
    """Runs `fn` on every node that `filter_fn` accepts, once per occurrence, from the root down.

    With `recursive=False` it does not look below a match.

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


def _itself(node: Node, *rest: Node) -> Node:
    return node


@overload
def tree_extract(
    tree: object, *rest: object, filter_fn: Predicate = ..., is_pytree: bool = ...
) -> tuple[Any, ...]: ...  # parameters, of the class that filter_fn looks for
@overload
def tree_extract(
    tree: object, *rest: object, extract_fn: Callable[..., Extracted], filter_fn: Predicate = ..., is_pytree: bool = ...
) -> tuple[Extracted, ...]: ...  # extract_fn takes as many arguments as there are trees
def tree_extract(
    tree: object,
    *rest: object,
    extract_fn: Callable[..., Any] = _itself,
    filter_fn: Predicate = is_dynamic,
    is_pytree: bool = False,
) -> tuple[Any, ...]:
    """The parameters that `filter_fn` accepts, in traversal order, each once.

    Args:
        tree: where to look.
        rest: trees of the same structure; `extract_fn` gets what they hold at each parameter's place as well.
        extract_fn: what to return of each parameter; by default the parameter.
        filter_fn: which parameters; by default the dynamic ones.
        is_pytree: promises that there are no repeats, which saves looking for them.

    Example:
        >>> p = Param(1.0)
        >>> tree_extract([p, static("x"), p], extract_fn=get)
        (1.0,)
    """
    found: list[Any] = []

    def visit(node: Node, *rest: Node) -> None:
        if is_param(node) and not isinstance(node, ParamRef) and filter_fn(node):
            found.append(extract_fn(node, *rest))

    jax.tree.map(visit, tree if is_pytree else tree_ref(tree), *rest, is_leaf=is_param)
    return tuple(found)


def tree_inject(
    tree: Tree,
    *,
    params: Iterable[BaseParam[Any]] | None = None,
    values: Iterable[object] | None = None,
    inject_fn: Callable[[Any, Any], object] = set,  # see tree_apply
    filter_fn: Predicate = is_dynamic,
    is_pytree: bool = False,
    strict: bool = True,
) -> Tree:
    """Writes values, or those of other parameters, into the parameters of a tree, in place; returns the tree.

    Args:
        tree: where to write.
        params: parameters whose values to write, in traversal order, one for each parameter of the tree.
        values: the same as plain values; give one of the two.
        inject_fn: how to write; called with the parameter and the value.
        filter_fn: which parameters; by default the dynamic ones.
        is_pytree: promises that there are no repeats, which saves looking for them.
        strict: whether the number of values must be that of the parameters; else the shorter decides.

    Raises:
        ValueError: the counts differ. Nothing is written.

    Example:
        >>> tree_inject([p := Param(1.0)], values=[2.0])
        [Param(2.0)]
    """
    if (params is None) == (values is None):
        raise TypeError("tree_inject takes what to write either as params=... or as values=...: give one of the two")
    targets = tree_extract(tree, filter_fn=filter_fn, is_pytree=is_pytree)
    new = [get(x) for given in (params, values) if given is not None for x in given]
    if strict and len(new) != len(targets):
        raise ValueError(
            f"the number of values to write must be the number of parameters that are selected: expected "
            f"{len(targets)}, found number of values {len(new)}; nothing was written"
        )
    for target, value in zip(targets, new, strict=False):
        inject_fn(target, value)
    return tree

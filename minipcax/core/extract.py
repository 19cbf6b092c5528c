"""Reading and writing the parameters of a model, as a flat list in a fixed order."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import jax

from minipcax.core._node import Branch, Node
from minipcax.core._parameter import BaseParam, get, set
from minipcax.core._tree import tree_ref
from minipcax.core.filter import Filter, Predicate, as_predicate
from minipcax.core.tree import ParamRef, is_dynamic, is_param, leaves

Tree = TypeVar("Tree")
Extracted = TypeVar("Extracted")
Params = Branch | BaseParam[Any] | Iterable[Branch | BaseParam[Any]] | Mapping[Any, Any]  # trees that hold parameters


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
    """Returns the parameters that `filter_fn` accepts, as a tuple, in traversal order, each once.

    Args:
        tree: a model, or any tree of models and parameters.
        rest: trees of the same structure; `extract_fn` also takes what they hold in the place of each parameter.
        extract_fn: a function of a parameter that returns the entry for it; by default the parameter itself.
        filter_fn: a function of a parameter that returns whether to include it; by default dynamic ones are.
        is_pytree: whether the caller guarantees that no parameter occurs twice, which saves looking for repeats.

    Example:
        >>> p = Param(1.0)
        >>> tree_extract([p, static("x"), p], extract_fn=get)
        (1.0,)
    """
    if not rest:
        params = [node for node in leaves(tree) if is_param(node) and not isinstance(node, ParamRef)]
        unique = params if is_pytree else {id(param): param for param in params}.values()
        return tuple([extract_fn(param) for param in unique if filter_fn(param)])
    found: list[Any] = []

    def visit(node: Node, *rest: Node) -> None:
        if is_param(node) and not isinstance(node, ParamRef) and filter_fn(node):
            found.append(
                extract_fn(node, *[other.original if isinstance(other, ParamRef) else other for other in rest])
            )

    jax.tree.map(visit, tree if is_pytree else tree_ref(tree), *rest, is_leaf=is_param)
    return tuple(found)


def tree_inject(
    tree: Tree,
    *,
    params: Params | None = None,
    values: Iterable[object] | None = None,
    inject_fn: Callable[[Any, Any], object] = set,  # of a parameter and a value
    filter_fn: Predicate = is_dynamic,
    is_pytree: bool = False,
    strict: bool = True,
) -> Tree:
    """Writes values, or those of other parameters, into the parameters of a tree in place, and returns the tree.

    Args:
        tree: a model, or any tree of models and parameters.
        params: the parameters to read, one for each parameter of the tree, in traversal order: a sequence of them, or
            any tree, from which `filter_fn` selects.
        values: an iterable of plain values, instead of `params`.
        inject_fn: a function of a parameter and a value that writes it; by default `set`.
        filter_fn: a function of a parameter that returns whether to write to it; by default dynamic ones are written.
        is_pytree: whether the caller guarantees that no parameter occurs twice, which saves looking for repeats.
        strict: whether to require as many values as parameters; if `False`, the rest of the longer is ignored.

    Raises:
        TypeError: both or neither of `params` and `values` are given.
        ValueError: the counts differ; nothing is written.

    Example:
        >>> tree_inject([p := Param(1.0)], values=[2.0])
        [Param(2.0)]
    """
    if (params is None) == (values is None):
        raise TypeError("tree_inject takes what to write either as params=... or as values=...: give one of the two")
    targets = tree_extract(tree, filter_fn=filter_fn, is_pytree=is_pytree)
    # All values are read before the first is written, because the parameters to read may be among the targets.
    new = [get(x) for x in (_in_order(params, filter_fn) if values is None else values)]
    if strict and len(new) != len(targets):
        raise ValueError(
            f"the number of values to write must be the number of parameters that are selected: expected "
            f"{len(targets)}, found number of values {len(new)}; nothing was written (params= takes parameters, values="
            " what they hold)"
        )
    for target, value in zip(targets, new, strict=False):
        inject_fn(target, value)
    return tree


def _in_order(params: Params | None, filter_fn: Predicate) -> Iterable[BaseParam[Any]]:
    given: Any = params if params is None or isinstance(params, (BaseParam, Branch, Mapping)) else list(params)
    if isinstance(given, list) and all(map(is_param, given)):
        return given
    return tree_extract(given, filter_fn=filter_fn)


def clear_params(model: object, filter: Filter) -> None:
    """Sets the selected parameters of a model, or of any tree of models, to `None`."""
    select = as_predicate(filter)
    for param in tree_extract(model, filter_fn=lambda param: is_dynamic(param) and select(param)):
        param.set(None)

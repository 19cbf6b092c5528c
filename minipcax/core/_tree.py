"""References: how a model in which one parameter occurs many times becomes a tree.

A pytree is a tree, but a model that shares parameters is a graph without cycles (a DAG): several paths lead to one
parameter. Flattening would turn each path into a copy. So the repeats are first replaced by references:

    a = [p, q, p]                       # one parameter, reached twice
    tree_ref(a) == [p, q, reference(0)] # a true tree, which JAX may take apart
    tree_unref(...) == [p, q, p]        # the same object twice again
"""

from typing import TypeVar

from minipcax.core._node import Branch, Node
from minipcax.core.tree import ParamRef, map_params

Tree = TypeVar("Tree")


def tree_ref(pydag: Tree) -> Tree:
    """Replaces every repeat of a parameter by a reference to its first occurrence, which stays the same object.

    The result is a true tree, with which JAX keeps sharing; `tree_unref` reverses it. A tree without repeats is
    returned unchanged.

    Args:
        pydag: a model, or any tree of models and parameters.

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
        if isinstance(node, ParamRef) or id(node) in positions:  # an existing reference is wrapped
            repeats = True
            return ParamRef(positions.get(id(node), node))
        positions[id(node)] = len(positions)
        return node

    views: list[Branch] = []  # which have been replaced by modules
    tree: Tree = map_params(ref, pydag, views)
    return tree if repeats or views else pydag


def tree_unref(tree: Tree) -> Tree:
    """Puts back the parameters that `tree_ref` replaced by references.

    Args:
        tree: the whole tree that `tree_ref` returned, or one that JAX made of it.

    Raises:
        ValueError: a reference points at a parameter that the tree does not have.

    Example:
        >>> p = Param(1.0)
        >>> tree_unref(tree_ref([p, [p]]))[1][0] is p
        True
    """
    params: list[Node] = []  # by position, as `tree_ref` counted them
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
        params.append(node)
        return node

    pydag: Tree = map_params(unref, tree)
    return pydag if references else tree

"""One step down a tree: the children of a node, and how to make such a node from other children."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

from jax import tree_util as jtu

from minipcax.core._parameter import BaseParam
from minipcax.core.trace import current_trace

Node = Any  # of a tree: users put objects of their own there
Path = tuple[Any, ...]
# The nodes right below one, with the keys that lead to them; and a function that makes such a node from others.
Parts = tuple[Sequence[tuple[Path, Node]], Callable[[Iterable[Node]], Node]]


class Branch:
    """A node whose children are its own attributes: the base of modules, see `_module`."""

    __slots__ = ("__dict__", "__weakref__", "_trace", "_view")
    _static_names: ClassVar[tuple[str, ...]] = ()  # of attributes that are not children
    _trace: object  # in which it was made
    _view: Any  # None; or, in a view (see `_ties`), the node that it shows, and its children for JAX

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        return cls._blank()

    @classmethod
    def _blank(cls) -> Self:
        node = object.__new__(cls)
        _set_view(node, None)
        _set_trace(node, current_trace())
        return node

    def __getstate__(self) -> dict[str, Any]:  # without the trace: a copy records its own
        return vars(self)

    def _names(self) -> tuple[str, ...]:
        """The attributes that are children, in order."""
        raise NotImplementedError

    def _with(self, children: Iterable[Node]) -> Self:
        """A node like this one, with other children."""
        raise NotImplementedError


# These two bypass `__setattr__`, which is for children.
_set_view: Callable[[Branch, Any], None] = vars(Branch)["_view"].__set__
_set_trace: Callable[[Branch, object], None] = vars(Branch)["_trace"].__set__


def parts(node: Node) -> Parts | None:
    """Takes a node apart by one level; `None` for a leaf, such as a parameter, whatever that holds."""
    if isinstance(node, BaseParam):
        return None
    if isinstance(node, Branch):
        attributes = vars(node)
        return [((jtu.GetAttrKey(name),), attributes[name]) for name in node._names()], node._with
    flat: tuple[list[tuple[Path, Node]], Any] = jtu.tree_flatten_with_path(
        node, is_leaf=lambda other: other is not node
    )
    below, treedef = flat
    return None if len(below) == 1 and below[0][1] is node else (below, treedef.unflatten)

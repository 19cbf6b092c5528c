"""`M`: a little language for saying which parameters one means.

    M(LayerParam)                                  # by class, or a union of classes
    M(VodeParam).hasnot(frozen=True)               # and by attribute
    (M(LayerParam) | M(StateParam)) & ~M(my_predicate)
    M(VodeParam | VodeParam.Cache).to((None, 0))   # 0 for what is selected, None for the rest

Called with a tree, a mask gives the same tree with what it selects, and `None` (or the values of `to`) in the other
parameters' places. That is what optimisers and transforms take.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax

from minipcax.core import BaseParam, tree_ref
from minipcax.core._filter import Filter, Predicate, as_predicate
from minipcax.core._tree import ParamRef, is_param

Tree = TypeVar("Tree")


class M:
    """Selects parameters by class, union of classes, predicate, or another mask; `None` selects all, statics too.

    A shared parameter is selected once, at its first occurrence.

    Example:
        >>> layer = Linear(2, 3)
        >>> M(LayerParam)(layer).nn.weight is layer.nn.weight
        True
        >>> M(LayerParam).has(ndim=1).to((False, True))(layer).nn.bias
        True
    """

    def __init__(self, target: Filter | None = None) -> None:
        self._predicate: Predicate = (lambda param: True) if target is None else as_predicate(target)
        self._values: tuple[Any, Any] | None = None

    def apply(self, leaf: object) -> bool:
        """Whether the mask selects a node: a parameter, and not a reference to one."""
        return isinstance(leaf, BaseParam) and not isinstance(leaf, ParamRef) and bool(self._predicate(leaf))

    def to(self, values: Sequence[Any] | None) -> "M":  # values of any kind: axes, bools, labels, ...
        """Sets what to put at every parameter's place, (unselected, selected); `None` undoes it. Returns the mask."""
        if values is not None and len(values) != 2:
            raise ValueError(f"M.to expects two values, (unselected, selected), found {values!r}")
        self._values = None if values is None else (values[0], values[1])
        return self

    def __call__(self, tree: Tree, *, is_pytree: bool = False) -> Tree:
        """The tree with what is selected, and `None` elsewhere, or with the values of `to`.

        `is_pytree=True` promises that no parameter is there twice.
        """

        def answer(node: Any) -> Any:
            selected = self.apply(node)
            if self._values is None or not is_param(node):
                return node if selected else None
            return self._values[selected]

        masked: Tree = jax.tree.map(answer, tree if is_pytree else tree_ref(tree), is_leaf=is_param)
        return masked

    def has(self, **attributes: object) -> "M":
        """Selects of these the parameters that have all attributes with these values."""
        return self & M(lambda param: all(_has(param, name, value) for name, value in attributes.items()))

    def hasnot(self, **attributes: object) -> "M":
        """Selects of these the parameters that have none of the attributes with these values."""
        return self & M(lambda param: not any(_has(param, name, value) for name, value in attributes.items()))

    def __and__(self, other: Filter | None) -> "M":
        second = M(other)
        return M(lambda param: self.apply(param) and second.apply(param))

    def __or__(self, other: Filter | None) -> "M":
        return M_is(self, other)

    def __invert__(self) -> "M":
        return M(lambda param: not self.apply(param))

    __rand__ = __and__
    __ror__ = __or__


def _has(param: BaseParam[Any], name: str, value: object) -> bool:
    return hasattr(param, name) and bool(getattr(param, name) == value)


def M_is(*masks: Filter | None) -> M:
    """Selects what any of the masks selects.

    Example:
        >>> M_is(LayerParam, StateParam).apply(LayerParam(1.0))
        True
    """
    alternatives = [M(mask) for mask in masks]
    return M(lambda param: any(mask.apply(param) for mask in alternatives))


def M_has(mask: Filter | None = None, **attributes: object) -> M:
    """`M(mask).has(...)`.

    Example:
        >>> M_has(Param, ndim=0).apply(Param(jnp.array(1.0)))
        True
    """
    return M(mask).has(**attributes)


def M_hasnot(mask: Filter | None = None, **attributes: object) -> M:
    """`M(mask).hasnot(...)`.

    Example:
        >>> M_hasnot(Param, frozen=True).apply(Param(1.0))
        True
    """
    return M(mask).hasnot(**attributes)

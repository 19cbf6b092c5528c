"""`M`: a small language for selecting parameters.

    M(LayerParam)                                  # by class, or a union of classes
    M(VodeParam).hasnot(frozen=True)               # and by attribute
    (M(LayerParam) | M(StateParam)) & ~M(my_predicate)
    M(VodeParam | VodeParam.Cache).to((None, 0))   # 0 for the selected ones, None for the rest

Called with a tree, a mask returns the same tree with `None` in place of the parameters that it does not select, or with
the two values of `to` in place of all. That is the form that optimisers and transforms take.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, TypeVar, get_args

import jax
import numpy as np

from minipcax.core import BaseModule, BaseParam, tree_ref
from minipcax.core.filter import Filter, Predicate, as_predicate
from minipcax.core.refusals import kind_of
from minipcax.core.tree import ParamRef, is_param

Tree = TypeVar("Tree")
ARRAYS, NUMBERS = (jax.Array, np.ndarray, np.generic), (bool, int, float, complex)


@dataclass(frozen=True, repr=False)
class _Combined:
    """A predicate that is made of masks, and how it was written."""

    selects: Predicate
    text: str

    def __call__(self, param: BaseParam[Any]) -> bool:
        return self.selects(param)

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False, repr=False)
class M:
    """A mask that selects parameters by class, union of classes, predicate or another mask.

    Masks combine with `&`, `|` and `~`, `has` and `hasnot`; they never change. Called with a tree, a mask returns the
    tree with `None` in place of what it does not select; transforms and optimisers take this form. A shared parameter
    is selected once, at its first occurrence.

    Args:
        target: which parameters to select: a class, a union of classes, a function from a parameter to a bool, or an
            `M`. `None` selects every parameter, including static ones.
        values: the pair of values that `to` sets.

    Raises:
        TypeError: `target` is none of these, or is a module.

    Example:
        >>> M(LayerParam)(layer := Linear(2, 3)).nn.weight is layer.nn.weight
        True
        >>> M(LayerParam).has(ndim=1).to((False, True))(layer).nn.bias
        True
    """

    target: Filter | None = None
    values: tuple[Any, Any] | None = field(default=None, kw_only=True)  # of any kind: axes, bools, labels, ...

    def __post_init__(self) -> None:
        _check_target(self.target)
        if self.values is not None and len(self.values) != 2:
            raise ValueError(f"M.to expects two values, (unselected, selected), found {self.values!r}")

    def apply(self, leaf: object) -> bool:
        """Returns whether the mask selects `leaf`, which is `False` for anything but a parameter."""
        if not isinstance(leaf, BaseParam) or isinstance(leaf, ParamRef):
            return False
        return self.target is None or bool(as_predicate(self.target)(leaf))

    def to(self, values: Sequence[Any] | None) -> "M":  # of any kind, as above
        """Returns a mask that puts one of two values in place of every parameter.

        Args:
            values: the values (unselected, selected), such as the axes `(None, 0)` for `vmap`; or `None` for a mask
                without values.

        Raises:
            TypeError: `values` is neither a sequence nor `None`.
            ValueError: there are not two values.
        """
        if not isinstance(values, Sequence | None) or isinstance(values, str):
            raise TypeError(f"M.to expects two values, (unselected, selected), or None, found {values!r}")
        return replace(self, values=None if values is None else tuple(values))

    def __call__(self, tree: Tree, *, is_pytree: bool = False) -> Tree:
        """Returns the tree with `None` in place of the parameters not selected, or the values of `to` in place of all.

        Args:
            tree: a model, or any tree of models and parameters.
            is_pytree: whether the caller guarantees that no parameter occurs twice in the tree.
        """

        def answer(node: Any) -> Any:
            selected = self.apply(node)
            if self.values is None or not is_param(node):
                return node if selected else None
            return self.values[selected]

        masked: Tree = jax.tree.map(answer, tree if is_pytree else tree_ref(tree), is_leaf=is_param)
        return masked

    def has(self, **attributes: object) -> "M":
        """Returns a mask that also requires all of these attributes to have these values."""
        return self._where(all, "has", attributes)

    def hasnot(self, **attributes: object) -> "M":
        """Returns a mask that also requires none of these attributes to have these values."""
        return self._where(lambda found: not any(found), "hasnot", attributes)

    def _where(self, holds: Callable[[Iterator[bool]], bool], method: str, attributes: dict[str, object]) -> "M":
        def selects(param: BaseParam[Any]) -> bool:
            return self.apply(param) and holds(_has(param, *each) for each in attributes.items())

        listed = ", ".join(f"{name}={value!r}" for name, value in attributes.items())
        return M(_Combined(selects, f"{self.to(None)!r}.{method}({listed})"))

    def __and__(self, other: Filter | None) -> "M":
        return M_is(self, other)

    def __or__(self, other: Filter | None) -> "M":
        second = M(other)
        return M(_Combined(lambda param: self.apply(param) or second.apply(param), f"({self!r} | {second!r})"))

    def __invert__(self) -> "M":
        return M(_Combined(lambda param: not self.apply(param), f"~{self!r}"))

    __rand__ = __and__
    __ror__ = __or__

    def __repr__(self) -> str:
        name = self.target.__name__ if isinstance(self.target, type | FunctionType) else repr(self.target)
        text = name if isinstance(self.target, _Combined | M) else f"M({name})"
        return text if self.values is None else f"{text}.to({self.values!r})"

    def __bool__(self) -> bool:
        raise TypeError("masks cannot be used as a Python bool: combine them with &, | and ~, not with and, or and not")


def _check_target(target: object) -> None:
    """Raises unless the target is a filter, and one that can select parameters."""
    if target is None:
        return
    for each in get_args(target) or (target,):
        kind = each if isinstance(each, type) else type(each)
        is_value = kind is each and (kind in NUMBERS or issubclass(kind, ARRAYS))
        wrong = "a module" if issubclass(kind, BaseModule) else "not a parameter" if is_value else None
        if wrong:
            raise TypeError(
                f"M selects parameters, found {kind_of(each)}, which is {wrong}: write the class of parameters, as in "
                "M(LayerParam), and apply the mask to a model or a part of one, such as model.layer"
            )
    as_predicate(target)  # type: ignore[arg-type]  # it raises if this is not a filter


def _has(param: BaseParam[Any], name: str, value: object) -> bool:
    return hasattr(param, name) and bool(getattr(param, name) == value)


def M_is(mask: Filter | None, *others: Filter | None) -> M:
    """Returns a mask of the parameters that all given masks select: `M(a) & M(b) & ...`.

    Args:
        mask: anything that `M` takes.
        others: more of these.

    Raises:
        TypeError: see `M`.

    Example:
        >>> frozen = M_is(LayerParam, lambda param: param.frozen)
        >>> frozen.apply(LayerParam(1.0)), M_is(LayerParam, StateParam).apply(LayerParam(1.0))
        (False, False)
    """
    masks = [M(each) for each in (mask, *others)]
    text = f"({' & '.join(map(repr, masks))})"
    return M(_Combined(lambda param: all(each.apply(param) for each in masks), text))


def M_has(mask: Filter | None = None, **attributes: object) -> M:
    """Returns `M(mask).has(**attributes)`: the parameters with all of these attribute values.

    Args:
        mask: anything that `M` takes.
        attributes: the names and values of attributes, compared with `==`.

    Raises:
        TypeError: see `M`.

    Example:
        >>> M_has(Param, ndim=0).apply(Param(jnp.array(1.0)))
        True
    """
    return M(mask).has(**attributes)


def M_hasnot(mask: Filter | None = None, **attributes: object) -> M:
    """Returns `M(mask).hasnot(**attributes)`: the parameters with none of these attribute values.

    Args:
        mask: anything that `M` takes.
        attributes: the names and values of attributes, compared with `==`.

    Raises:
        TypeError: see `M`.

    Example:
        >>> M_hasnot(Param, frozen=True).apply(Param(1.0))
        True
    """
    return M(mask).hasnot(**attributes)

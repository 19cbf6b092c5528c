"""Sharing: a second module with the first one's parameters."""

from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar

import jax

from minipcax.core import BaseModule, BaseParam, tree_ref, tree_unref
from minipcax.core._tree import ParamRef, is_param

AnyModule = TypeVar("AnyModule", bound=BaseModule)


def shared(module: AnyModule, filter: type[BaseParam[Any]] | Callable[[Any], bool] = BaseParam) -> AnyModule:
    """A new module of the same structure that holds the same parameters.

    Args:
        module: what to share.
        filter: which parameters are shared, a class or a predicate; the others are copied. With `DynamicParam`, the
            second module has statics of its own.

    Example:
        >>> a = Linear(2, 2)
        >>> b = shared(a)
        >>> b is a, b.nn.weight is a.nn.weight
        (False, True)
    """

    def share(node: Any) -> Any:
        if not isinstance(node, BaseParam) or isinstance(node, ParamRef):
            return node
        selected = isinstance(node, filter) if isinstance(filter, type) else filter(node)
        return node if selected else copy(node)

    # References within the module stay references in the copy.
    twin: AnyModule = tree_unref(jax.tree.map(share, tree_ref(module), is_leaf=is_param))
    return twin

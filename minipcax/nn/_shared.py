"""Sharing: a second module with the parameters of the first, and a list of all that is shared."""

from typing import TypeVar

import jax

from minipcax.core import BaseModule, BaseParam, ParamCache, tree_ref, tree_unref
from minipcax.core.filter import Filter, as_predicate
from minipcax.core.refusals import kind_of
from minipcax.core.tree import ParamRef, is_param, paths_of_params

AnyModule = TypeVar("AnyModule", bound=BaseModule)


def shared(module: AnyModule, filter: Filter = BaseParam) -> AnyModule:
    """Returns a new module of the same structure that holds the same parameters, but its own caches.

    The value in a `ParamCache` is computed at one place of a model and would be wrong at another: two value nodes that
    share a state each have their own prediction and energy.

    Make both modules attributes of one module, which keeps their sharing under plain JAX as well (`jax.tree.map`,
    `jax.grad`, optax). In a bare list or tuple, only the functions of this library keep it.

    Args:
        module: the module to share.
        filter: which parameters to share: a class, a union of classes, a predicate or an `M`; the others are copied.
            With `DynamicParam`, the new module has static parameters of its own.

    Returns:
        A module of the same class and structure.

    Raises:
        TypeError: `module` is not a module, or `filter` is none of the above.

    Example:
        >>> a = Linear(2, 2)
        >>> b = shared(a)
        >>> b is a, b.nn.weight is a.nn.weight
        (False, True)
    """
    if not isinstance(module, BaseModule):
        raise TypeError(f"shared expected a module, found {kind_of(module)}; to share one parameter, assign it to both")
    selects = as_predicate(filter)

    def share(node: object) -> object:
        if not isinstance(node, BaseParam) or isinstance(node, ParamRef):
            return node
        if isinstance(node, ParamCache):
            return type(node).from_structure(node.structure(), (None,))
        return node if selects(node) else jax.tree.map(lambda leaf: leaf, node)  # also copies a dict that it holds

    # A parameter that occurs twice in the module does so in the copy.
    twin: AnyModule = tree_unref(jax.tree.map(share, tree_ref(module), is_leaf=is_param))
    return twin


def shared_params(model: object) -> dict[str, list[str]]:
    """Lists the shared parameters of a model.

    Args:
        model: a model, or any tree of models.

    Returns:
        A dict from the first path of every parameter that has several paths to its other paths.

    Example:
        >>> a = Linear(2, 2)
        >>> shared_params({"first": a, "second": shared(a)})
        {"['first'].nn.weight": ["['second'].nn.weight"], "['first'].nn.bias": ["['second'].nn.bias"]}
    """
    return {paths[0]: paths[1:] for _, paths in paths_of_params(model) if len(paths) > 1}

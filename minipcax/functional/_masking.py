"""Masks: how a transform treats each parameter.

`vmap` needs an axis for each parameter, `grad` needs to know whether to differentiate it. A mask answers for all of
them. It is a callable, such as `utils.M`, that takes the dict of keyword arguments and returns the same tree with an
answer in the place of each parameter; or a dict with such a callable, or with one answer, for each keyword.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from jax.tree_util import all_leaves

import minipcax.functional._refusals as refusals
from minipcax.core import get, tree_ref
from minipcax.core.random import global_key
from minipcax.core.tree import is_dynamic, is_param
from minipcax.functional._base import parameters_of
from minipcax.functional._types import ARRAY_TYPES, Function, Keywords

Answer = TypeVar("Answer")  # an axis, or a bool
# The keys are keywords, or tuples of them.
Mask = Function | Mapping[Any, Function | Answer | None]


def answers(mask: Mask[Any], keywords: Keywords) -> list[Any]:
    """The answers of a mask, in the order of `Tracked.leaves`; `None` where it has none.

    Raises:
        TypeError: the mask is neither a callable nor a dict.
        ValueError: the mask names a keyword that was not passed, or its answers do not fit the arguments.
    """
    tree = tree_ref((global_key, keywords))[1]
    if callable(mask):
        answered = _ask(mask, tree)
        refusals.check_answer_by_keyword(answered, keywords)
    elif isinstance(mask, Mapping):
        answered = dict.fromkeys(keywords)
        for names, submask in mask.items():
            names = names if isinstance(names, tuple) else (names,)
            refusals.check_keywords(names, keywords)
            answered |= {name: _answer(submask, tree[name]) for name in names}
    else:
        raise TypeError(f"expected a mask that is a callable or a dict by keyword, found {mask!r}")

    found = []

    def visit(node: Any, answer: Any) -> None:
        if is_dynamic(node) or isinstance(node, ARRAY_TYPES):
            # A mask like `jax.tree.map(lambda array: 0, model)` puts its answer inside a parameter; M keeps the node.
            found.append(answer if answer is node else get(answer))

    for name in sorted(keywords):
        answer = _everywhere(None, tree[name]) if answered[name] is None else answered[name]
        try:
            jax.tree.map(visit, tree[name], answer, is_leaf=is_param)
        except ValueError as error:
            raise refusals.mask_does_not_fit(name, answer) from error
    return [None, *found]  # the first leaf is the key of `RKG`, which no mask knows


def _answer(submask: Any, tree: Any) -> Any:
    """The answers of a mask for one keyword, as a tree."""
    is_answer = is_param(submask) or all_leaves([submask])
    if isinstance(submask, type(tree)) and not is_answer:  # a tree of answers, whose class may have a __call__
        return submask
    if callable(submask):
        return _ask(submask, tree)
    return _everywhere(submask, tree) if is_answer else submask


def _ask(mask: Function, tree: Any) -> Any:
    accepts_is_pytree = any(p.name == "is_pytree" for p in parameters_of(mask))
    return mask(tree, is_pytree=True) if accepts_is_pytree else mask(tree)


def _everywhere(answer: Any, tree: Any) -> Any:
    return jax.tree.map(lambda _: answer, tree, is_leaf=is_param)

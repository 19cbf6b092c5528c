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


def answers(mask: Mask[Any], keywords: Keywords, transform: str) -> list[Any]:
    """The answers of a mask, in the order of `Tracked.leaves`; `None` where it has none.

    Raises:
        TypeError: the mask is neither a callable nor a dict.
        ValueError: the mask names a keyword that was not passed, its answers do not fit the arguments, or it gives two
            of them to one parameter.
    """
    if callable(mask):
        trees = _without_repeats(keywords)
        answered = _ask(mask, trees)
        refusals.check_answer_by_keyword(answered, keywords)
        pairs = {name: (trees[name], answered[name]) for name in keywords}
    elif isinstance(mask, Mapping):
        submasks = dict.fromkeys(keywords)
        for names, submask in mask.items():
            names = names if isinstance(names, tuple) else (names,)
            refusals.check_keywords(names, keywords)
            submasks |= dict.fromkeys(names, submask)
        pairs = {name: _answer(submasks[name], tree) for name, tree in keywords.items()}
    else:
        raise TypeError(f"expected a mask that is a callable or a dict by keyword, found {mask!r}")

    found: list[Any] = [None]  # for the first leaf, the key of `RKG`, which no mask knows
    first: dict[int, tuple[str, Any]] = {}  # for each parameter, the keyword and the answer of its first occurrence
    for name in sorted(keywords):
        for node, answer in _side_by_side(name, *pairs[name]):
            if is_dynamic(node) and id(node) in first:
                keyword, before = first[id(node)]
                # Within a keyword, M selects a parameter at its first occurrence alone, and later gives None or False.
                if _said(answer) != _said(before) and (keyword != name or _said(answer) is not None):
                    raise refusals.two_answers(transform, before, answer, node, keywords)
            else:
                first[id(node)] = name, answer
                found.append(answer)
    return found


def _side_by_side(name: str, tree: Any, answer: Any) -> list[tuple[Any, Any]]:
    """The parameters and bare arrays of a keyword, and what a mask answers in the place of each."""
    pairs: list[tuple[Any, Any]] = []

    def visit(node: Any, answer: Any) -> None:
        if (is_dynamic(node) and node is not global_key) or isinstance(node, ARRAY_TYPES):
            # A mask like `jax.tree.map(lambda array: 0, model)` puts its answer inside a parameter; M keeps the node.
            pairs.append((node, answer if answer is node else get(answer)))

    try:
        jax.tree.map(visit, tree, _everywhere(None, tree) if answer is None else answer, is_leaf=is_param)
    except ValueError as error:
        raise refusals.mask_does_not_fit(name, answer) from error
    return pairs


def _said(answer: Any) -> tuple[type, Any] | None:
    """What an answer means, to be compared: None and False are a no, the parameter itself is a yes."""
    if answer is None or answer is False:
        return None
    answer = True if is_param(answer) else answer
    return type(answer), answer if isinstance(answer, int) else None  # anything else is refused by the transform


def _without_repeats(tree: Any) -> Any:
    """A tree in which each parameter occurs once, and the key of `RKG` never."""
    return tree_ref((global_key, tree))[1]


def _answer(submask: Any, tree: Any) -> tuple[Any, Any]:
    """The tree of one keyword, and what a mask answers for it, as a tree."""
    is_answer = is_param(submask) or all_leaves([submask])
    if isinstance(submask, type(tree)) and not is_answer:  # a tree of answers, whose class may have a __call__
        return tree, submask
    tree = _without_repeats(tree)
    if callable(submask):
        return tree, _ask(submask, tree)
    return tree, _everywhere(submask, tree) if is_answer else submask


def _ask(mask: Function, tree: Any) -> Any:
    accepts_is_pytree = any(p.name == "is_pytree" for p in parameters_of(mask))
    return mask(tree, is_pytree=True) if accepts_is_pytree else mask(tree)


def _everywhere(answer: Any, tree: Any) -> Any:
    return jax.tree.map(lambda _: answer, tree, is_leaf=is_param)

"""How a call crosses a JAX transform: collect, run, write back.

JAX transforms take pure functions of arrays. A function that changes the parameters of its keyword arguments becomes
one in three steps, the same for every transform:

    your model                     what JAX sees                    inside your function
    model                          values: [key, W0, W1, h0, ...]   a copy of the model
     ├ layers[0].weight ─┐         (each parameter once)             ├ layers[0].weight ─┐
     ├ layers[1].weight ─┴ W1  ─collect─►                   ─run─►   ├ layers[1].weight ─┴ W1' (traced)
     └ act_fn: static              Skeleton: all the rest            └ act_fn
           ▲                       (hashable: the compile key)             │
           └─────────── write back: the changed values, by position ◄──────┘

1. `collect` walks the keyword arguments. It finds the *leaves*, every dynamic parameter once (and bare arrays), and the
   `Skeleton`, a hashable description of all else: classes, attributes, containers, statics, and where a parameter
   occurs again.
2. `run` is what JAX gets to see, a function of plain values. It builds a copy of the keyword arguments around them,
   calls your function on the copy, and tells which parameters of the copy have another value now.
3. `write_back` puts those values into your own parameters, once the transform has returned. If it raises, nothing has
   happened to them.

A shared parameter is one leaf, and so one input of a pure function that uses it several times. That is why JAX sums its
gradient over all uses.

Transforms nest by repeating the steps: model → copy 1 (jit) → copy 2 (grad) → function, and what changes travels back
2 → 1 → model. The key of `RKG` is the first leaf of every call. It is not copied but lent, see `core.random`.

What `collect` finds is remembered between calls, see `_memory`; what is refused, and in which words, is in `_refusals`.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import jax

import minipcax.functional._refusals as refusals
from minipcax.core import BaseModule, DynamicParam, tree_ref, tree_unref
from minipcax.core.random import global_key, lend_key
from minipcax.core.trace import OUTSIDE, current_trace, in_vmap
from minipcax.core.tree import copied, is_dynamic, leaves
from minipcax.functional._advice import with_advice
from minipcax.functional._memory import Watch, recall, remember, value_of
from minipcax.functional._types import ARRAY_TYPES, Keywords, Value


@dataclass(slots=True, eq=False)
class Bare:
    """A leaf that is not a parameter: an array or number, which a function may read but not replace."""

    _value: Value  # named as in parameters, so that `value_of` reads both


@dataclass(slots=True, eq=False)
class Input:
    """Stands for a keyword that is itself an array or number, which differs from call to call."""

    name: str


Leaf = DynamicParam[Any] | Bare


class Skeleton:
    """Everything about the keyword arguments except the values of their leaves. Equal ones are the same object."""

    def __init__(self, treedef: Any, kinds: tuple[Any, ...], repeats: bool) -> None:
        self.treedef = treedef
        self.kinds = kinds  # for each leaf the class and attributes of the parameter, or None if it is bare
        self._repeats = repeats  # whether a parameter occurs more than once

    def rebuild(self, values: Sequence[Value]) -> tuple[Keywords, list[Leaf]]:
        """Copies of the keyword arguments and of their leaves, with these values."""
        leaves = [
            Bare(value) if kind is None else kind[0].from_structure(kind[1], (value,))
            for kind, value in zip(self.kinds, values, strict=True)
        ]
        leaves[0] = global_key  # not a copy: code that names RKG must find the key that it was lent
        return self.unflatten(leaves), leaves

    def unflatten(self, leaves: Iterable[Any]) -> Keywords:
        """Returns the keyword arguments with their leaves replaced."""
        tree = self.treedef.unflatten([leaf._value if isinstance(leaf, Bare) else leaf for leaf in leaves])
        keywords: Keywords = (tree_unref(tree) if self._repeats else tree)[1]
        return keywords


# Interned, because JAX compares skeletons to look up a compiled function: identical objects compare at once.
_skeletons: weakref.WeakValueDictionary[Any, Skeleton] = weakref.WeakValueDictionary()
_interning = threading.Lock()


class Tracked:
    """The leaves of keyword arguments, in order, and their skeleton."""

    def __init__(self, keywords: Keywords) -> None:
        inputs = {name: Input(name) if isinstance(root, ARRAY_TYPES) else root for name, root in keywords.items()}
        roots = (global_key, inputs)
        tree = tree_ref(roots)
        nodes, treedef = jax.tree.flatten(tree, is_leaf=is_dynamic)
        self.leaves: list[Leaf] = [node if is_dynamic(node) else Bare(node) for node in nodes]
        self._after_key = self.leaves[1:]
        self._inputs = [(index, node.name) for index, node in enumerate(nodes) if isinstance(node, Input)]
        kinds = tuple((type(node), node.structure()) if is_dynamic(node) else None for node in nodes)
        # A function may ask whether it is `in_vmap`, and trace to a different program there.
        description = treedef, kinds, in_vmap()
        with _interning:
            self.skeleton = _skeletons.setdefault(description, Skeleton(treedef, kinds, tree is not roots))

    def values(self, keywords: Keywords) -> list[Value]:
        """The present values of all leaves."""
        values = [global_key.value, *map(value_of, self._after_key)]
        for index, name in self._inputs:
            values[index] = keywords[name]
        return values

    def path(self, index: int, keywords: Keywords) -> str:
        """Where a leaf is, for messages."""
        leaf = self.leaves[index]
        target = leaf._value if isinstance(leaf, Bare) else leaf
        return target.name if isinstance(target, Input) else refusals.path_of(target, keywords)


def collect(keywords: Keywords) -> Tracked:
    """Finds the leaves of the keyword arguments, and their skeleton.

    Raises:
        ValueError: a module is reached by two paths.
        TypeError: JAX cannot carry an attribute.
    """
    tracked: Tracked | None = recall(keywords)
    if tracked is None:
        watch = Watch(keywords)
        tracked = Tracked(keywords)
        remember(keywords, watch, tracked)
    return tracked


def run(
    call: Callable[[tuple[Any, ...], Keywords], Any], skeleton: Skeleton, values: Sequence[Value], args: tuple[Any, ...]
) -> tuple[Any, list[Value], frozenset[int]]:
    """Calls a function on a copy of the keyword arguments that holds `values`.

    In `args`, and in what the function returns, whatever occurs again is replaced by a reference (see `tree_ref`).

    Returns:
        What the function returns, the values of all leaves afterwards, and the positions of those that changed.

    Raises:
        TypeError: the function put a bare array into an attribute, or what is not an array into a parameter.
        ValueError: the function added, removed or replaced a parameter.
    """
    # Flattened, because a container may be changed in place. JAX does not name the type of its treedefs.
    before: list[tuple[list[Any], Any]] = [jax.tree.flatten(value) for value in values]
    keywords, leaves = skeleton.rebuild([treedef.unflatten(arrays) for arrays, treedef in before])
    objects = _objects(keywords)
    with lend_key(values[0]), with_advice(keywords):
        output = call(tree_unref(copied(args)), keywords)
        output = copied(tree_ref(output))  # it may hold the key, which is only lent
        after = [global_key.value, *map(value_of, leaves[1:])]
    if not _same(objects, _objects(keywords)):
        refusals.check_structure(skeleton.unflatten(leaves), keywords)
    changed = set()
    for index, (value, (arrays, treedef)) in enumerate(zip(after, before, strict=True)):
        arrays_now, treedef_now = jax.tree.flatten(value)
        if not (treedef == treedef_now and _same(arrays, arrays_now)):
            refusals.check_arrays(arrays_now, value, leaves[index], keywords)
            changed.add(index)
    return output, after, frozenset(changed)


def write_back(leaves: Sequence[Leaf], changes: Mapping[int, Value]) -> None:
    """Puts the changed values, by position, into the caller's parameters: all, or none if one must not be written."""
    if current_trace() != OUTSIDE:  # where there are no tracers
        for index, value in changes.items():
            leaf = leaves[index]
            if isinstance(leaf, DynamicParam):
                leaf.check(value)
    for index, value in changes.items():
        if index:  # past the check, which is done
            leaves[index]._value = value
        else:
            global_key.value = value


def as_tree(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Positional arguments as JAX may take them apart: with references to whatever occurs again."""
    others = [arg for arg in args if not isinstance(arg, ARRAY_TYPES)]
    alone = len(others) == 1 and isinstance(others[0], BaseModule)  # a module ties its own repeats, see `core._ties`
    return args if alone or not others else tree_ref(args)


def _same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(map(is_, before, after))


def _objects(keywords: Keywords) -> list[Any]:
    """The nodes that a function must not add, remove or replace."""
    return [node for node in leaves(keywords) if isinstance(node, (DynamicParam, *ARRAY_TYPES))]

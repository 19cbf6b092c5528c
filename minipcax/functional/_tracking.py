"""How a call crosses a JAX transform: collect, run, write back.

JAX transforms take pure functions of arrays. A function that changes the parameters of its keyword arguments becomes
one in three steps, the same for every transform:

1. `collect` walks the keyword arguments. It gives the *leaves*, every dynamic parameter once (and the bare arrays), and
   the `Skeleton`, a hashable description of all else: classes, attributes, containers, statics, where repeats point.
2. `run` is what JAX gets to see: a function of plain values. It rebuilds a fresh copy of the keyword arguments around
   them, calls the user's function on the copy, and reports which parameters of the copy have another value now.
3. `write_back` puts these into the caller's own parameters, once the transform has returned. Nothing is written if it
   raises, for until then only the copy has changed.

Nested transforms repeat the steps: the caller's parameters of the inner one are the copies of the outer one. The key of
`RKG` goes along as the first leaf of every call; it is not copied but lent.

Walking costs more than calling a compiled function, so `collect` remembers what it looked at, and on the next call only
checks that it is all still there: what it saw is compared with the present, element by element and by identity, in
passes that run in C. The attributes of modules and the static values, most of what there is, are compared only where
`last_change` tells of an assignment since. Models are remembered weakly, and the memory goes when they go.
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter, is_
from typing import Any

import jax
import numpy as np
from jax.tree_util import all_leaves

from minipcax.core import RKG, BaseModule, BaseParam, DynamicParam, StaticParam, tree_ref, tree_unref
from minipcax.core.random import global_key
from minipcax.core.refusals import path_to_param
from minipcax.core.trace import OUTSIDE, current_trace, in_vmap, last_change
from minipcax.core.tree import children, is_dynamic, leaves, path_name, walk

# Values are arrays or pytrees of arrays; keyword arguments are trees of any make.
Value = Any
Keywords = dict[str, Any]


@dataclass(slots=True, eq=False)
class Bare:
    """A leaf that is not a parameter: an array or number, which a function may read but not replace."""

    _value: Value  # named as that of a parameter


@dataclass(slots=True, eq=False)
class Input:
    """Holds the place of a keyword that is itself an array or number, and so another one in every call."""

    name: str


Leaf = DynamicParam[Any] | Bare
ARRAY_TYPES = (jax.Array, np.ndarray, np.generic, int, float, complex)


class Skeleton:
    """Everything about the keyword arguments except the values of their leaves. Equal ones are the same object."""

    def __init__(self, treedef: Any, kinds: tuple[Any, ...], repeats: bool) -> None:  # jax does not name the first
        self.treedef = treedef
        self.kinds = kinds  # of each leaf, how to make the parameter: its class and static attributes; None if bare
        self._repeats = repeats  # whether a parameter is reached more than once

    def rebuild(self, values: Sequence[Value]) -> tuple[Keywords, list[Leaf]]:
        """Copies of the keyword arguments and of their leaves, with these values."""
        leaves = [
            Bare(value) if kind is None else kind[0].from_structure(kind[1], (value,))
            for kind, value in zip(self.kinds, values, strict=True)
        ]
        leaves[0] = global_key
        return self.unflatten(leaves), leaves

    def unflatten(self, leaves: Iterable[Any]) -> Keywords:
        """The keyword arguments with other leaves, or whatever is given, in their places."""
        nodes = [leaf._value if isinstance(leaf, Bare) else leaf for leaf in leaves]
        tree = self.treedef.unflatten(nodes)
        keywords: Keywords = (tree_unref(tree) if self._repeats else tree)[1]
        return keywords


# Skeletons by what they describe, so that JAX's caches, which compare them on every call, need only their identity.
_skeletons: weakref.WeakValueDictionary[Any, Skeleton] = weakref.WeakValueDictionary()
_interning = threading.Lock()

_END = (object(),)  # marks where one container ends in the flat list of what a walk looked at
_value_of = attrgetter("_value")


class Tracked:
    """What a walk over keyword arguments found, and whether it still holds."""

    def __init__(self, keywords: Keywords) -> None:
        # What only assignment changes, of which `last_change` tells; then what may be changed in place.
        self._attributes: list[Iterable[Any]] = []
        self._statics: list[StaticParam[Any]] = []
        self._containers: list[Iterable[Any]] = []
        self._empty: list[dict[Any, Any]] = []  # most parameters have no attributes: these are quicker to check
        self.can_be_checked = True
        self.alive: list[weakref.ref[BaseModule]] = []
        self._last_change = last_change.token
        self._watch(keywords, keywords, set())
        self._assigned = tuple(self._present())
        self._contained = tuple(chain.from_iterable(self._containers))

        inputs = {name: Input(name) if isinstance(root, ARRAY_TYPES) else root for name, root in keywords.items()}
        roots = (global_key, inputs)
        tree = tree_ref(roots)
        nodes, treedef = jax.tree.flatten(tree, is_leaf=is_dynamic)
        self.leaves: list[Leaf] = [node if is_dynamic(node) else Bare(node) for node in nodes]
        self._after_key = self.leaves[1:]
        self._inputs = [(index, node.name) for index, node in enumerate(nodes) if isinstance(node, Input)]
        kinds = tuple((type(node), node.structure()) if is_dynamic(node) else None for node in nodes)
        # Inside a vmap, energies are scalars: the same function traces to another program there.
        description = treedef, kinds, in_vmap()
        with _interning:
            self.skeleton = _skeletons.setdefault(description, Skeleton(treedef, kinds, tree is not roots))

    def _watch(self, node: Any, keywords: Keywords, seen: set[int]) -> None:
        """Notes all below a node that can change, and refuses what a transform cannot carry."""
        if isinstance(node, BaseParam):
            if id(node) not in seen:
                seen.add(id(node))
                self._watch_contents(vars(node))
                if isinstance(node, StaticParam):
                    self._statics.append(node)
        elif isinstance(node, BaseModule):
            if id(node) in seen and node is not RKG:
                first, second = islice((path for path, other in walk(keywords) if other is node), 2)
                raise ValueError(
                    f"{type(node).__name__} is reached by two paths, {keyword_path(first)} and {keyword_path(second)}, "
                    "and copying a model would silently split it in two; to use the same parameters twice, put "
                    "nn.shared(module) in one of the places"
                )
            seen.add(id(node))
            self._attributes += (vars(node).keys(), vars(node).values(), _END)
            for name, child in vars(node).items():
                if name not in node._static_names:
                    self._watch(child, keywords, seen)
        elif node is None or isinstance(node, ARRAY_TYPES):
            return
        elif all_leaves([node]):
            path = next(path for path, other in walk(keywords) if other is node)
            advice = "wrap it in static(...)" if path_to_param(node) is None else "make its class a Module"
            raise TypeError(
                f"{keyword_path(path)} is a {type(node).__name__}, which JAX cannot carry: expected a parameter, a "
                f"module, an array or a container of these; {advice}"
            )
        elif isinstance(node, dict):
            if node is not keywords:  # these are compared by name, see `collect`
                self._watch_contents(node)
            for child in node.values():
                self._watch(child, keywords, seen)
        elif isinstance(node, (list, tuple)):
            self._containers += (node, _END)
            for child in node:
                self._watch(child, keywords, seen)
        else:
            self.can_be_checked = False  # a pytree from elsewhere: only JAX knows how to look into it
            for _, child in children(node):
                self._watch(child, keywords, seen)

    def _watch_contents(self, contents: dict[Any, Any]) -> None:
        if contents:
            self._containers += (contents.keys(), contents.values(), _END)
        else:
            self._empty.append(contents)

    def _present(self) -> Iterator[Any]:
        return chain(chain.from_iterable(self._attributes), map(_value_of, self._statics))

    def still_holds(self) -> bool:
        """Whether everything the walk looked at is the same object as then."""
        now = last_change.token  # before looking: a change that another thread makes meanwhile is seen the next time
        if now is not self._last_change:
            if not all(map(is_, self._present(), self._assigned)):
                return False
            self._last_change = now
        return not any(self._empty) and all(map(is_, chain.from_iterable(self._containers), self._contained))

    def values(self, keywords: Keywords) -> list[Value]:
        """The present values of all leaves."""
        values = [global_key.value, *map(_value_of, self._after_key)]
        for index, name in self._inputs:
            values[index] = keywords[name]
        return values

    def path(self, index: int, keywords: Keywords) -> str:
        """Where the leaf at a position is, for messages."""
        leaf = self.leaves[index]
        target = leaf._value if isinstance(leaf, Bare) else leaf
        if isinstance(target, Input):
            return target.name
        return next(keyword_path(path) for path, node in walk(keywords) if path and node is target)


_remembered: dict[tuple[Any, ...], Tracked] = {}


def collect(keywords: Keywords) -> Tracked:
    """Walks the keyword arguments, or finds that nothing has moved since it last did.

    Raises:
        ValueError: a module is reached by two paths.
        TypeError: an attribute is nothing that JAX can carry.
    """
    roots = keywords.values()
    key = (in_vmap(), *keywords, *map(id, roots))  # enough where all are modules, and quick
    tracked = _remembered.get(key)
    if tracked is not None and tracked.still_holds():
        return tracked
    key = (in_vmap(), *keywords, *[id(root) if isinstance(root, BaseModule) else type(root) for root in roots])
    tracked = _remembered.get(key)
    if tracked is not None and tracked.still_holds():
        return tracked
    tracked = Tracked(keywords)
    # Of other roots, such as a list of modules, nothing would tell that they are gone.
    if tracked.can_be_checked and all(root is None or isinstance(root, (BaseModule, *ARRAY_TYPES)) for root in roots):
        modules = [root for root in roots if isinstance(root, BaseModule)]
        tracked.alive = [weakref.ref(module, lambda _: _remembered.pop(key, None)) for module in modules]
        _remembered[key] = tracked
    return tracked


def run(
    call: Callable[[tuple[Any, ...], Keywords], Any], skeleton: Skeleton, values: Sequence[Value], args: tuple[Any, ...]
) -> tuple[Any, list[Value], frozenset[int]]:
    """Calls a function on a copy of the keyword arguments that holds `values`.

    In `args`, and in what the function returns, there are references in the places of what repeats (see `tree_ref`).

    Returns:
        What the function returns, the values of all leaves afterwards, and the positions of those that changed.

    Raises:
        TypeError: the function assigned a bare array to an attribute, or set a parameter to what is no array.
        ValueError: the function added, removed or replaced a parameter.
    """
    # Flat, because a container may be changed in place. JAX does not name its treedef's type.
    before: list[tuple[list[Any], Any]] = [jax.tree.flatten(value) for value in values]
    keywords, leaves = skeleton.rebuild([treedef.unflatten(arrays) for arrays, treedef in before])
    objects = _tracked_objects(keywords)
    with global_key.lend(values[0]):
        try:
            output = call(tree_unref(_copy(args)), keywords)
            output = _copy(tree_ref(output))  # which may hold the key, which is only lent
        except TypeError as error:
            _note_numbers(error, keywords)
            raise
        after = [global_key.value, *map(_value_of, leaves[1:])]
    if not _same(objects, _tracked_objects(keywords)):
        _refuse_new_structure(skeleton.unflatten(leaves), keywords)
    changed = set()
    for index, (value, (arrays, treedef)) in enumerate(zip(after, before, strict=True)):
        arrays_now, treedef_now = jax.tree.flatten(value)
        if not (treedef == treedef_now and _same(arrays, arrays_now)):
            changed.add(index)
            if not all(isinstance(array, ARRAY_TYPES) for array in arrays_now):
                path = next(path for path, node in walk(keywords) if node is leaves[index])
                raise TypeError(
                    f"the parameter {keyword_path(path)} was set to {value!r} inside a transform: expected an array, a "
                    "number, or a container of these; what is not one belongs in static(...)"
                )
    return output, after, frozenset(changed)


def as_tree(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Positional arguments as JAX may take them apart: with references in the places of what repeats."""
    others = [arg for arg in args if not isinstance(arg, ARRAY_TYPES)]
    alone = len(others) == 1 and isinstance(others[0], BaseModule)  # which ties what repeats itself
    return args if alone or not others else tree_ref(args)


def write_back(leaves: Sequence[Leaf], changes: Mapping[int, Value]) -> None:
    """Puts the changed values, by position, into the caller's parameters: all, or none if one must not be written."""
    if current_trace() != OUTSIDE:  # where there are no tracers
        for index, value in changes.items():
            leaf = leaves[index]
            if isinstance(leaf, DynamicParam):
                leaf.check(value)
    for index, value in changes.items():
        if index:
            leaves[index]._value = value
        else:
            global_key.value = value


def _note_numbers(error: TypeError, keywords: Keywords) -> None:
    """Adds to JAX's message that a value is not known while tracing which numbers of the model are traced."""
    not_known = isinstance(error, jax.errors.ConcretizationTypeError) or "concrete" in str(error)
    if not_known and not any("static(...)" in note for note in getattr(error, "__notes__", ())):  # an inner transform
        tracers = [(path, node) for path, node in walk(keywords) if isinstance(node, jax.core.Tracer)]
        numbers = [keyword_path(path) for path, node in tracers if len(path) > 1 and node.shape == ()]
        if numbers:
            error.add_note(f"{', '.join(numbers)}: traced, as numbers are; wrap what is a size or flag in static(...)")


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf, tree)


def _same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(map(is_, before, after))


def _tracked_objects(keywords: Keywords) -> list[Any]:
    kinds = (DynamicParam, *ARRAY_TYPES)
    return [node for node in leaves(keywords) if isinstance(node, kinds)]


def _refuse_new_structure(original: Keywords, present: Keywords) -> None:
    """Says which parameter or bare array a function added, removed or replaced, if it did."""

    def by_path(keywords: Keywords) -> dict[str, Any]:
        nodes = ((path, node) for path, node in walk(keywords) if is_dynamic(node) or isinstance(node, ARRAY_TYPES))
        return {keyword_path(path): node for path, node in nodes}

    before, after = by_path(original), by_path(present)
    for path in before | after:
        old, new = before.get(path), after.get(path)
        if old is new:
            continue
        if isinstance(new, ARRAY_TYPES) and not is_dynamic(old):
            raise TypeError(
                f"{path} was assigned a bare array inside a transform, where it would be lost: bare arrays are "
                "read-only inputs; make it a Param before the call, and use .set"
            )
        done = "created" if old is None else "removed" if new is None else "replaced"
        raise ValueError(
            f"the parameter {path} was {done} inside a transform (found {new!r}, expected {old!r}): a transform "
            "changes the values of parameters, not which there are; do this outside, and use .set inside"
        )


def keyword_path(path: tuple[Any, ...]) -> str:
    """A path into the keyword arguments as people write it: `model.layers[0].nn.weight`."""
    return f"{path[0].key}{path_name(path[1:])}"

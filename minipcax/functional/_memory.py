"""What is remembered between calls: what was found in a model, for as long as the model stays as it was.

Walking over a model takes longer than calling a compiled function. So a walk leaves behind flat lists of everything it
looked at, and the next call only compares these with the present, element by element and by identity, in passes that
run in C:

- what only assignment changes, the attributes of modules and the values of statics, which is most of what there is: it
  is compared only if `last_change` tells of an assignment since;
- what may also change in place, the lists and dicts of a model and of its structure, and the attributes of parameters:
  always.

Models are remembered weakly: what is known of one is dropped when the model is. Keywords that are neither modules nor
arrays, such as a `Param` or a list of modules, are walked over in every call.
"""

import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

from jax.tree_util import all_leaves

import minipcax.functional._refusals as refusals
from minipcax.core import RKG, BaseModule, BaseParam, StaticParam
from minipcax.core.structure import parts
from minipcax.core.trace import in_vmap, last_change
from minipcax.core.tree import children
from minipcax.functional._types import ARRAY_TYPES, Keywords

_END = (object(),)  # between containers, so that an element cannot move from one to the next unseen
value_of = attrgetter("_value")


class Watch:
    """Everything in the keyword arguments that can change, and whether it is as it was.

    Raises:
        ValueError: a module is reached by two paths.
        TypeError: JAX cannot carry an attribute.
    """

    def __init__(self, keywords: Keywords) -> None:
        self._live_attributes: list[Iterable[Any]] = []
        self._live_statics: list[StaticParam[Any]] = []
        self._live_containers: list[Iterable[Any]] = []
        self._live_empty: list[dict[Any, Any]] = []  # quicker to check, and most parameters have no attributes
        self.sees_all = True
        self._last_change = last_change.token
        self._keywords, self._seen = keywords, set[int]()
        for root in keywords.values():
            self._look(root)
        del self._keywords, self._seen
        self._seen_attributes = tuple(self._present_attributes())
        self._seen_containers = tuple(chain.from_iterable(self._live_containers))

    def _look(self, node: Any) -> None:
        if isinstance(node, BaseParam):
            if id(node) not in self._seen:
                self._seen.add(id(node))
                self._look_into(vars(node))
                for attribute in vars(node).values():
                    self._look_at_structure(attribute)
                if isinstance(node, StaticParam):
                    self._live_statics.append(node)
                    self._look_at_structure(node._value)
        elif isinstance(node, BaseModule):
            if id(node) in self._seen and node is not RKG:
                raise refusals.reached_twice(node, self._keywords)
            self._seen.add(id(node))
            self._live_attributes += (vars(node).keys(), vars(node).values(), _END)
            for name, child in vars(node).items():
                (self._look_at_structure if name in node._static_names else self._look)(child)
        elif node is None or isinstance(node, ARRAY_TYPES):
            return
        elif all_leaves([node]):
            raise refusals.not_carried(node, self._keywords)
        elif isinstance(node, dict):
            self._look_into(node)
            for child in node.values():
                self._look(child)
        elif isinstance(node, (list, tuple)):
            self._live_containers += (node, _END)
            for child in node:
                self._look(child)
        else:
            self.sees_all = False  # only JAX knows how to look into a pytree from elsewhere
            for _, child in children(node):
                self._look(child)

    def _look_at_structure(self, value: object) -> None:
        if isinstance(value, dict):
            self._look_into(value)
        elif isinstance(value, (list, tuple, set)):
            self._live_containers += (value, _END)
        for item in parts(value) or ():
            self._look_at_structure(item)

    def _look_into(self, contents: dict[Any, Any]) -> None:
        if contents:
            self._live_containers += (contents.keys(), contents.values(), _END)
        else:
            self._live_empty.append(contents)

    def _present_attributes(self) -> Iterator[Any]:
        return chain(chain.from_iterable(self._live_attributes), map(value_of, self._live_statics))

    def is_unchanged(self) -> bool:
        """Whether everything is the same object as when it was looked at."""
        now = last_change.token  # before looking: a change that another thread makes meanwhile is seen the next time
        if now is not self._last_change:
            if not all(map(is_, self._present_attributes(), self._seen_attributes)):
                return False
            self._last_change = now
        return not any(self._live_empty) and all(
            map(is_, chain.from_iterable(self._live_containers), self._seen_containers)
        )


Found = Any  # `_tracking.Tracked`, whose file imports this one
_remembered: dict[tuple[Any, ...], tuple[Watch, Found, list[weakref.ref[BaseModule]]]] = {}


def _key(keywords: Keywords) -> tuple[Any, ...]:
    roots = keywords.values()
    return (in_vmap(), *keywords, *[id(root) if isinstance(root, BaseModule) else type(root) for root in roots])


def recall(keywords: Keywords) -> Found | None:
    """What was last found in these arguments, unless something has changed since."""
    watch, found, _ = _remembered.get(_key(keywords), (None, None, None))
    return found if watch is not None and watch.is_unchanged() else None


def remember(keywords: Keywords, watch: Watch, found: Found) -> None:
    """Keeps what was found for the next call, if what may change in the arguments can all be watched."""
    roots = keywords.values()
    # Other roots, such as a list of modules, cannot be watched through weak references.
    if watch.sees_all and all(root is None or isinstance(root, (BaseModule, *ARRAY_TYPES)) for root in roots):
        key = _key(keywords)
        modules = [root for root in roots if isinstance(root, BaseModule)]
        alive = [weakref.ref(module, lambda _: _remembered.pop(key, None)) for module in modules]
        _remembered[key] = watch, found, alive

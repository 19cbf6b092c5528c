"""Random models to test with: trees of modules in which parameters, but never modules, are reached by many paths.

`outline` and `occurrences` walk a model in plain Python, for comparison with what JAX and the library make of it.
"""

import random
from collections.abc import Iterator
from enum import Enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import minipcax as px


class Colour(Enum):
    RED = 0
    BLUE = 1


class Weight(px.Param):
    pass


class Bias(px.Param):
    pass


class Cache(px.ParamDict, px.ParamCache):
    pass


class Block(px.Module):
    """Children `a`, `b`, `c`, ..., always in this order."""

    def __init__(self, children: list[Any]) -> None:
        super().__init__()
        for name, child in zip("abcdefgh", children, strict=False):
            setattr(self, name, child)


class Group(px.BaseModule):
    """The same without a mode."""

    def __init__(self, children: list[Any]) -> None:
        for name, child in zip("abcdefgh", children, strict=False):
            setattr(self, name, child)


class _Generator:
    def __init__(self, seed: int, sharing: float, bare: bool) -> None:
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.sharing = sharing
        self.bare = bare
        self.params: list[px.BaseParam[Any]] = []

    def array(self) -> jax.Array:
        shape = self.random.choice([(), (2,), (2, 3)])
        return jnp.asarray(self.numpy.normal(size=shape), jnp.float32)

    def param(self) -> px.BaseParam[Any]:
        if self.params and self.random.random() < self.sharing:
            return self.random.choice(self.params)
        kind = self.random.randrange(10)
        param: px.BaseParam[Any]
        if kind < 4:
            param = self.random.choice([px.Param, Weight, Bias])(self.array())
        elif kind == 4:
            param = self.random.choice([px.Param, Weight])()
        elif kind == 5:
            param = px.Param({"u": self.array(), "v": (self.array(), None)})
        elif kind < 8:
            param = Cache({"u": self.array()} if self.random.random() < 0.7 else None)
        else:
            value: Any = self.random.choice([3, "relu", None, Colour.RED, len, ["a", {"b": 1}], (1, 2.0), jax.nn.gelu])
            param = px.static(value)
        if self.random.random() < 0.2:
            setattr(param, "frozen", self.random.random() < 0.5)  # noqa: B010  # any attribute may be set
        self.params.append(param)
        return param

    def node(self, depth: int) -> Any:
        kind = self.random.randrange(10)
        if depth == 0 or kind < 4:
            if self.bare and self.random.random() < 0.1:
                return self.random.choice([None, self.array()])
            return self.param()
        children = [self.node(depth - 1) for _ in range(self.random.randrange(4))]
        if kind == 4:
            return children
        if kind == 5:
            return tuple(children)
        if kind == 6:
            # Not in the order in which JAX goes through a dict.
            return dict(zip(["z", "y", "x"], children, strict=False))
        return self.module(children)

    def module(self, children: list[Any]) -> px.BaseModule:
        if self.random.random() < 0.3:
            return Group(children)
        block = Block(children)
        mode = self.random.choice([None, Block.MODE.TRAIN, Block.MODE.EVAL])
        block.mode(mode)
        return block


def random_dag(seed: int, *, depth: int = 4, sharing: float = 0.4, bare: bool = True) -> Block:
    """A random model.

    Args:
        seed: the same model for the same seed, around other objects.
        depth: how deep containers and modules nest.
        sharing: the probability that a parameter is one that is somewhere else already.
        bare: whether some children are bare arrays or None.
    """
    generator = _Generator(seed, sharing, bare)
    return Block([generator.param(), *(generator.node(depth - 1) for _ in range(4)), generator.param()])


def structure(tree: Any) -> Any:
    """What JAX says of a tree beside its leaves, which it gives no type."""
    return jax.tree.structure(tree)


def _children(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, px.BaseParam):
        return []
    if isinstance(node, px.BaseModule):
        names = [name for name in vars(node) if not name.startswith("_") and name not in node._static_names]
        return [(f".{name}", getattr(node, name)) for name in names]
    if isinstance(node, dict):
        return [(f"[{key!r}]", node[key]) for key in sorted(node)]
    if isinstance(node, (list, tuple)):
        return [(f"[{index}]", child) for index, child in enumerate(node)]
    return []


def occurrences(node: Any, path: str = "") -> Iterator[tuple[str, px.BaseParam[Any]]]:
    """Every parameter with its path, in order, as often as it is reached."""
    if isinstance(node, px.BaseParam):
        yield path, node
    for key, child in _children(node):
        yield from occurrences(child, path + key)


def unique(node: Any, cls: type[Any] = px.BaseParam) -> list[Any]:
    """Every parameter of a class once, in the order in which they are first reached."""
    return list({id(param): param for _, param in occurrences(node) if isinstance(param, cls)}.values())


def outline(node: Any) -> Any:
    """A model without values: classes, keys, static attributes, and which parameter is where, by number.

    Two models have the same outline when they differ in nothing but values.
    """
    numbers: dict[int, int] = {}

    def draw(node: Any) -> Any:
        if isinstance(node, px.BaseParam):
            return type(node), dict(vars(node)), numbers.setdefault(id(node), len(numbers))
        names = node._static_names if isinstance(node, px.BaseModule) else ()
        static = {name: getattr(node, name, None) for name in names}
        return type(node), static, [(key, draw(child)) for key, child in _children(node)]

    return draw(node)

"""`vmap`: a function of one sample becomes a function of a batch, with the parameters that belong to a sample mapped.

A mask says which: value nodes have an axis of samples, weights have none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from minipcax.core import BaseParam, RKGState, tree_extract, tree_ref, tree_unref
from minipcax.core.trace import inside_vmap
from minipcax.core.tree import walk
from minipcax.functional._base import P, R, Transform, decorator
from minipcax.functional._masking import Mask, answers
from minipcax.functional._tracking import ARRAY_TYPES, Keywords, Value, as_tree, collect, write_back

# As in jax.vmap: an axis, or for each positional argument an axis or a tree of axes; for the output, such a tree.
InAxes = int | Sequence[Any] | None
Axes = Any
# A mapped array: what to call it in messages, the array, its axis.
Mapped = tuple[Callable[[], str], Value, int]


class Vmap(Transform[P, R]):
    """What `vmap` makes.

    Example:
        >>> vmap(in_axes=1)(jnp.sin)
        Vmap(fn=sin)
    """

    def __init__(
        self,
        fn: Callable[P, R],
        kwargs_mask: Mask[int] = {},
        in_axes: InAxes = 0,
        out_axes: Axes = 0,
        axis_name: str | None = None,
    ) -> None:
        super().__init__(fn)
        self.kwargs_mask, self.in_axes, self.out_axes, self.axis_name = kwargs_mask, in_axes, out_axes, axis_name

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        tracked = collect(keywords)
        values = tracked.values(keywords)
        axes = answers(self.kwargs_mask, keywords)
        for index, axis in enumerate(axes):
            if not (axis is None or (isinstance(axis, int) and not isinstance(axis, bool))):
                raise TypeError(
                    f"the mask of vmap gives {axis!r} for {tracked.path(index, keywords)}: expected an axis (an int) "
                    "or None; with M, write M(...).to((None, 0))"
                )
        in_axes = tuple(self.in_axes) if isinstance(self.in_axes, (list, tuple)) else (self.in_axes,) * len(args)
        if len(in_axes) != len(args):
            raise ValueError(
                f"in_axes of vmap has {len(in_axes)} entries, but there are {len(args)} positional arguments"
            )
        mapped: list[Mapped] = []
        for number, (axis_tree, arg) in enumerate(zip(in_axes, args, strict=True)):
            mapped += _mapped(f"argument {number}".format, axis_tree, arg)
        for index, axis in enumerate(axes):
            mapped += _mapped(partial(tracked.path, index, keywords), axis, values[index])
        lanes = _lane_count(mapped)
        # Every lane has keys of its own, of all generators that it can reach.
        axis_of = _axes_of_params("in_axes", in_axes, args)
        of_all = [axis_of[id(param)] is None for param in _generators(args)]
        own = [index for index, kind in enumerate(tracked.skeleton.kinds) if kind and issubclass(kind[0], RKGState)]
        own = [index for index in own if axes[index] is None and values[index] is not None]
        for index in own:
            axes[index], values[index] = 0, _spread(_split(values[index], lanes), mapped)

        changed: frozenset[int] = frozenset()

        def pure(lane: Any, values: list[Value], *args: Any) -> tuple[Any, list[Value]]:
            nonlocal changed
            args = tree_unref(args)
            for param, is_of_all in zip(_generators(args), of_all, strict=True):
                if is_of_all:
                    param.set(_split(param.get(), lanes)[lane])
            with inside_vmap():
                output, after, changed = self._run(tracked.skeleton, values, tree_ref(args))
            _axes_of_params("out_axes", self.out_axes, tree_unref(output))
            for index in changed:
                for array in [] if axes[index] is None else jax.tree.leaves(after[index]):
                    if not -np.ndim(array) - 1 <= axes[index] <= np.ndim(array):
                        raise ValueError(
                            f"vmap expected {tracked.path(index, keywords)} to have axis {axes[index]}, but the "
                            f"function writes a value of shape {np.shape(array)} into it in each lane"
                        )
            return output, after

        def mapped_over(fn: Callable[..., Any], out_axes: Axes) -> Any:
            return jax.vmap(fn, (0, axes, *in_axes), out_axes, axis_name=self.axis_name)

        inputs = (_spread(jnp.arange(lanes), mapped), values, *as_tree(args))
        try:
            output, after = mapped_over(pure, (self.out_axes, axes))(*inputs)
        except ValueError:
            for index in sorted(changed):
                if axes[index] is None:
                    one = mapped_over(lambda *inputs, index=index: pure(*inputs)[1][index], None)
                    _refuse_per_lane(one, inputs, tracked.path(index, keywords))
            raise
        changes = {index: after[index] for index in changed}
        for index in changes.keys() & own:
            # The generator goes on from the first lane's key.
            changes[index] = _spread(changes[index], mapped, gather=True)[0]
        write_back(tracked.leaves, changes)
        return tree_unref(output)


def _generators(args: tuple[Any, ...]) -> tuple[RKGState, ...]:
    """The keys of random key generators that arguments hold, in order."""
    return tree_extract(args, filter_fn=lambda param: isinstance(param, RKGState))


def _split(key: Value, lanes: int) -> Value:
    """A key for each lane."""
    return jax.random.split(key, lanes + 1)[1:]


def _spread(per_lane: Value, mapped: Sequence[Mapped], gather: bool = False) -> Value:
    """An array with an axis of lanes, which lie on the devices as those of what is mapped, or all on every one.

    It matters on a mesh whose axes are `Explicit`, where JAX does not bring arrays together by itself.
    """
    for _, array, axis in mapped:
        sharding = jax.typeof(array).sharding
        names = sharding.spec[axis] if len(sharding.mesh.axis_names) else None
        if names is not None:
            spec = PartitionSpec() if gather else PartitionSpec(names)  # type: ignore[no-untyped-call]  # jax
            return jax.sharding.reshard(per_lane, NamedSharding(sharding.mesh, spec))  # type: ignore[no-untyped-call]  # jax
    return per_lane


def _axes_of_params(name: str, axis_tree: Axes, tree: Any) -> dict[int, Any]:
    """The axis of every parameter in arguments or outputs, by its identity; it must be one, wherever it occurs."""
    axes: dict[int, Any] = {}

    def note(axis: Any, part: Any) -> None:
        for _, node in [] if isinstance(part, ARRAY_TYPES) else walk(part):
            if isinstance(node, BaseParam) and axes.setdefault(id(node), axis) != axis:
                raise ValueError(
                    f"{name} of vmap gives the axes {axes[id(node)]} and {axis} to one parameter, {node!r}, which is "
                    "in several places: give all of them the same axis, or copy one of the models (copy.deepcopy)"
                )

    jax.tree.map(note, axis_tree, tree, is_leaf=lambda axis: axis is None)
    return axes


def _mapped(name: Callable[[], str], axis_tree: Axes, value: Value) -> list[Mapped]:
    """Every mapped array of an argument or parameter, with its axis."""
    axes_and_parts: list[tuple[Any, Value]] = []
    try:
        jax.tree.map(
            lambda axis, part: axes_and_parts.append((axis, part)), axis_tree, value, is_leaf=lambda axis: axis is None
        )
    except ValueError as error:
        raise ValueError(
            f"in_axes of vmap does not fit {name()}: expected an axis, None, or a tree of them with the containers "
            f"that the argument has, found {axis_tree!r}"
        ) from error
    mapped: list[Mapped] = []
    for axis, part in axes_and_parts:
        if axis is None:
            continue
        if not isinstance(axis, int):
            raise TypeError(f"in_axes of vmap gives {axis!r} for {name()}: expected an axis (an int) or None")
        for array in jax.tree.leaves(part):
            shape = np.shape(array)
            if not -len(shape) <= axis < len(shape):
                raise ValueError(f"vmap expected {name()} to have axis {axis}, but its shape is {shape}")
            mapped.append((name, array, axis))
    return mapped


def _lane_count(mapped: Sequence[Mapped]) -> int:
    if not mapped:
        raise ValueError(
            "vmap has nothing to map over: every argument has axis None and no parameter has an axis; give in_axes, "
            "or a kwargs_mask"
        )
    shapes = [(name, np.shape(array), axis) for name, array, axis in mapped]
    (first, shape, axis), *others = shapes
    for other, other_shape, other_axis in others:
        if other_shape[other_axis] != shape[axis]:
            raise ValueError(
                f"vmap's lane counts disagree: {shape[axis]} in {first()} (axis {axis} of {shape}), "
                f"{other_shape[other_axis]} in {other()} (axis {other_axis} of {other_shape})"
            )
    return int(shape[axis])


def _refuse_per_lane(one: Callable[..., Any], inputs: tuple[Any, ...], path: str) -> None:
    try:
        jax.eval_shape(one, *inputs)
    except ValueError as error:
        raise ValueError(
            f"{path} has axis None, so all lanes share it, but the function writes another value into it in each lane: "
            "give it an axis in the kwargs_mask, reduce over the lanes before writing, or clear it in the end, if it "
            "is a cache"
        ) from error


def vmap(
    kwargs_mask: Mask[int] = {}, in_axes: InAxes = 0, out_axes: Axes = 0, axis_name: str | None = None
) -> Callable[[Callable[P, R]], Vmap[P, R]]:
    """Maps a function over axes of its arguments and parameters: `jax.vmap`, with tracked keyword arguments.

    Every lane draws from its own key of `RKG`.

    Args:
        kwargs_mask: the axis of each parameter, for its input and output alike, or `None`: all lanes share it.
        in_axes: the axes of the positional arguments.
        out_axes: the axes of the outputs.
        axis_name: a name of the mapped axis, for collectives such as `jax.lax.psum`.

    Raises:
        ValueError: nothing is mapped, or lane counts disagree, or a per-lane value is written to a shared parameter.

    Example:
        >>> @vmap({"state": 0})
        ... def add(x: Array, *, state: Param) -> Array:
        ...     state += x
        ...     return 2 * state
        >>> state = Param(jnp.ones(3))
        >>> add(jnp.arange(3.0), state=state).tolist(), state.tolist()
        ([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    """
    return decorator("vmap", lambda fn: Vmap(fn, kwargs_mask, in_axes, out_axes, axis_name))

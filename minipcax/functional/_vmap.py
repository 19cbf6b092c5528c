"""`vmap`: a function of one sample becomes a function of a batch.

A mask says which parameters belong to a sample, and so have an axis of samples: value nodes do, weights do not.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import minipcax.functional._refusals as refusals
from minipcax.core import RKGState, tree_ref, tree_unref
from minipcax.core.trace import inside_vmap
from minipcax.functional._base import P, R, Transform, decorator
from minipcax.functional._lanes import Lanes, axes_of_params, generators, split
from minipcax.functional._masking import Mask, answers
from minipcax.functional._tracking import as_tree, collect, run, write_back
from minipcax.functional._types import Axes, Function, Keywords, Value

# As in jax.vmap: an axis, or for each positional argument an axis or a tree of axes.
InAxes = int | Sequence[Any] | None


class Vmap(Transform[P, R]):
    """The callable returned by `vmap`, with the signature of its function.

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
        axes = answers(self.kwargs_mask, keywords, "vmap")
        names = [partial(tracked.path, index, keywords) for index in range(len(values))]
        for axis, name in zip(axes, names, strict=True):
            refusals.check_is_axis(axis, "the mask", name, "; with M, write M(...).to((None, 0))")
        in_axes = tuple(self.in_axes) if isinstance(self.in_axes, (list, tuple)) else (self.in_axes,) * len(args)
        if len(in_axes) != len(args):
            raise ValueError(
                f"in_axes of vmap has {len(in_axes)} entries, but there are {len(args)} positional arguments"
            )
        lanes = Lanes()
        for number, (axis, arg) in enumerate(zip(in_axes, args, strict=True)):
            lanes.add(f"argument {number}".format, axis, arg)
        for axis, value, name in zip(axes, values, names, strict=True):
            lanes.add(name, axis, value)
        count = lanes.count()

        # Each lane gets its own key from every reachable generator that has no axis.
        axis_of = axes_of_params("in_axes", in_axes, args)
        in_args = [axis_of[id(param)] is None for param in generators(args)]
        tracked_keys = [
            index
            for index, kind in enumerate(tracked.skeleton.kinds)
            if kind and issubclass(kind[0], RKGState) and axes[index] is None and values[index] is not None
        ]
        for index in tracked_keys:
            axes[index], values[index] = 0, lanes.spread(split(values[index], count))

        changed: frozenset[int] = frozenset()

        def pure(lane: Any, values: list[Value], *args: Any) -> tuple[Any, list[Value]]:
            nonlocal changed
            args = tree_unref(args)
            for param, has_no_axis in zip(generators(args), in_args, strict=True):
                if has_no_axis:
                    param.set(split(param.get(), count)[lane])
            with inside_vmap():
                output, after, changed = run(self._call, tracked.skeleton, values, tree_ref(args))
            axes_of_params("out_axes", self.out_axes, tree_unref(output))
            for index in changed:
                for array in [] if axes[index] is None else jax.tree.leaves(after[index]):
                    refusals.check_gets_axis(axes[index], array, names[index])
            return output, after

        def mapped(fn: Function, out_axes: Axes) -> Any:
            return jax.vmap(fn, (0, axes, *in_axes), out_axes, axis_name=self.axis_name)

        inputs = (lanes.spread(jnp.arange(count)), values, *as_tree(args))
        try:
            output, after = mapped(pure, (self.out_axes, axes))(*inputs)
        except ValueError as error:
            # JAX does not say which of its outputs differs between lanes, so try each that should not.
            for index in sorted(changed):
                if axes[index] is None:
                    alone = mapped(lambda *inputs, index=index: pure(*inputs)[1][index], None)
                    if _fails(alone, inputs):
                        raise refusals.differs_by_lane(names[index]()) from error
            raise
        changes = {index: after[index] for index in changed}
        for index in changes.keys() & tracked_keys:
            # A generator continues from the key of the first lane.
            changes[index] = lanes.spread(changes[index], gather=True)[0]
        write_back(tracked.leaves, changes)
        return tree_unref(output)


def _fails(fn: Function, inputs: tuple[Any, ...]) -> bool:
    try:
        jax.eval_shape(fn, *inputs)
    except ValueError:
        return True
    return False


def vmap(
    kwargs_mask: Mask[int] = {}, in_axes: InAxes = 0, out_axes: Axes = 0, axis_name: str | None = None
) -> Callable[[Callable[P, R]], Vmap[P, R]]:
    """Maps a function over axes of its arguments and parameters: `jax.vmap`, with tracked keyword arguments.

    The function is called once for all lanes, the entries along the mapped axes. Each lane draws from its own key of
    `RKG`, and of any other generator that is passed in.

    Args:
        kwargs_mask: a mask that gives the axis of each parameter, for its input and output alike, or `None` for one
            that all lanes share: `M(...).to((None, 0))`, or a dict by keyword.
        in_axes: the axes of the positional arguments: an int, or a sequence of one entry per argument, each an int,
            `None` or a tree of these.
        out_axes: the axes of the outputs, an int or a tree of ints.
        axis_name: the name of the mapped axis, for collectives such as `jax.lax.psum`.

    Returns:
        A decorator. The decorated function takes and returns arrays with the mapped axis.

    Raises:
        ValueError: in a call, nothing is mapped, lane counts disagree, an array lacks the axis, one parameter is given
            two axes, or each lane writes another value to a parameter that they share.
        TypeError: in a call, the mask gives something that is neither an int nor `None`.

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

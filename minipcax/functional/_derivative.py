"""What all derivatives share: what they are taken with respect to, and the form in which they are returned.

JAX differentiates a pure function with respect to its first arguments. Here these are the values of the parameters that
a mask selects, in a dict by their position among the leaves, and the positional arguments that `argnums` names. The
derivatives come back in the same form, and `Form` puts each in the place of what it belongs to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVarTuple

import jax

import minipcax.functional._derivative_refusals as refusals
from minipcax.core import StaticParam, tree_ref, tree_unref
from minipcax.core.tree import ParamRef, is_param
from minipcax.functional._base import P, R, Transform
from minipcax.functional._masking import Mask, answers
from minipcax.functional._tracking import Skeleton, Tracked, as_tree, collect, run, write_back
from minipcax.functional._types import Keywords, Value

Aux = TypeVarTuple("Aux")
# The structure of the keyword arguments, with a parameter that holds the gradient, or None, in each parameter's place.
Gradients = dict[str, Any]
PositionalGradients = Any  # trees of the structure of the arguments
Derivatives = Any  # `Gradients`; with `argnums` a pair of `PositionalGradients` and `Gradients`, as `grad` returns it
# The default. Any other empty mask was given by the caller, and selects nothing.
NO_MASK: Mask[bool] = {}


@dataclass(frozen=True)
class Form:
    """The form of derivatives for the caller: `Derivatives`, in the terms of one call.

    Args:
        skeleton: of the keyword arguments.
        argnums: the positional arguments that are differentiated.
        order: the numbers of all positional arguments, in which those that are differentiated come first.
    """

    skeleton: Skeleton
    argnums: int | tuple[int, ...]
    order: tuple[int, ...]

    def arrange(self, derivatives: Sequence[Any]) -> Derivatives:
        """Arranges what JAX returns: by position among the leaves, and one for each positional argument."""
        by_index, *positional = derivatives
        gradients = _gradients(self.skeleton, by_index)
        by_number = self.by_number(positional)
        if isinstance(self.argnums, int):
            return by_number[self.argnums], gradients
        return (tuple(by_number[number] for number in self.argnums), gradients) if self.argnums else gradients

    def by_number(self, ordered: Sequence[Any]) -> dict[int, Any]:
        """Arguments, or the derivatives of the first few of them, by their positions in the call."""
        return dict(zip(self.order, tree_unref(tuple(ordered)), strict=False))


@dataclass(frozen=True)
class Problem:
    """A function to differentiate at a point.

    Args:
        function: `function(*point)` returns a value and its `effects`.
        point: what to differentiate with respect to.
        form: the form of the derivatives.
        tracked: where to write.
    """

    function: Callable[..., tuple[Any, Any]]  # any value, and effects whose form only `finish` knows
    point: tuple[Any, ...]
    form: Form
    tracked: Tracked

    def finish(self, effects: Any) -> tuple[Any, ...]:
        """Writes to the tracked parameters, and returns what the function returned beside the value."""
        aux, changes = effects
        write_back(self.tracked.leaves, changes)
        rest: tuple[Any, ...] = tree_unref(aux)
        return rest


class Derivative(Transform[P, R]):
    """A transform that differentiates with respect to selected parameters and positional arguments."""

    _name = ""  # in messages

    def __init__(
        self,
        fn: Callable[P, Any],  # what it returns is for subclasses to say
        kwargs_mask: Mask[bool] = NO_MASK,
        argnums: int | Sequence[int] = (),
        has_aux: bool = False,
    ) -> None:
        super().__init__(fn)
        self.kwargs_mask, self.argnums, self.has_aux = kwargs_mask, argnums, has_aux

    def _value(self, output: Any) -> Any:
        """What JAX differentiates of what the function returns."""
        return tree_ref(output)

    def _problem(self, args: tuple[Any, ...], keywords: Keywords) -> Problem:
        if self.kwargs_mask is NO_MASK and self.argnums == ():
            raise refusals.nothing_to_differentiate(self._name)
        tracked = collect(keywords)
        values = tracked.values(keywords)
        chosen = []
        for index, answer in enumerate(answers(self.kwargs_mask, keywords, self._name)):
            name = partial(tracked.path, index, keywords)
            refusals.check_is_bool(answer, name, self._name)
            if answer is not None and answer is not False:
                refusals.check_differentiable(values[index], name, self._name)
                chosen.append(index)

        argnums = []
        for number in (self.argnums,) if isinstance(self.argnums, int) else self.argnums:
            refusals.check_argnum(number, len(args), self._name)
            argnums.append(number % len(args))
        # JAX is given what several arguments share with the first of them, so those to differentiate come first.
        order = (*dict.fromkeys((*argnums, *range(len(args)))),)
        form = Form(tracked.skeleton, argnums[0] if isinstance(self.argnums, int) else tuple(argnums), order)
        ordered = as_tree(tuple(args[number] for number in order))
        count = len({*argnums})

        def pure(selected: dict[int, Value], *first: Any) -> tuple[Any, Any]:
            inputs = [selected.get(index, value) for index, value in enumerate(values)]
            by_number = form.by_number((*first, *ordered[count:]))
            as_called = tree_ref(tuple(by_number[number] for number in range(len(args))))
            output, after, changed = run(self._call, tracked.skeleton, inputs, as_called)
            output = tree_unref(output)
            if self.has_aux and not (isinstance(output, (tuple, list)) and output):
                raise refusals.lacks_aux(output, self._name)
            value, *aux = output if self.has_aux else (output,)
            return self._value(value), (tree_ref(tuple(aux)), {index: after[index] for index in changed})

        return Problem(pure, ({index: values[index] for index in chosen}, *ordered[:count]), form, tracked)


def _gradients(skeleton: Skeleton, grads: dict[int, Value]) -> Gradients:
    """The keyword arguments with gradients in the places of values, and `None` elsewhere."""
    nodes: list[Any] = [None] * len(skeleton.kinds)
    for index, grad in grads.items():
        kind = skeleton.kinds[index]
        nodes[index] = grad if kind is None else kind[0].from_structure(kind[1], (grad,))
    tree = skeleton.treedef.unflatten(nodes)[1]
    gradients: Gradients = jax.tree.map(
        lambda node: None if isinstance(node, (ParamRef, StaticParam)) else node, tree, is_leaf=is_param
    )
    return gradients

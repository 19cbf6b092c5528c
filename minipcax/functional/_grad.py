"""`value_and_grad` and `grad`: gradients with respect to the parameters that a mask selects."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, TypeVarTuple, overload

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from minipcax.core import Param, StaticParam, get, tree_ref, tree_unref
from minipcax.core.tree import ParamRef, is_param
from minipcax.functional._base import P, R, Transform, decorator
from minipcax.functional._masking import Mask, answers
from minipcax.functional._tracking import ARRAY_TYPES, Keywords, Skeleton, Value, as_tree, collect, write_back

Scalar = TypeVar("Scalar", bound=ArrayLike | Param)
Aux = TypeVarTuple("Aux")
# The structure of the keyword arguments, with a parameter that holds the gradient, or None, in each parameter's place;
# with respect to positional arguments, whatever those are made of.
Gradients = dict[str, Any]
PositionalGradients = Any


class ValueAndGrad(Transform[P, R]):
    """What `value_and_grad` makes.

    Example:
        >>> jit(value_and_grad()(jnp.sin))
        Jit(fn=ValueAndGrad(fn=sin))
    """

    def __init__(
        self,
        fn: Callable[P, Any],  # a value, or with has_aux a tuple that starts with it
        kwargs_mask: Mask[bool] = {},
        argnums: int | Sequence[int] = (),
        has_aux: bool = False,
    ) -> None:
        super().__init__(fn)
        self.kwargs_mask, self.argnums, self.has_aux = kwargs_mask, argnums, has_aux

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        tracked = collect(keywords)
        values = tracked.values(keywords)
        chosen = [
            index
            for index, answer in enumerate(answers(self.kwargs_mask, keywords))
            if _is_chosen(answer, values[index], partial(tracked.path, index, keywords))
        ]

        one = isinstance(self.argnums, int)
        argnums = []
        for number in (self.argnums,) if isinstance(self.argnums, int) else self.argnums:
            if not -len(args) <= number < len(args):
                raise ValueError(
                    f"argnums of grad names the positional argument {number}, but the call has {len(args)} of them"
                )
            argnums.append(number % len(args))
        # What other arguments share with those to differentiate is one parameter, which is differentiated.
        order = [*dict.fromkeys((*argnums, *range(len(args))))]

        def pure(selected: dict[int, Value], *ordered: Any) -> tuple[Any, Any]:
            inputs = [selected.get(index, value) for index, value in enumerate(values)]
            by_number = dict(zip(order, tree_unref(ordered), strict=True))
            in_order = tree_ref(tuple(by_number[number] for number in range(len(args))))
            output, after, changed = self._run(tracked.skeleton, inputs, in_order)
            if self.has_aux and not (isinstance(output, (tuple, list)) and output):
                raise TypeError(f"with has_aux, grad expected the function to return value, *aux, found {output!r}")
            value, *aux = tree_unref(output) if self.has_aux else (output,)
            _refuse_non_scalar(get(value))
            return get(value), (tree_ref(tuple(aux)), {index: after[index] for index in changed})

        differentiate = jax.value_and_grad(pure, argnums=tuple(range(len({*argnums}) + 1)), has_aux=True)
        (value, (aux, changes)), (grads, *positional) = differentiate(
            {index: values[index] for index in chosen}, *as_tree(tuple(args[number] for number in order))
        )
        write_back(tracked.leaves, changes)
        aux = tree_unref(aux)

        gradients = _gradients(tracked.skeleton, grads)
        by_number = dict(zip(order, tree_unref(tuple(positional)), strict=False))
        in_order = tuple(by_number[number] for number in argnums)
        result = (in_order[0] if one else in_order, gradients) if argnums else gradients
        return self._returned((value, aux) if self.has_aux else value, aux, result)

    def _returned(self, value: Any, aux: tuple[Any, ...], grads: Any) -> Any:
        return value, grads


class Grad(ValueAndGrad[P, R]):
    """What `grad` makes.

    Example:
        >>> grad()(jnp.sin)
        Grad(fn=sin)
    """

    def _returned(self, value: Any, aux: tuple[Any, ...], grads: Any) -> Any:
        return (grads, aux) if self.has_aux else grads


def _refuse_non_scalar(value: object) -> None:
    if isinstance(value, ARRAY_TYPES) and jnp.shape(value) == ():
        return
    found = f"an array of shape {jnp.shape(value)}" if isinstance(value, ARRAY_TYPES) else f"a {type(value).__name__}"
    raise TypeError(
        f"grad expected the function to return a scalar, found {found}: sum or average it; what comes beside the value "
        "needs has_aux=True"
    )


def _is_chosen(answer: object, value: Value, path: Callable[[], str]) -> bool:
    """Whether a mask selects a parameter: it says True, or keeps it (as `M` does)."""
    if answer is None or answer is False:
        return False
    if answer is not True and not is_param(answer):
        raise TypeError(f"the mask of grad gives {answer!r} for {path()}: expected True, False or None")
    for array in jax.tree.leaves(value):
        if not jnp.issubdtype(jnp.result_type(array), jnp.inexact):
            raise TypeError(
                f"the mask of grad selects {path()}, whose dtype is {jnp.result_type(array)}: only floating-point "
                "values have gradients; leave it out of the mask"
            )
    return True


def _gradients(skeleton: Skeleton, grads: dict[int, Value]) -> Gradients:
    """The keyword arguments with gradients in place of values, and None where there is none."""
    nodes = [
        None
        if index not in grads
        else grads[index]
        if kind is None
        else kind[0].from_structure(kind[1], (grads[index],))
        for index, kind in enumerate(skeleton.kinds)
    ]
    tree = skeleton.treedef.unflatten(nodes)[1]
    gradients: Gradients = jax.tree.map(
        lambda node: None if isinstance(node, (ParamRef, StaticParam)) else node, tree, is_leaf=is_param
    )
    return gradients


@overload
def value_and_grad(  # type: ignore[overload-overlap]  # an empty sequence fits both; it counts as the first
    kwargs_mask: Mask[bool] = ..., argnums: tuple[()] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, Scalar]], ValueAndGrad[P, tuple[Scalar, Gradients]]]: ...
@overload
def value_and_grad(  # type: ignore[overload-overlap]  # an empty sequence fits both; it counts as the first
    kwargs_mask: Mask[bool] = ..., argnums: tuple[()] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[Scalar, *Aux]]], ValueAndGrad[P, tuple[tuple[Scalar, tuple[*Aux]], Gradients]]]: ...
@overload
def value_and_grad(
    kwargs_mask: Mask[bool] = ..., *, argnums: int | Sequence[int], has_aux: Literal[False] = False
) -> Callable[[Callable[P, Scalar]], ValueAndGrad[P, tuple[Scalar, tuple[PositionalGradients, Gradients]]]]: ...
@overload
def value_and_grad(
    kwargs_mask: Mask[bool] = ..., *, argnums: int | Sequence[int], has_aux: Literal[True]
) -> Callable[
    [Callable[P, tuple[Scalar, *Aux]]],
    ValueAndGrad[P, tuple[tuple[Scalar, tuple[*Aux]], tuple[PositionalGradients, Gradients]]],
]: ...
def value_and_grad(kwargs_mask: Mask[bool] = {}, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """The value of a function and its gradients: `jax.value_and_grad`, with tracked keyword arguments.

    A shared parameter gets the sum over its uses, at its first occurrence.

    Args:
        kwargs_mask: True for each parameter to differentiate.
        argnums: which positional arguments to differentiate as well.
        has_aux: whether the function returns `value, *aux` instead of a scalar value.

    Returns:
        `(value, grads)`, or `((value, aux), grads)` where `aux` is a tuple. The gradients are a dict with the structure
        of the keyword arguments, a parameter that holds the gradient where the mask is True, and `None` elsewhere;
        with `argnums`, a pair: those of the positional arguments, and this dict.

    Example:
        >>> @value_and_grad({"w": True})
        ... def loss(x: Array, *, w: Param) -> Array:
        ...     return (w * x) ** 2
        >>> value, grads = loss(jnp.array(3.0), w=Param(jnp.array(2.0)))
        >>> float(value), grads["w"], float(grads["w"])
        (36.0, Param([], float32), 36.0)
    """
    return decorator("value_and_grad", lambda fn: ValueAndGrad(fn, kwargs_mask, argnums, has_aux))


@overload
def grad(  # type: ignore[overload-overlap]  # an empty sequence fits both; it counts as the first
    kwargs_mask: Mask[bool] = ..., argnums: tuple[()] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, Scalar]], Grad[P, Gradients]]: ...
@overload
def grad(  # type: ignore[overload-overlap]  # an empty sequence fits both; it counts as the first
    kwargs_mask: Mask[bool] = ..., argnums: tuple[()] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[Scalar, *Aux]]], Grad[P, tuple[Gradients, tuple[*Aux]]]]: ...
@overload
def grad(
    kwargs_mask: Mask[bool] = ..., *, argnums: int | Sequence[int], has_aux: Literal[False] = False
) -> Callable[[Callable[P, Scalar]], Grad[P, tuple[PositionalGradients, Gradients]]]: ...
@overload
def grad(
    kwargs_mask: Mask[bool] = ..., *, argnums: int | Sequence[int], has_aux: Literal[True]
) -> Callable[
    [Callable[P, tuple[Scalar, *Aux]]], Grad[P, tuple[tuple[PositionalGradients, Gradients], tuple[*Aux]]]
]: ...
def grad(kwargs_mask: Mask[bool] = {}, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """The gradients of a function: `value_and_grad` without the value.

    Returns:
        The gradients, or `(gradients, aux)`, as `jax.grad` does.

    Example:
        >>> @grad({"w": True})
        ... def loss(x: Array, *, w: Param) -> Array:
        ...     return (w * x) ** 2
        >>> float(loss(jnp.array(3.0), w=Param(jnp.array(2.0)))["w"])
        36.0
    """
    return decorator("grad", lambda fn: Grad(fn, kwargs_mask, argnums, has_aux))

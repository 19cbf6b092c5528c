"""`value_and_grad` and `grad`: gradients with respect to the parameters that a mask selects."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, TypeVarTuple, overload

import jax
from jax.typing import ArrayLike

import minipcax.functional._refusals as refusals
from minipcax.core import Param, StaticParam, get, tree_ref, tree_unref
from minipcax.core.tree import ParamRef, is_param
from minipcax.functional._base import P, R, Transform, decorator
from minipcax.functional._masking import Mask, answers
from minipcax.functional._tracking import Skeleton, as_tree, collect, run, write_back
from minipcax.functional._types import Keywords, Value

Number = ArrayLike | Param
Scalar = TypeVar("Scalar", bound=Number)
Aux = TypeVarTuple("Aux")
# The structure of the keyword arguments, with a parameter that holds the gradient, or None, in each parameter's place.
Gradients = dict[str, Any]
PositionalGradients = Any  # trees of the structure of the arguments


class ValueAndGrad(Transform[P, R]):
    """The callable returned by `value_and_grad`.

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
        chosen = []
        for index, answer in enumerate(answers(self.kwargs_mask, keywords)):
            name = partial(tracked.path, index, keywords)
            refusals.check_is_bool(answer, name)
            if answer is not None and answer is not False:
                refusals.check_differentiable(values[index], name)
                chosen.append(index)

        argnums = []
        for number in (self.argnums,) if isinstance(self.argnums, int) else self.argnums:
            refusals.check_argnum(number, len(args))
            argnums.append(number % len(args))
        # JAX is given what several arguments share with the first of them, so those to differentiate come first.
        order = [*dict.fromkeys((*argnums, *range(len(args))))]

        def pure(selected: dict[int, Value], *ordered: Any) -> tuple[Any, Any]:
            inputs = [selected.get(index, value) for index, value in enumerate(values)]
            by_number = _by_number(order, ordered)
            as_called = tree_ref(tuple(by_number[number] for number in range(len(args))))
            output, after, changed = run(self._call, tracked.skeleton, inputs, as_called)
            if self.has_aux and not (isinstance(output, (tuple, list)) and output):
                raise TypeError(f"with has_aux, grad expected the function to return value, *aux, found {output!r}")
            value, *aux = tree_unref(output) if self.has_aux else (output,)
            refusals.check_scalar(get(value))
            return get(value), (tree_ref(tuple(aux)), {index: after[index] for index in changed})

        # With respect to `selected`, and to the first of the ordered arguments.
        differentiate = jax.value_and_grad(pure, argnums=tuple(range(1 + len({*argnums}))), has_aux=True)
        (value, (aux, changes)), (grads, *positional) = differentiate(
            {index: values[index] for index in chosen}, *as_tree(tuple(args[number] for number in order))
        )
        write_back(tracked.leaves, changes)
        aux = tree_unref(aux)

        gradients: Any = _gradients(tracked.skeleton, grads)
        if isinstance(self.argnums, int):
            gradients = tree_unref(positional[0]), gradients
        elif argnums:
            by_number = _by_number(order, positional)
            gradients = tuple(by_number[number] for number in argnums), gradients
        return self._returned((value, aux) if self.has_aux else value, aux, gradients)

    def _returned(self, value: Any, aux: tuple[Any, ...], grads: Any) -> Any:
        return value, grads


class Grad(ValueAndGrad[P, R]):
    """The callable returned by `grad`.

    Example:
        >>> grad()(jnp.sin)
        Grad(fn=sin)
    """

    def _returned(self, value: Any, aux: tuple[Any, ...], grads: Any) -> Any:
        return (grads, aux) if self.has_aux else grads


def _by_number(order: Sequence[int], values: Sequence[Any]) -> dict[int, Any]:
    """Arguments, or the gradients of the first few of them, by their positions in the call."""
    return dict(zip(order, tree_unref(tuple(values)), strict=False))


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

    The gradient of a shared parameter is the sum over its uses, in the place of its first occurrence.

    Args:
        kwargs_mask: True for each parameter to differentiate.
        argnums: which positional arguments to differentiate as well.
        has_aux: whether the function returns `value, *aux` instead of just the value.

    Returns:
        `(value, grads)`, or `((value, aux), grads)`, where `aux` is a tuple. The gradients are a dict of the structure
        of the keyword arguments: a parameter that holds the gradient where the mask is True, and `None` elsewhere.
        With `argnums` they are a pair: the gradients of the positional arguments, and this dict.

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
) -> Callable[[Callable[P, Number]], Grad[P, Gradients]]: ...
@overload
def grad(  # type: ignore[overload-overlap]  # an empty sequence fits both; it counts as the first
    kwargs_mask: Mask[bool] = ..., argnums: tuple[()] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[Number, *Aux]]], Grad[P, tuple[Gradients, tuple[*Aux]]]]: ...
@overload
def grad(
    kwargs_mask: Mask[bool] = ..., *, argnums: int | Sequence[int], has_aux: Literal[False] = False
) -> Callable[[Callable[P, Number]], Grad[P, tuple[PositionalGradients, Gradients]]]: ...
@overload
def grad(
    kwargs_mask: Mask[bool] = ..., *, argnums: int | Sequence[int], has_aux: Literal[True]
) -> Callable[
    [Callable[P, tuple[Number, *Aux]]], Grad[P, tuple[tuple[PositionalGradients, Gradients], tuple[*Aux]]]
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

"""`value_and_grad` and `grad`: gradients with respect to the parameters that a mask selects."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, overload

import jax
from jax.typing import ArrayLike

import minipcax.functional._derivative_refusals as refusals
from minipcax.core import Param, get
from minipcax.functional._base import P, R, decorator
from minipcax.functional._derivative import Aux, Derivative, Gradients, PositionalGradients
from minipcax.functional._masking import Mask
from minipcax.functional._types import Keywords

Number = ArrayLike | Param
Scalar = TypeVar("Scalar", bound=Number)


class ValueAndGrad(Derivative[P, R]):
    """The callable returned by `value_and_grad`.

    Example:
        >>> jit(value_and_grad()(jnp.sin))
        Jit(fn=ValueAndGrad(fn=sin))
    """

    _name = "grad"

    def _value(self, output: Any) -> Any:
        refusals.check_scalar(get(output), self._name)
        return get(output)

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        problem = self._problem(args, keywords)
        every = tuple(range(len(problem.point)))
        differentiate = jax.value_and_grad(problem.function, argnums=every, has_aux=True)
        (value, effects), grads = differentiate(*problem.point)
        aux = problem.finish(effects)
        return self._returned((value, aux) if self.has_aux else value, aux, problem.form.arrange(grads))

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

"""`value_and_grad` and `grad`: gradients with respect to the parameters that a mask selects."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, overload

import jax
from jax.typing import ArrayLike

import minipcax.functional._derivative_refusals as refusals
from minipcax.core import Param, get
from minipcax.functional._base import P, R, decorator
from minipcax.functional._derivative import NO_MASK, Aux, Derivative, Gradients, PositionalGradients
from minipcax.functional._masking import Mask
from minipcax.functional._types import Keywords

Number = ArrayLike | Param
Scalar = TypeVar("Scalar", bound=Number)


class ValueAndGrad(Derivative[P, R]):
    """The callable returned by `value_and_grad`, with the signature of its function.

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
    """The callable returned by `grad`, with the signature of its function.

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
def value_and_grad(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Differentiates a function that returns a scalar: `jax.value_and_grad`, with tracked keyword arguments.

    The gradient of a shared parameter is the sum over its uses, at its first occurrence.

    Args:
        kwargs_mask: a mask that is True for each parameter to differentiate: an `M`, or a dict by keyword.
        argnums: the positional arguments to differentiate as well, an int or a sequence of ints.
        has_aux: whether the function returns `value, *aux` instead of just the value.

    Returns:
        A decorator. The decorated function returns `(value, grads)`, or `((value, aux), grads)`, where `aux` is a
        tuple. `grads` is a dict with the structure of the keyword arguments: a parameter of the same class that holds
        the gradient where the mask is True, and `None` elsewhere. With `argnums`, it is a pair: the gradients of the
        positional arguments, and this dict.

    Raises:
        TypeError: in a call, the function does not return a scalar, or, with `has_aux`, not `value, *aux`; a selected
            parameter is not a floating-point value; or neither a mask nor `argnums` was given.
        ValueError: in a call, the mask names a keyword, or `argnums` an argument, that is not passed; or one parameter
            is in two keywords, of which the mask selects one.

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
def grad(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Differentiates a function that returns a scalar: `value_and_grad` without the value, like `jax.grad`.

    Args:
        kwargs_mask: as for `value_and_grad`.
        argnums: as for `value_and_grad`.
        has_aux: as for `value_and_grad`.

    Returns:
        A decorator. The decorated function returns the gradients, or `(gradients, aux)`.

    Raises:
        TypeError: see `value_and_grad`.
        ValueError: see `value_and_grad`.

    Example:
        >>> @grad({"w": True})
        ... def loss(x: Array, *, w: Param) -> Array:
        ...     return (w * x) ** 2
        >>> float(loss(jnp.array(3.0), w=Param(jnp.array(2.0)))["w"])
        36.0
    """
    return decorator("grad", lambda fn: Grad(fn, kwargs_mask, argnums, has_aux))

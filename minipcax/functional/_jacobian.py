"""`jacrev`, `jacfwd` and `hessian`: derivatives of many values at once, and second derivatives.

JAX returns them in the structure of the outputs (for a Hessian, of the inputs), and in the place of each array there
the derivatives of that array, which are arranged as a gradient is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import jax
from jax.typing import ArrayLike

import minipcax.functional._derivative_refusals as refusals
from minipcax.core import Param, get
from minipcax.core.tree import is_dynamic
from minipcax.functional._base import P, R, decorator
from minipcax.functional._derivative import NO_MASK, Aux, Derivative, Derivatives, Form
from minipcax.functional._masking import Mask
from minipcax.functional._types import Function, Keywords

Jacobians = Any  # the structure of what the function returns, with `Derivatives` in the place of each array
Number = ArrayLike | Param


class Jacobian(Derivative[P, R]):
    """The callable returned by `jacrev` and `jacfwd`, with the signature of its function.

    Example:
        >>> jacrev()(jnp.sin)
        Jacobian(fn=sin)
    """

    _name = "jacobian"

    def __init__(
        self,
        fn: Callable[P, Any],  # arrays, in any tree
        kwargs_mask: Mask[bool] = NO_MASK,
        argnums: int | Sequence[int] = (),
        has_aux: bool = False,
        mode: Literal["reverse", "forward"] = "reverse",
    ) -> None:
        super().__init__(fn, kwargs_mask, argnums, has_aux)
        if mode not in ("reverse", "forward"):
            raise ValueError(f'Jacobian expected the mode "reverse" or "forward", found {mode!r}')
        self.mode = mode

    def _value(self, output: Any) -> Any:
        values = jax.tree.map(get, output, is_leaf=is_dynamic)
        refusals.check_continuous(values, self._name)
        return values

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        problem = self._problem(args, keywords)

        def function(*point: Any) -> Any:
            value, effects = problem.function(*point)
            return value, (value, effects)  # JAX returns the derivatives alone

        differentiate = jax.jacrev if self.mode == "reverse" else jax.jacfwd
        raw, (value, effects) = _differentiated(differentiate, function, problem.point)
        aux = problem.finish(effects)
        derivatives = _arranged(problem.form, value, raw)
        return (derivatives, aux) if self.has_aux else derivatives


class Hessian(Derivative[P, R]):
    """The callable returned by `hessian`, with the signature of its function.

    Example:
        >>> hessian()(jnp.sin)
        Hessian(fn=sin)
    """

    _name = "hessian"

    def _value(self, output: Any) -> Any:
        refusals.check_scalar(get(output), self._name, ", or use jacfwd of jacrev")
        return get(output)

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        problem = self._problem(args, keywords)

        def gradient(*point: Any) -> Any:
            return _differentiated(jax.jacrev, problem.function, point)

        raw, effects = _differentiated(jax.jacfwd, gradient, problem.point)
        aux = problem.finish(effects)
        rows = problem.form.arrange(_arranged(problem.form, problem.point, raw, _Row))
        derivatives = jax.tree.map(_without_parameter, rows, is_leaf=is_dynamic)
        return (derivatives, aux) if self.has_aux else derivatives


@dataclass(frozen=True)
class _Row:
    """The derivatives of one array of a gradient, as a leaf: a parameter does not hold others."""

    derivatives: Derivatives


def _without_parameter(node: Any) -> Any:
    """What stands in the place of a parameter, or of a bare array, of a gradient."""
    return jax.tree.map(lambda row: row.derivatives, get(node))


def _differentiated(differentiate: Function, function: Function, point: tuple[Any, ...]) -> Any:
    """The derivatives of a function that returns `value, aux` with respect to all of its arguments, and aux."""
    if not jax.tree.leaves(point):  # JAX does not take a point without arrays, whose structure is the answer
        value, aux = function(*point)
        return jax.tree.map(lambda _: point, value), aux
    return differentiate(function, argnums=tuple(range(len(point))), has_aux=True)(*point)


def _arranged(form: Form, outputs: Any, raw: Any, kind: Function = lambda derivatives: derivatives) -> Any:
    """The tree of outputs, with the derivatives of each array, which JAX has put in its place, arranged."""
    structure: Any = jax.tree.structure(outputs)  # JAX does not name the type of its treedefs
    return structure.unflatten(kind(form.arrange(part)) for part in structure.flatten_up_to(raw))


@overload
def jacrev(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, object]], Jacobian[P, Jacobians]]: ...
@overload
def jacrev(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[object, *Aux]]], Jacobian[P, tuple[Jacobians, tuple[*Aux]]]]: ...
def jacrev(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Computes the Jacobian of a function row by row: `jax.jacrev`, with tracked keyword arguments.

    It costs one backward pass for each number that the function returns, so it suits functions that return few.
    `jacobian` is another name for it, as in JAX.

    Args:
        kwargs_mask: a mask that is True for each parameter to differentiate: an `M`, or a dict by keyword.
        argnums: the positional arguments to differentiate as well, an int or a sequence of ints.
        has_aux: whether the function returns `value, *aux` instead of just the value.

    Returns:
        A decorator. The decorated function returns the structure that the function does, with the derivatives of each
        array in its place: in the structure that `grad` returns, each of shape `(*output.shape, *input.shape)`. With
        `has_aux`, it returns `(jacobian, aux)`.

    Raises:
        TypeError: in a call, a selected parameter, or an output, is not a floating-point value; or neither a mask nor
            `argnums` was given.

    Example:
        >>> @jacrev({"w": True})
        ... def products(x: Array, *, w: Param) -> Array:
        ...     return w * x
        >>> products(jnp.array([2.0, 3.0]), w=Param(jnp.ones(2)))["w"].tolist()
        [[2.0, 0.0], [0.0, 3.0]]
    """
    return decorator("jacrev", lambda fn: Jacobian(fn, kwargs_mask, argnums, has_aux))


@overload
def jacfwd(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, object]], Jacobian[P, Jacobians]]: ...
@overload
def jacfwd(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[object, *Aux]]], Jacobian[P, tuple[Jacobians, tuple[*Aux]]]]: ...
def jacfwd(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Computes the Jacobian of a function column by column: `jax.jacfwd`, with tracked keyword arguments.

    It costs one forward pass for each number that is differentiated, so it suits functions of few numbers. It also
    differentiates a `while_loop`.

    Args:
        kwargs_mask: as for `jacrev`.
        argnums: as for `jacrev`.
        has_aux: as for `jacrev`.

    Returns:
        What `jacrev` returns.

    Raises:
        TypeError: see `jacrev`.

    Example:
        >>> @jacfwd({"w": True})
        ... def products(x: Array, *, w: Param) -> Array:
        ...     return w * x
        >>> products(jnp.array([2.0, 3.0]), w=Param(jnp.ones(2)))["w"].tolist()
        [[2.0, 0.0], [0.0, 3.0]]
    """
    return decorator("jacfwd", lambda fn: Jacobian(fn, kwargs_mask, argnums, has_aux, "forward"))


jacobian = jacrev


@overload
def hessian(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, Number]], Hessian[P, Derivatives]]: ...
@overload
def hessian(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[Number, *Aux]]], Hessian[P, tuple[Derivatives, tuple[*Aux]]]]: ...
def hessian(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Computes the second derivatives of a function that returns a scalar: `jax.hessian`, with tracked keywords.

    It is the forward Jacobian of the gradient, and costs about one gradient for each number that is differentiated.

    Args:
        kwargs_mask: a mask that is True for each parameter to differentiate: an `M`, or a dict by keyword.
        argnums: the positional arguments to differentiate as well, an int or a sequence of ints.
        has_aux: whether the function returns `value, *aux` instead of just the value.

    Returns:
        A decorator. The decorated function returns the structure that `grad` returns, nested twice: in the place of
        each parameter, its derivatives in the same structure again, such as `hessian["model"].w["model"].w`, of shape
        `(*w.shape, *w.shape)`. With `has_aux`, it returns `(hessian, aux)`.

    Raises:
        TypeError: in a call, the function does not return a scalar, a selected parameter is not a floating-point
            value, or neither a mask nor `argnums` was given.

    Example:
        >>> @hessian({("a", "b"): True})
        ... def loss(*, a: Param, b: Param) -> Array:
        ...     return a**2 * b
        >>> second = loss(a=Param(jnp.array(3.0)), b=Param(jnp.array(5.0)))
        >>> float(second["a"]["a"]), float(second["a"]["b"]), float(second["b"]["b"])  # 2b, 2a, 0
        (10.0, 6.0, 0.0)
    """
    return decorator("hessian", lambda fn: Hessian(fn, kwargs_mask, argnums, has_aux))

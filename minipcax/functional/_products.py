"""`jvp` and `vjp`: products with a Jacobian, which is never formed.

A direction has the form of a gradient: a tangent goes in, and the pullback of a cotangent comes out, in the structure
that `grad` returns. So `jvp(mask)(grad(mask)(loss))(direction, ...)` is the product of a Hessian and a direction.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, Literal, TypeVar, overload

import jax
import jax.numpy as jnp

import minipcax.functional._derivative_refusals as refusals
from minipcax.core import get, tree_ref, tree_unref
from minipcax.core.tree import is_dynamic, path_name
from minipcax.functional._base import P, R, decorator
from minipcax.functional._derivative import NO_MASK, Aux, Derivative, Derivatives, Form, Problem
from minipcax.functional._masking import Mask
from minipcax.functional._refusals import keyword_path
from minipcax.functional._types import Keywords

Output = TypeVar("Output")


class Jvp(Derivative[P, R]):
    """The callable returned by `jvp`, which takes the tangents before the arguments of its function.

    Example:
        >>> jvp()(jnp.sin)
        Jvp(fn=sin)
    """

    _name = "jvp"

    def __init__(
        self,
        fn: Callable[P, Any],  # arrays, in any tree
        kwargs_mask: Mask[bool] = NO_MASK,
        argnums: int | Sequence[int] = (),
        has_aux: bool = False,
    ) -> None:
        super().__init__(fn, kwargs_mask, argnums, has_aux)
        self._takes("tangents")

    def _keywords(self, args: tuple[Any, ...], kwargs: Keywords) -> Keywords:
        return super()._keywords(args[1:], kwargs)  # the first argument is not for the function

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        if not args:
            raise refusals.lacks_tangents(repr(self))
        problem = self._problem(args[1:], keywords)
        tangents = _tangents(args[0], problem)
        value, change, effects = jax.jvp(problem.function, problem.point, tangents, has_aux=True)
        aux = problem.finish(effects)
        products = tree_unref(value), tree_unref(change)
        return (*products, aux) if self.has_aux else products


class Vjp(Derivative[P, R]):
    """The callable returned by `vjp`, with the signature of its function.

    Example:
        >>> vjp()(jnp.sin)
        Vjp(fn=sin)
    """

    _name = "vjp"

    def _value(self, output: Any) -> Any:
        refusals.check_continuous(output, self._name)
        return tree_ref(output)

    def _transformed(self, args: tuple[Any, ...], keywords: Keywords) -> Any:
        problem = self._problem(args, keywords)
        value, pull, effects = jax.vjp(problem.function, *problem.point, has_aux=True)
        aux = problem.finish(effects)
        types = [(path, jax.typeof(array)) for path, array in _by_path(value)]
        pullback = Pullback[Any](pull, problem.form, jax.tree.structure(value), tuple(types))
        result = tree_unref(value), pullback
        return (*result, aux) if self.has_aux else result


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Pullback(Generic[Output]):
    """From a cotangent, of the structure of what the function returns, to the derivatives, as `grad` returns them.

    It is a pytree, which compiled functions may return.

    Args:
        pull: what JAX returns, which also holds the arrays that are kept for the backward pass.
        form: the form of the derivatives.
        structure: the tree structure of what the function returns.
        types: the path, shape and dtype of each array in it.
    """

    pull: Callable[..., tuple[Any, ...]]  # any tree of arrays
    form: Form
    structure: Any  # JAX does not name the type of its treedefs
    types: tuple[tuple[str, Any], ...]  # of `jax.typeof`

    def __call__(self, cotangent: Output) -> Derivatives:
        """Multiplies the cotangent by the Jacobian.

        Raises:
            TypeError: the cotangent does not have the structure, shapes and dtypes of what the function returned.
        """
        arrays = _fitting(self.types, _by_path(tree_ref(cotangent)), "vjp expected a cotangent like the output")
        return self.form.arrange(self.pull(jax.tree.unflatten(self.structure, arrays)))

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Any, ...]]:
        """The part that holds arrays, and the rest."""
        return (self.pull,), (self.form, self.structure, self.types)

    @classmethod
    def tree_unflatten(cls, rest: tuple[Any, ...], children: tuple[Any, ...]) -> "Pullback[Any]":
        """Builds it from these."""
        return cls(*children, *rest)


def _tangents(given: Derivatives, problem: Problem) -> tuple[Any, ...]:
    """Tangents in the form of a gradient, as JAX takes them."""
    expected = _named(problem.form.arrange(problem.point), problem.form)
    found = _named(given, problem.form)
    types = [(name, jax.typeof(array)) for name, array in expected]
    arrays = _fitting(types, found, "jvp expected tangents in the structure that grad returns")
    tangents: tuple[Any, ...] = jax.tree.unflatten(jax.tree.structure(problem.point), arrays)
    return tangents


def _named(derivatives: Derivatives, form: Form) -> list[tuple[str, Any]]:
    """The arrays of derivatives by their names, in the order of a point."""
    refusals.check_form(derivatives, form.argnums)
    positional, tracked = derivatives if form.argnums != () else ((), derivatives)
    numbers, values = ((form.argnums,), (positional,)) if isinstance(form.argnums, int) else (form.argnums, positional)
    by_number = dict(zip(numbers, values, strict=True))
    differentiated = [number for number in form.order if number in by_number]
    arguments = tree_ref(tuple(by_number[number] for number in differentiated))
    names = [f"argument {number}" for number in differentiated]
    return [(keyword_path(path), array) for path, array in _arrays(tracked)] + [
        (f"{names[path[0].idx]}{path_name(path[1:])}", array) for path, array in _arrays(arguments)
    ]


def _arrays(tree: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The arrays of a tree with their paths, in which a parameter and its value are the same."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_dynamic):
        for below, array in jax.tree_util.tree_leaves_with_path(get(leaf)):
            yield (*path, *below), array


def _by_path(tree: Any) -> list[tuple[str, Any]]:
    return [(path_name(path), array) for path, array in _arrays(tree)]


def _fitting(types: Sequence[tuple[str, Any]], found: list[tuple[str, Any]], what: str) -> list[Any]:
    """The arrays that were found, in order. Python numbers take on the dtype that is expected."""
    refusals.check_fits(types, found, what)
    return [jnp.asarray(array, expected.dtype) for (_, expected), (_, array) in zip(types, found, strict=True)]


@overload
def jvp(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, R]], Jvp[Concatenate[Derivatives, P], tuple[R, R]]]: ...
@overload
def jvp(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[R, *Aux]]], Jvp[Concatenate[Derivatives, P], tuple[R, R, tuple[*Aux]]]]: ...
def jvp(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Differentiates a function in one direction, J v: `jax.jvp`, with tracked keyword arguments.

    One forward pass gives the product of the Jacobian and a vector. What the function writes are values, as in a call.

    Args:
        kwargs_mask: a mask that is True for each parameter to differentiate: an `M`, or a dict by keyword.
        argnums: the positional arguments to differentiate as well, an int or a sequence of ints.
        has_aux: whether the function returns `value, *aux` instead of just the value.

    Returns:
        A decorator. The decorated function takes the tangents, then the arguments, and returns `(value, change)` or
        `(value, change, aux)`. The tangents have the structure that `grad` returns: a dict like the keyword arguments,
        with `None` for what does not move, and with `argnums` a pair of positional tangents and this dict. They are
        parameters or bare arrays.

    Raises:
        TypeError: in a call, the tangents do not have this structure, or the shapes and dtypes of what moves; or
            neither a mask nor `argnums` was given.

    Example:
        >>> @jvp({"w": True})
        ... def square(x: Array, *, w: Param) -> Array:
        ...     return (w * x) ** 2
        >>> value, change = square({"w": jnp.array(1.0)}, jnp.array(3.0), w=Param(jnp.array(2.0)))
        >>> float(value), float(change)  # 2 w x²
        (36.0, 36.0)
    """
    return decorator("jvp", lambda fn: Jvp(fn, kwargs_mask, argnums, has_aux))


@overload
def vjp(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), has_aux: Literal[False] = False
) -> Callable[[Callable[P, R]], Vjp[P, tuple[R, Pullback[R]]]]: ...
@overload
def vjp(
    kwargs_mask: Mask[bool] = ..., argnums: int | Sequence[int] = (), *, has_aux: Literal[True]
) -> Callable[[Callable[P, tuple[R, *Aux]]], Vjp[P, tuple[R, Pullback[R], tuple[*Aux]]]]: ...
def vjp(kwargs_mask: Mask[bool] = NO_MASK, argnums: int | Sequence[int] = (), has_aux: bool = False) -> Any:
    """Returns the value of a function and its pullback v ↦ vᵀ J: `jax.vjp`, with tracked keyword arguments.

    The pullback multiplies a vector by the Jacobian in one backward pass; it may be called several times. What the
    function writes is written once, when the value is returned.

    Args:
        kwargs_mask: a mask that is True for each parameter to differentiate: an `M`, or a dict by keyword.
        argnums: the positional arguments to differentiate as well, an int or a sequence of ints.
        has_aux: whether the function returns `value, *aux` instead of just the value.

    Returns:
        A decorator. The decorated function returns `(value, pullback)` or `(value, pullback, aux)`. The pullback takes
        a cotangent of the structure of the value, and returns the derivatives as `grad` does.

    Raises:
        TypeError: in a call, an output is not a floating-point value, the cotangent is not like the value, or neither a
            mask nor `argnums` was given.

    Example:
        >>> @vjp({"w": True})
        ... def products(x: Array, *, w: Param) -> Array:
        ...     return w * x
        >>> value, pullback = products(jnp.array([2.0, 3.0]), w=Param(jnp.ones(2)))
        >>> pullback(jnp.array([1.0, 10.0]))["w"].tolist()
        [2.0, 30.0]
    """
    return decorator("vjp", lambda fn: Vjp(fn, kwargs_mask, argnums, has_aux))

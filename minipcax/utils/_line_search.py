"""What optimisers that look further than the gradient are given: the value, and a function that finds it elsewhere.

A line search, as in L-BFGS, tries other values of the parameters before it moves. Optax calls the function inside loops
of its own, so it must not change anything: it gets a copy of the model, and draws the same random numbers every time.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from minipcax.core import Param, get
from minipcax.core.random import keeping_key
from minipcax.core.tree import copied
from minipcax.utils._optax import Optimiser
from minipcax.utils._targets import Scale, Tree, by_path

Value = ArrayLike | Param  # one number
ValueFn = Callable[[Any], Value]  # of a model, or whatever tree of parameters the optimiser is for


def extra_arguments(
    optimiser: Optimiser,
    module: Tree,
    grads: dict[str, Any],
    scale_by: Scale | None,
    value: Value | None,
    value_fn: ValueFn | None,
) -> dict[str, Any]:  # as optax names them
    """Returns what an optimiser is given beside gradients and parameters, if it takes any of it."""
    if value is None or not isinstance(optimiser, optax.GradientTransformationExtraArgs | optax.MultiSteps):
        return {}
    scale = 1 if scale_by is None else scale_by
    extra: dict[str, Any] = {"value": _number(value) * scale, "grad": grads}
    if value_fn is not None:
        fn = keeping_key(value_fn)

        def value_at(values: dict[str, Any]) -> Any:
            copy = copied(module)
            params = by_path(copy)
            for path, elsewhere in values.items():
                params[path].set(elsewhere)
            return _number(fn(copy)) * scale

        extra["value_fn"] = value_at
    return _taken(optimiser, extra)


def _taken(optimiser: Optimiser, extra: dict[str, Any]) -> dict[str, Any]:
    """Returns what the optimiser has names for, such as none of it for `optax.contrib.sam`, or takes by any name."""
    parameters = inspect.signature(optimiser.update).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: given for name, given in extra.items() if takes_all or name in parameters}


def _number(value: Value) -> Any:
    number = jnp.asarray(get(value))
    if number.shape != ():
        raise ValueError(
            f"Optim.step expected value to be one number, of which the gradients are, found an array of shape "
            f"{number.shape}: take its sum or mean, as before differentiating"
        )
    return number

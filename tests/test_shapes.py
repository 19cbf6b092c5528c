"""The checks of annotations at run time, see `shapes`: what they let pass, and what not."""

import jax.numpy as jnp
import pytest
from jax import Array
from jaxtyping import Float, TypeCheckError, jaxtyped

import minipcax.nn as pxnn
from tests.shapes import checked


@jaxtyped(typechecker=checked)
def doubled(x: Float[Array, " n"], times: float = 1.0) -> Float[Array, " n"]:
    if x.ndim == 2:
        raise ValueError("expected a vector")
    return jnp.append(x, x) if times == 0 else 2 * times * x


def test_what_fits_passes() -> None:
    assert doubled(jnp.ones(2), 3).tolist() == [6.0, 6.0]  # an int will do for a float


def test_a_refusal_keeps_its_words() -> None:
    with pytest.raises(ValueError, match="expected a vector"):
        doubled(jnp.ones((2, 2)))


@pytest.mark.parametrize("x", [jnp.ones((2, 2, 2)), jnp.array(1.0)])
def test_an_argument_that_is_accepted_must_fit(x: Array) -> None:
    with pytest.raises(TypeCheckError, match="doubled"):
        doubled(x)


def test_a_result_must_fit_the_arguments() -> None:
    with pytest.raises(TypeCheckError, match="return value"):
        doubled(jnp.ones(2), 0)


def test_every_module_is_checked(pytestconfig: pytest.Config) -> None:
    with_checks = pytestconfig.pluginmanager.hasplugin("tests.shapes")
    assert hasattr(pxnn.Linear.__call__, "__wrapped__") == with_checks

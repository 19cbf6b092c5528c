"""The examples in the docstrings run as they are printed."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import optax
import pytest

import minipcax as px
from minipcax import functional, learning, nn, predictive_coding, utils

SPACES = (functional, nn, predictive_coding, utils, learning, px)
MODULES = sorted(info.name for info in pkgutil.walk_packages(px.__path__, "minipcax."))


@pytest.mark.parametrize("name", ["minipcax", *MODULES])
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    public = {key: getattr(space, key) for space in SPACES for key in space.__all__}
    names = {**public, "jax": jax, "jnp": jnp, "optax": optax, "Array": jax.Array, **vars(module)}
    result = doctest.testmod(module, globs=names, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0

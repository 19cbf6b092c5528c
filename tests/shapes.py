"""Checks at run time that the package keeps to its annotations, shapes included: `python -m pytest -p tests.shapes`.

jaxtyping's import hook has beartype check every call of every function of the package. An argument that does not fit its
annotation has two ways to be right: the function refuses it, in its own words, or the annotation is wrong. So what is
wrong with the arguments is reported only if the function returns.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import install_import_hook

# An int will do for a float, as for a type checker.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A type checker for jaxtyping, which makes two functions of each that it checks.

    The first gets the arguments before a call, the second the arguments and, as `ret0`, what the call has returned.
    """
    hints = function.__annotations__
    hints.update({name: Any for name, hint in hints.items() if hint is Self})  # it means nothing outside a class
    strict = check(function)

    def lenient(*args: Any, **kwargs: Any) -> None:
        with suppress(BeartypeCallHintViolation):
            strict(*args, **kwargs)

    return strict if "ret0" in hints else lenient


def pytest_load_initial_conftests() -> None:
    install_import_hook("minipcax", "tests.shapes.checked")

"""Checks at run time that the package keeps to its annotations, shapes included: `python -m pytest -p tests.shapes`.

jaxtyping's import hook has beartype check every call of every function of the package. Where an argument does not fit
its annotation, either the function refuses it, in its own words, or the annotation is wrong. So what is wrong with the
arguments is reported only if the function returns.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
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


# Tests that do not hold with these checks, and why.
TREES = "the annotations of masks leave out trees of answers"
SKIPPED = {
    "test_a_tree_of_answers_that_contradicts_itself_is_refused": TREES,
    "test_masks_answer_for_the_first_place_of_a_parameter": TREES,
    "test_the_answers_of_M_for_a_container_may_be_asked_for_before_the_call": TREES,
    "test_objects_that_are_not_models": "jaxtyping words it otherwise",
    "test_a_rate_that_is_read_from_a_parameter_is_warned_of": "calls lie between the warning and its cause",
    "test_gradients_of_bare_arrays_are_warned_of_as_they_do_not_learn": "calls lie between the warning and its cause",
    "test_integers_of_numpy_are_numbers_of_steps": "they are taken for ints, which annotations do not say",
    "test_inference_needs_states": "jaxtyping words it otherwise that an argument is positional-only",
    "test_masks_that_do_not_fit": "a mask is refused when the function is called, not where it is given",
    "test_nodes_that_the_error_has_not_reached_are_warned_of": "calls lie between the warning and its cause",
    "test_of_several_output_rules_the_first_is_used_with_a_warning": "calls lie between the warning and its cause",
    "test_the_energy_function_is_looked_at_only_when_asked": "the node takes what is no function, and does not look",
    "test_wrong_arguments_change_nothing": "step refuses them at the block, not where it is called",
    "test_what_is_no_filter_is_refused_before_the_block": "step refuses it at the block, not where it is called",
}

# Tests that call nothing of the package in this process.
ELSEWHERE = ("examples", "test_api.py", "test_architecture.py", "test_readme.py", "test_types.py")
IGNORED = {Path(__file__).parent / name for name in ELSEWHERE}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if collection_path in IGNORED else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if reason := SKIPPED.get(item.name.partition("[")[0]):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_load_initial_conftests() -> None:
    install_import_hook("minipcax", "tests.shapes.checked")

"""The words for what goes wrong when several processes save or load."""

import warnings
from collections.abc import Iterable

import jax


def failed_elsewhere(name: str, processes: Iterable[int]) -> RuntimeError:
    """The error for a call that has failed in other processes."""
    numbers = ", ".join(map(str, processes))
    return RuntimeError(f"{name} failed in process {numbers}, whose message says why, and so it has no effect in any")


def differs(name: str, what: str, processes: Iterable[int]) -> ValueError:
    """The error for a value that is not the same in all processes."""
    numbers = ", ".join(map(str, processes))
    advice = {
        "path": "one file is written, by process 0, for all processes",
        "file": "its folder must be one that all processes see",
        "parameters": "make the same model in every process",
    }.get(what, "seed with the same number in every process, and draw the same there; or place it over all processes")
    return ValueError(
        f"{name} expected the same {what} in every process, found another in process {numbers} than in process 0: "
        f"{advice}"
    )


def remind(name: str) -> None:
    """Warns that a process has been waiting for others for long."""
    warnings.warn(
        f"{name} in process {jax.process_index()} is waiting for the other processes: every process must call it, not "
        "only one (`if jax.process_index() == 0`)",
        stacklevel=2,
    )

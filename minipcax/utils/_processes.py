"""Saving and loading in several processes: every one of them calls it, and either all succeed or all raise.

A process that raises alone would leave the others waiting, so each tells the others how it fared before any goes on.
See https://docs.jax.dev/en/latest/multi_process.html.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import minipcax.utils._process_refusals as refusals

SECONDS = 30.0  # until a process that waits for the others says so


@contextmanager
def together(name: str) -> Iterator[None]:
    """Waits for the other processes at the end of the block, and raises if it has failed in one of them."""
    try:
        yield
    except Exception:
        _exchange(name, [True])
        raise
    failed = np.flatnonzero(_exchange(name, [False])[:, 0])
    if len(failed):
        raise refusals.failed_elsewhere(name, failed)


def check_same(name: str, values: Mapping[str, object]) -> None:
    """Raises unless the values, which are arrays or strings, are the same in all processes."""
    if jax.process_count() == 1:
        return
    every = _exchange(name, [zlib.crc32(np.asarray(value).tobytes()) for value in values.values()])
    for what, digests in zip(values, every.T, strict=True):
        others = np.flatnonzero(digests != digests[0])
        if len(others):
            raise refusals.differs(name, what, others)


def _exchange(name: str, numbers: Sequence[int]) -> Any:  # an array of shape (processes, numbers)
    """The numbers of every process."""
    if jax.process_count() == 1:
        return np.array([numbers])
    reminder = Timer(SECONDS, refusals.remind, [name])
    reminder.daemon = True
    reminder.start()
    try:
        return multihost_utils.process_allgather(np.asarray(numbers, np.uint32))
    finally:
        reminder.cancel()

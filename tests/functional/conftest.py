"""Tests of this folder search the heap for tracers that were left behind."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _small_heap() -> Iterator[None]:
    """Hides what was there before the test from the garbage collector, whose time grows with what it looks at."""
    gc.collect(1)
    gc.freeze()
    yield
    gc.unfreeze()

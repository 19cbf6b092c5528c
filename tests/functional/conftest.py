"""Tests of this folder search the heap for tracers that were left behind."""

import pytest


@pytest.fixture(autouse=True)
def _small(small_heap: None) -> None: ...

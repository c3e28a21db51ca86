"""What tests of several features share."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from tests.harness import Clock


@pytest.fixture
def limit_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which every application that is started from now on counts its limits."""
    clock = Clock(1_000_000)
    monkeypatch.setattr("app.main.time", SimpleNamespace(time=time.time, monotonic=clock))
    return clock


@pytest.fixture
def free() -> Iterator[threading.Event]:
    """What blocked work waits for. Set at the end, whatever happens, so that no thread is left behind."""
    free = threading.Event()
    yield free
    free.set()

"""What tests of several features share."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.features.usage.ledger.writer import Connect
from tests.harness import Clock
from tests.pool_calls import Held, Hold, PoolCalls, watch_pools


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


@pytest.fixture
def pool_calls(monkeypatch: pytest.MonkeyPatch) -> PoolCalls:
    """The calls of every pool from now on."""
    return watch_pools(monkeypatch)


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch, free: threading.Event) -> Hold:
    """Holds a function under one of its names: `held = hold("app.providers.stub.draw_png", draw_png)`."""

    def replace(name: str, function: Callable[..., Any]) -> Held:
        held = Held(function, free)
        monkeypatch.setattr(name, held)
        return held

    return replace


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that fails is asked again at once, or as soon as it told."""
    monkeypatch.setattr("app.providers.upstream._PAUSE_SECONDS_MAX", 0.001)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Connect:
    """Connections, in every application that is started from now on, that wait for a lock while a test holds it."""

    async def connect(url: str = database_url) -> asyncpg.Connection:
        connection = await connect_for_writing(url)
        await connection.execute("set lock_timeout = '30s'; set statement_timeout = '30s'")
        return connection

    monkeypatch.setattr("app.main.connect_for_writing", connect)
    monkeypatch.setattr("app.features.usage.ledger.writer._ANSWER_SECONDS", 30)
    return connect

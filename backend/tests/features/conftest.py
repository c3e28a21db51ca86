"""What tests of several features share."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from app.core.db import Connect, connect_for_writing
from tests.harness import Clock
from tests.pool_calls import Held, Hold, PoolCalls, watch_pools


@pytest.fixture
def limit_clock(externals: dict[str, Any]) -> Clock:
    """The time by which every application that is started from now on counts its limits."""
    clock = Clock(1_000_000)
    externals["limit_clock"] = clock
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
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails is tried again at once."""
    monkeypatch.setattr("app.storage.health.PROBE_SECONDS", 0.02)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch, externals: dict[str, Any], database_url: str) -> Connect:
    """Connections, in every application that is started from now on, that wait for a lock while a test holds it."""

    async def connect() -> asyncpg.Connection:
        connection = await connect_for_writing(database_url)
        await connection.execute("set lock_timeout = '30s'; set statement_timeout = '30s'")
        return connection

    externals["connect"] = connect
    monkeypatch.setattr("app.generations.ledger.connection._ANSWER_SECONDS", 30)
    return connect

"""Work in an application's threads, as a test sees it: handed over, begun, dropped."""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from app.core.fair_queue import FairPool
from app.core.pool import BoundedPool, Result
from tests.harness import PATIENCE_SECONDS, looks

THREADS = max(1, (os.cpu_count() or 1) - 1)
"""Of each kind, in an application of one process."""


@dataclass
class PoolCalls:
    """How many functions were handed to any pool, and how many were given up by their callers meanwhile."""

    handed: int = 0
    given_up: int = 0

    async def until(self, *, handed: int = 0, given_up: int = 0) -> None:
        """Returns once there were so many."""
        for _ in looks():
            if self.handed >= handed and self.given_up >= given_up:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.handed} handed over, {self.given_up} given up")


def watch_pools(monkeypatch: pytest.MonkeyPatch) -> PoolCalls:
    """The calls of every pool from now on."""
    calls = PoolCalls()
    for kind in (BoundedPool, FairPool):
        _watch(monkeypatch, kind, calls)
    return calls


def _watch(monkeypatch: pytest.MonkeyPatch, kind: type[BoundedPool], calls: PoolCalls) -> None:
    run = kind.run

    async def counted(pool: BoundedPool, function: Callable[[], Result], **named: str) -> Result:
        if type(pool) is not kind:  # a FairPool hands over what it has counted
            return await run(pool, function)
        calls.handed += 1
        try:
            return await run(pool, function, **named)
        except asyncio.CancelledError:
            calls.given_up += 1
            raise

    monkeypatch.setattr(kind, "run", counted)


class Held:
    """A function that counts how often it has begun, and ends only once it is let go."""

    def __init__(self, function: Callable[..., Any], free: threading.Event) -> None:
        self.begun = 0
        self._function, self._free = function, free
        self._lock = threading.Lock()

    def let_go(self) -> None:
        """Lets all its calls end, those to come too."""
        self._free.set()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with self._lock:
            self.begun += 1
        assert self._free.wait(PATIENCE_SECONDS)
        return self._function(*arguments, **named)

    async def until_begun(self, times: int) -> None:
        """Returns once it has begun that often."""
        for _ in looks():
            if self.begun >= times:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it has begun {self.begun} times")


Hold = Callable[[str, Callable[..., Any]], Held]
"""Replaces what has this name by a function that is held."""

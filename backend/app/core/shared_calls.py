"""Calls that are made once for all who ask for the same at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from app.core.errors import Unavailable

Result = TypeVar("Result")


class SharedCalls(Generic[Result]):
    """Calls by name, of which one runs at a time."""

    def __init__(self) -> None:
        self._running: dict[str, _Running[Result]] = {}

    async def join(self, name: str, call: Callable[[], Coroutine[Any, Any, Result]], *, group: str = "") -> Result:
        """The result of the call with this name that is running, or else of `call`. Raises what the call raises.

        A call is cancelled when all who wait for it were. If it was refused as Unavailable to another group, which may
        have used up its share of a queue, this group makes its own.
        """
        while True:
            running = self._running.get(name) or self._start(name, call, group)
            running.waiting += 1
            try:
                return await asyncio.shield(running.task)
            except Unavailable:
                if running.group == group:
                    raise
                self._forget(name, running)  # its own callback, which does so, may be still to come
            finally:
                running.waiting -= 1
                if running.waiting == 0:
                    running.task.cancel()
                    self._forget(name, running)

    def _start(self, name: str, call: Callable[[], Coroutine[Any, Any, Result]], group: str) -> "_Running[Result]":
        running = self._running[name] = _Running(asyncio.create_task(call()), group)
        running.task.add_done_callback(lambda _: self._forget(name, running))
        return running

    def _forget(self, name: str, running: "_Running[Result]") -> None:
        if self._running.get(name) is running:
            del self._running[name]


class _Running(Generic[Result]):
    def __init__(self, task: asyncio.Task[Result], group: str) -> None:
        self.task = task
        self.group = group
        self.waiting = 0

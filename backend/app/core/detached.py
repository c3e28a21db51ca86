"""Work that is finished although nobody waits for it any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class DetachedTasks:
    """Tasks that outlive the requests that started them. `drain` waits for all of them, before the program ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """A task of this work, which nothing but the work itself ends. An error that nobody fetches is dropped: the
        work has to log what an operator must know.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def drain(self) -> None:
        """Returns once no task is running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # fetched, so that asyncio does not report it

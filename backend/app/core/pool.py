"""Threads for work that would block the event loop: few of them, of low priority, with a bounded queue."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Self, TypeVar

from app.core.errors import Unavailable

LOWEST_PRIORITY = 10
"""The niceness of threads whose work can wait. The event loop has 0."""

Result = TypeVar("Result")

CancelScope = Callable[[], AbstractAsyncContextManager[None]]
"""Entered around work whose result may become useless: it may cancel the work. `nullcontext` never does."""


class BoundedPool:
    """Runs functions in threads. What finds the queue full is refused at once and never runs.

    The threads give way to the event loop, so a storm of hashes or drawings slows itself and nothing else.
    """

    def __init__(self, *, threads: int, queue_max: int, name: str, niceness: int = LOWEST_PRIORITY) -> None:
        """`niceness` is that of the threads, on Linux: 0 for the event loop's own priority, more to give way to it."""
        self._free_slots = self._slots = threads + queue_max
        self._threads = threads
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=_give_way, initargs=(niceness,)
        )

    @classmethod
    def for_cores_left(cls, *, processes: int, queue_max: int, name: str, niceness: int = LOWEST_PRIORITY) -> Self:
        """A pool whose threads, over all the processes of this machine, leave one core to the event loops."""
        threads = max(1, ((os.cpu_count() or 1) - 1) // processes)
        return cls(threads=threads, queue_max=queue_max, name=name, niceness=niceness)

    async def run(self, function: Callable[[], Result]) -> Result:
        """The function's result. Raises Unavailable when the threads are busy and the queue is full.

        When the caller is cancelled, a function that has not begun never runs, and its place is free at once. One that
        has begun runs to its end and keeps its place until then.
        """
        if self._free_slots == 0:
            raise Unavailable(retry_after_seconds=1)
        self._free_slots -= 1
        future = self._executor.submit(function)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.done():
                self._leave()
            else:  # the caller was cancelled, and the function goes on
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
            del future  # its error has this frame: they would hold each other, and with them what the caller has

    @property
    def jobs(self) -> int:
        """Calls of `run` that the threads are busy with."""
        return min(self._slots - self._free_slots, self._threads)

    @property
    def jobs_waiting(self) -> int:
        """Calls of `run` that wait for a thread."""
        return self._slots - self._free_slots - self.jobs

    async def go_on(self, function: Callable[[], Result]) -> Result:
        """The same for a further step of work that was admitted: it is not refused, and takes no place."""
        return await asyncio.wrap_future(self._executor.submit(function))

    def close(self) -> None:
        """Lets running work end, and drops what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _leave(self) -> None:
        self._free_slots += 1


def _give_way(niceness: int) -> None:
    if sys.platform == "linux":  # elsewhere a priority belongs to the process, not to the thread
        thread = threading.get_native_id()
        # A process that is nicer already stays so: only root may take that back, and anybody else's threads would fail.
        os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))

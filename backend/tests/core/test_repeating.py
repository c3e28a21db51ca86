"""What a process does beside its requests: it goes on whatever fails, and ends when the process does."""

import asyncio
import json
from io import StringIO
from typing import Any

import pytest
from app.assembly import Externals, open_services
from app.core.database_connection import connect
from app.core.metrics import Metrics
from app.core.repeating import repeat
from app.core.settings import Settings
from app.payments import StripeUnavailable
from sqlalchemy.exc import TimeoutError as NoConnectionFree

_SECONDS_MAX = 20
_BESIDE = ("repeat()", "Bell.run()")
"""Of tasks, the coroutines that are run beside the requests."""
_THAT_CONNECT = 7
"""Three tasks of the sweeper, three of billing, and the bell."""


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (NoConnectionFree(), ("task_delayed", "warning")),
        (ConnectionRefusedError(), ("task_delayed", "warning")),
        (StripeUnavailable(), ("task_delayed", "warning")),
        (ZeroDivisionError(), ("task_failed", "error")),
    ],
    ids=repr,
)
async def test_only_a_defect_of_a_task_is_an_error_and_both_are_done_again(
    log: StringIO, failure: Exception, expected: tuple[str, str]
) -> None:
    times = asyncio.Semaphore(0)

    async def fail() -> None:
        times.release()
        raise failure

    running = asyncio.create_task(repeat(fail, seconds=0, task="show_charged"))
    for _ in range(2):
        await times.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    first = json.loads(next(line for line in log.getvalue().splitlines() if '"task_' in line))
    assert (first["event"], first["level"], first["task"]) == (*expected, "show_charged")


class _Losing:
    """Connects for others. For what is done beside the requests it waits without end and, when it is cancelled, raises
    an error of its own, as the driver does where a connection breaks in the same moment.
    """

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.all_wait = asyncio.Event()

    async def connect(self, *arguments: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if not repr(task).partition("coro=<")[2].startswith(_BESIDE) or task in self.tasks:
            return await connect(*arguments)
        self.tasks.append(task)
        if len(self.tasks) == _THAT_CONNECT:
            self.all_wait.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError from None


async def test_a_process_ends_though_its_connections_break_in_the_moment_in_which_it_stops(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing = _Losing()
    monkeypatch.setattr("app.core.db.connect", losing.connect)

    async def run() -> None:
        async with open_services(settings, Externals(), metrics=Metrics()):
            await losing.all_wait.wait()

    running = asyncio.create_task(run())
    await asyncio.wait({running}, timeout=_SECONDS_MAX)
    still_running = [task for task in losing.tasks if not task.done()]
    for task in still_running:
        task.cancel()
    await running
    assert still_running == []

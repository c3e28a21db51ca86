"""What is logged of a task that could not be done now, and of one that has a defect."""

import asyncio
import json
from io import StringIO

import pytest
from app.billing.tasks import Task, run
from app.payments import StripeUnavailable
from sqlalchemy.exc import TimeoutError as NoConnectionFree


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (NoConnectionFree(), ("billing_task_delayed", "warning")),
        (ConnectionRefusedError(), ("billing_task_delayed", "warning")),
        (StripeUnavailable(), ("billing_task_delayed", "warning")),
        (ZeroDivisionError(), ("billing_task_failed", "error")),
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

    running = asyncio.create_task(run([Task(name="show_charged", work=fail, seconds=0)]))
    for _ in range(2):
        await times.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    first = json.loads(next(line for line in log.getvalue().splitlines() if "billing_task" in line))
    assert (first["event"], first["level"], first["task"]) == (*expected, "show_charged")

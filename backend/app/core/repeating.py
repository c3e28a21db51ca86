"""Work that a process does again and again beside its requests."""

import asyncio
from collections.abc import Awaitable, Callable

from app.core.cancellation import raise_if_cancelled
from app.core.errors import Unavailable, as_api_error
from app.core.logs import logger


async def repeat(work: Callable[[], Awaitable[object]], *, seconds: float, task: str) -> None:
    """Does the work, and again so many seconds after it was done, until this is cancelled.

    What it raises ends nothing, and is logged with the name of the `task`: as a warning where the database or a service
    could not be asked, and else, with its stack, as an error.
    """
    while True:
        try:
            await work()
        except Exception as error:
            if isinstance(as_api_error(error), Unavailable):
                logger.warning("task_delayed", task=task, reason=type(error).__name__)
            else:
                logger.exception("task_failed", task=task)
        raise_if_cancelled()
        await asyncio.sleep(seconds)

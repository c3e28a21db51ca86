"""The cancellation of a task, where a driver may lose it."""

import asyncio


def raise_if_cancelled() -> None:
    """Raises CancelledError if the current task is cancelled. For code that goes on after an exception.

    Where a connection breaks in the moment in which its caller is cancelled, a driver raises an error of its own in the
    place of CancelledError, which nobody raises again: a task that went on then would never end. Nor does a
    CancelledError that was caught say that the task is cancelled: a driver may cancel a future of its own, and with it
    whatever waits for that.
    """
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError

"""The use of the database's pools, watched in every test: which task holds a connection, and what it waits for."""

import asyncio
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import greenlet
import pytest
from app.web.overload import OverloadGuard
from sqlalchemy import event
from sqlalchemy.pool import QueuePool


@dataclass
class PoolUse:
    """What no task may do while it holds a connection: take a second one, since tasks that do so wait for one another
    once they hold all that the pool has; and wait for a body, since its client decides for how long.
    """

    faults: list[str] = field(default_factory=list)
    """Each with the functions that it happened in."""
    awaited_bodies: int = 0
    _holders: "dict[object, asyncio.Task[Any] | None]" = field(default_factory=dict)

    def take_faults(self) -> list[str]:
        """The faults since the last call."""
        taken, self.faults = self.faults, []
        return taken

    def note_checkout(self, _connection: object, record: object, _proxy: object) -> None:
        self._holders.pop(record, None)  # it was dead, and is checked out again
        self._note_if_one_is_held("a task that holds a connection takes a second one")
        self._holders[record] = asyncio.current_task()

    def note_checkin(self, _connection: object, record: object) -> None:
        self._holders.pop(record, None)

    def note_awaited_body(self) -> None:
        self.awaited_bodies += 1
        self._note_if_one_is_held("a task that holds a connection waits for a body")

    def _note_if_one_is_held(self, fault: str) -> None:
        if asyncio.current_task() in self._holders.values():
            # SQLAlchemy runs in a greenlet of its own: who called it is in the stack of the greenlet's parent.
            parent = greenlet.getcurrent().parent
            frames = traceback.extract_stack(parent.gr_frame if parent else None)
            where = [f"{each.filename}:{each.lineno} {each.name}" for each in frames if "/app/" in each.filename]
            self.faults.append("\n  ".join([fault, *where]))


@contextmanager
def watched_pools() -> Iterator[PoolUse]:
    """The use of all pools within the block."""
    use, without_slot = PoolUse(), OverloadGuard.without_slot

    def noted_without_slot(guard: OverloadGuard, *arguments: Any, **named: Any) -> Any:
        use.note_awaited_body()
        return without_slot(guard, *arguments, **named)

    listeners = ("checkout", use.note_checkout), ("checkin", use.note_checkin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OverloadGuard, "without_slot", noted_without_slot)
        for name, listener in listeners:
            event.listen(QueuePool, name, listener)
        yield use
        for name, listener in listeners:
            event.remove(QueuePool, name, listener)

"""The use of the database's pools, watched in every test: which task holds a connection."""

import asyncio
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import greenlet
from sqlalchemy import event
from sqlalchemy.pool import QueuePool


@dataclass
class PoolUse:
    """What no task may do: take a second connection while it holds one. As many of these at a time as the pool has
    connections wait for one another.
    """

    faults: list[str] = field(default_factory=list)
    """Each with the functions that it happened in."""
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
    use = PoolUse()
    listeners = ("checkout", use.note_checkout), ("checkin", use.note_checkin)
    for name, listener in listeners:
        event.listen(QueuePool, name, listener)
    yield use
    for name, listener in listeners:
        event.remove(QueuePool, name, listener)

"""What stays in memory without the garbage collector: it frees what hold each other, but only now and then."""

import asyncio
import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import pytest
from tests.harness import looks


class Seen:
    """The objects of a class that a method of it was called on, for as long as they are in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.calls = 0
        self.in_memory: WeakSet[Any] = WeakSet()
        original = getattr(owner, method)

        def seen(each: Any, *arguments: Any) -> Any:
            self.calls += 1
            self.in_memory.add(each)
            return original(each, *arguments)

        monkeypatch.setattr(owner, method, seen)

    async def assert_left(self, *, kept: Collection[Any] = ()) -> None:
        """Fails unless all but `kept` leave memory soon."""
        for _ in looks():
            if set(self.in_memory) <= set(kept):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.in_memory) - len(kept)} of {self.calls} are still in memory")


@contextmanager
def without_collector() -> Iterator[None]:
    """Within the block only what nothing refers to any more is freed."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

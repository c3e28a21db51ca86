"""Images that are written together: one commit of the file system's journal puts many of them on the disk."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

IMAGES_MAX, _BYTES_MAX = 32, 1024 * 1024


class NewImage(NamedTuple):
    name: str
    content: bytes


Outcome = OSError | None
"""Why an image is not kept; None where it is."""


class GatheredPuts:
    """`write` takes some images and returns the outcome of each, in that order.

    An image is written at once where none is being written. Those that come meanwhile wait until it is done, and are
    the next batch. Where they fill one before that, 32 images or 1 MiB, they are written beside it: at most `at_a_time`
    batches are under way. So a large image waits for no other while fewer than that are being written.
    """

    def __init__(self, write: Callable[[Sequence[NewImage]], Awaitable[Sequence[Outcome]]], *, at_a_time: int) -> None:
        self._write = write
        self._at_a_time = at_a_time
        self._waiting: OrderedDict[_Put, None] = OrderedDict()
        self._waiting_bytes = 0
        self._batches: set[asyncio.Future[Sequence[Outcome]]] = set()

    async def put(self, image: NewImage) -> None:
        """Returns once the image is written. Raises its outcome, or what `write` raises.

        When the caller is cancelled, an image that waits is never written; its batch goes on for the others.
        """
        put = _Put(image, asyncio.get_running_loop().create_future())
        self._waiting[put] = None
        self._waiting_bytes += len(image.content)
        self._begin_batches()
        try:
            outcome = await put.written
        except asyncio.CancelledError:
            if put in self._waiting:
                del self._waiting[put]
                self._waiting_bytes -= len(image.content)
            raise
        if outcome is not None:
            raise OSError(*outcome.args)  # of its own: a shared one would hold what each caller has

    def _begin_batches(self) -> None:
        while self._waiting and len(self._batches) < self._at_a_time and (not self._batches or self._fill_a_batch):
            puts = self._next_batch()
            batch = asyncio.ensure_future(self._write([put.image for put in puts]))
            self._batches.add(batch)
            batch.add_done_callback(partial(self._end, puts))

    @property
    def _fill_a_batch(self) -> bool:
        return len(self._waiting) >= IMAGES_MAX or self._waiting_bytes >= _BYTES_MAX

    def _next_batch(self) -> "Sequence[_Put]":
        puts, size = list[_Put](), 0
        while self._waiting and len(puts) < IMAGES_MAX and size < _BYTES_MAX:
            put, _ = self._waiting.popitem(last=False)
            puts.append(put)
            size += len(put.image.content)
        self._waiting_bytes -= size
        return puts

    def _end(self, puts: "Sequence[_Put]", batch: "asyncio.Future[Sequence[Outcome]]") -> None:
        self._batches.remove(batch)
        self._begin_batches()
        for place, put in enumerate(puts):
            if put.written.done():  # its caller was cancelled
                continue
            if batch.cancelled():
                put.written.cancel()
            elif (error := batch.exception()) is not None:
                put.written.set_exception(error)
            else:
                put.written.set_result(batch.result()[place])


@dataclass(frozen=True, eq=False)
class _Put:
    image: NewImage
    written: "asyncio.Future[Outcome]"

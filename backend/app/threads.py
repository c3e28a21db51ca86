"""The threads of a process, and what they are for."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple

from app.core.fair_queue import FairPool
from app.core.pool import BoundedPool
from app.core.settings import Settings

_DECODING_NICENESS = 5
"""The niceness of threads that decode what was paid: behind the event loop, before hashes and drawings."""

_TAKING_IN_NICENESS = 7
"""The niceness of threads that check images that go in: what was paid goes first, and what costs nothing last."""

TAKEN_IN_AT_A_TIME = 4
"""Images that go in, which one process reads and checks at a time: so many are in memory as a whole."""

_READING_THREADS = 4
"""Threads that wait for the disk, mostly. Each holds a piece of a body, or an image that is read as a whole."""


class Threads(NamedTuple):
    """Each kind has threads and a queue of its own: none fills another's."""

    hashing: FairPool
    drawing: FairPool
    decoding: BoundedPool
    taking_in: BoundedPool
    reading: BoundedPool


@contextmanager
def open_threads(settings: Settings) -> Iterator[Threads]:
    """To hash passwords, to draw images of the stub and scale images for viewers, to decode what a provider sent, which
    is paid, to check images that go in, and to read and write what clients send.
    """
    # Of the images that a provider draws at a time, all may wait to be decoded; and as the queue is in order, no more
    # than as many that were decoded wait to be converted to another format.
    paid = 2 * settings.provider_calls_max
    reads = 2 * (settings.requests_max + settings.provider_calls_max)  # one piece for each at a time: it never fills
    open_pool = partial(BoundedPool.for_cores_left, processes=settings.workers)
    open_fair_pool = partial(FairPool.for_cores_left, processes=settings.workers)
    with (
        closing(open_fair_pool(queue_max=settings.hash_queue_max, name="hash-passwords")) as hashing,
        closing(open_fair_pool(queue_max=settings.drawing_queue_max, name="draw-images")) as drawing,
        closing(open_pool(queue_max=paid, name="decode-images", niceness=_DECODING_NICENESS)) as decoding,
        closing(
            open_pool(queue_max=TAKEN_IN_AT_A_TIME, name="take-in-images", niceness=_TAKING_IN_NICENESS)
        ) as taking_in,
        closing(BoundedPool(threads=_READING_THREADS, queue_max=reads, name="read-bodies", niceness=0)) as reading,
    ):
        yield Threads(hashing, drawing, decoding, taking_in, reading)

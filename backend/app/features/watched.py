"""A generation in a task of its own, for a response of events that only watches it.

A client that hangs up ends the response and nothing else: the generation keeps its slots until it has ended, and
counts.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.core.byte_budget import ByteShare
from app.core.errors import InternalError, as_api_error
from app.core.logs import logger
from app.features.admission import Admission
from app.features.dependencies import services_of
from app.features.image_answers import MODEL_HEADER, opened_images
from app.generations.collaborators import Generations
from app.generations.service import Watch
from app.generations.spec import Delivered, GenerationSpec
from app.storage import Stored
from app.web.headers import add_response_headers
from app.web.state import request_state

KEEP_ALIVE_SECONDS = 15
"""As often as a silent stream gets a comment, so that no proxy takes it for dead."""

KEEP_ALIVE = b": keep-alive\n\n"

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"X-Accel-Buffering": "no"}  # for nginx, which would keep events back
"""Of each response of events."""


class Sketch(NamedTuple):
    """An image that is not finished: its place among the sketches, from 0, and its bytes in whatever format."""

    place: int
    content: bytes


@dataclass
class Watched:
    """The generation of one request. Of its sketches only the latest is kept for a client that reads slowly."""

    _generations: Generations
    _generating: asyncio.Task[Delivered]
    _sketches: "_Sketches"

    @classmethod
    async def start(
        cls, request: Request, admission: Admission, spec: GenerationSpec, *, partials: int, route: str
    ) -> Self:
        """Returns once there is something to send: a sketch, the end, or nothing for 15 seconds. The admission's slots
        are released when the generation has ended.

        Raises what `Admission.generate` raises until then.
        """
        services, sketches = services_of(request), _Sketches()
        give_back = request_state(request.scope)["overload_guard"].hand_over(request_state(request.scope))
        admission.keep_slots()

        async def generate() -> Delivered:
            try:
                watch = Watch(partials if spec.count == 1 else 0, sketches.put)
                with _as_api_errors():
                    return await admission.generate(spec, route=route, watch=watch)
            finally:
                give_back()
                admission.release()

        watched = cls(services.generations, services.detached.start(generate()), sketches)
        await watched._wait()
        if watched._generating.done() and sketches.latest is None:
            watched._generating.result()
        return watched

    @property
    def model(self) -> str | None:
        """The model that drew; None while the generation goes on, or where it failed."""
        task = self._generating
        return task.result().model if task.done() and task.exception() is None else None

    async def sketches(self) -> AsyncIterator[Sketch | None]:
        """Sketches, as they come, until the generation has ended; None whenever there was none for 15 seconds."""
        while self._sketches.latest is not None or not self._generating.done():
            yield self._sketches.take()
            await self._wait()

    async def images(self, memory: ByteShare) -> tuple[Delivered, deque[Stored]]:
        """What was delivered, and the images, open, once `sketches` has ended. Raises any error as an ApiError. What
        was paid is read from the store as fast as the client reads.
        """
        delivered = self._generating.result()
        contents, delivered = list(delivered.contents), delivered._replace(contents=())
        del self._generating  # its result has the images too
        with _as_api_errors():
            return delivered, await opened_images(self._generations, delivered, contents, memory)

    async def _wait(self) -> None:
        await self._sketches.wait_beside(self._generating)


async def watched_response(
    request: Request,
    admission: Admission,
    spec: GenerationSpec,
    *,
    partials: int,
    route: str,
    events: Callable[[Watched], AsyncIterator[bytes]],
    media_type: str = EVENT_STREAM,
) -> Response:
    """A response of `events`, from the first on: nothing is answered before there is one, or 15 seconds have passed.

    Raises what `Watched.start` raises; a later error is for `events` to write.
    """
    watched = await Watched.start(request, admission, spec, partials=partials, route=route)
    admission.show_left()  # the response may begin while the generation goes on
    plan = None if watched.model else admission.plan(spec)
    add_response_headers(request, {MODEL_HEADER: (watched.model or (plan.model.name if plan else "")).encode()})
    return StreamingResponse(events(watched), media_type=media_type, headers=STREAM_HEADERS)


class _Sketches:
    """The latest sketch of an image that is being drawn, until it was taken."""

    def __init__(self) -> None:
        self.latest: Sketch | None = None
        self._arrived = asyncio.Event()

    def put(self, index: int, content: bytes) -> None:
        self.latest = Sketch(index, content)
        self._arrived.set()

    def take(self) -> Sketch | None:
        latest, self.latest = self.latest, None
        self._arrived.clear()
        return latest

    async def wait_beside(self, task: asyncio.Task[Any]) -> None:
        """Returns once a sketch waits, the task has ended, or 15 seconds have passed."""
        arrival = asyncio.create_task(self._arrived.wait())
        try:
            await asyncio.wait({task, arrival}, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()


@contextmanager
def _as_api_errors() -> Iterator[None]:
    """Turns any error into one that has a body. Logs those of 500 and above: of a stream that has begun, the request's
    own line in the log says 200, and nobody may be there any more to be told.
    """
    try:
        yield
    except Exception as raised:
        error = as_api_error(raised)
        if error.status >= InternalError.status:
            paid = error.may_have_been_paid
            logger.error("stream_failed", code=error.code, may_have_been_paid=paid, exc_info=True)
        raise error from raised

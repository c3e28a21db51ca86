"""Clients that hang up before they are answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect


@asynccontextmanager
async def cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancels the block as soon as the request's client hangs up, and then raises ClientDisconnect. The server alone
    lets a handler run to its end for a client that has left.

    The block must be safe to cancel at any point, and have no use for the request's body: what is left of it is
    received here and dropped. A client that has sent its next request already is not noticed.
    """
    try:
        async with asyncio.timeout(None) as block:
            watching = asyncio.create_task(_end_on_disconnect(request, block))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
    except TimeoutError:
        if block.expired():
            raise ClientDisconnect from None
        raise


async def _end_on_disconnect(request: Request, block: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    block.reschedule(0)  # long ago, by the loop's clock: the block is cancelled now

"""Listening sockets of this process, which lose no connection when they close."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

_LAST_TURNS = 5
"""Of the event loop, in which asyncio makes a connection of what it has accepted."""


async def stop_accepting(*servers: asyncio.Server) -> None:
    """Has the event loop accept nothing more, and make connections of what it has accepted. asyncio leaves a socket
    open, for the garbage collector to warn of, that it has accepted in the turn before its server closes.
    """
    for each in (listener for server in servers for listener in server.sockets):
        asyncio.get_running_loop().remove_reader(each.fileno())
    for _ in range(_LAST_TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(
    converse: Converse,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: SSLContext | None = None,
    backlog: int = 100,
    line_bytes_max: int = 64 * 1024,
) -> AsyncIterator[int]:
    """The port, a free one by default, of a server that treats each connection so. A connection ends with its
    conversation, or is reset where the context ends before. A peer that goes away ends a conversation; of any other
    error in one, the context ends with the first.
    """
    conversations, mistakes = set[asyncio.Task[None]](), list[BaseException]()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(converse(reader, writer))
        conversations.add(conversation)
        conversation.add_done_callback(lambda _: end(conversation, writer))

    def end(conversation: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        conversations.discard(conversation)
        if conversation.cancelled():  # perhaps before its first line
            writer.transport.abort()
            return
        writer.close()
        error = conversation.exception()
        if error is not None and not isinstance(error, OSError | asyncio.IncompleteReadError):
            mistakes.append(error)

    server = await asyncio.start_server(begin, host, port, ssl=tls, backlog=backlog, limit=line_bytes_max)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await stop_accepting(server)
        server.close()
        while conversations:
            for each in conversations:
                each.cancel()
            await asyncio.wait(conversations)
    if mistakes:
        raise mistakes[0]

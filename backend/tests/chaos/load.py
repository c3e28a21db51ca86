"""Callers who write down what became of every call."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

from tests.chaos.workers import Workers

Outcome = Literal["ok", "accepted", "fail", "unknown"]

_CALL_SECONDS = 20  # far beyond every deadline of the server: whoever meets it has met a hang
_SPREAD_SECONDS = 30
_CALLS_OF_LINE = 50


class Key(Protocol):
    """An API key as its owner got it."""

    @property
    def id(self) -> str: ...

    @property
    def raw(self) -> str: ...


class Order(NamedTuple):
    """What a call asks for: images of a model, by default one of the default model."""

    model: str | None = None
    images: int = 1
    hangs_up_after: float | None = None
    """It asks for a stream, and hangs up after so many seconds unless it has the whole answer."""
    made_from: Sequence[str] = ()
    """The images that go in."""
    job_class: str | None = None
    """It asks for a job of this class, and does not wait for the images."""


_DEFAULT = Order()


@dataclass(frozen=True, slots=True)
class Call:
    """What its caller knows: ok (a whole 200, with its ids), accepted (a job, with its ids), fail (a definite refusal)
    or unknown.

    `code` is that of the refusal, or how the answer went missing: "timeout", "reset" before its first byte, "cut"
    behind it, or "hung up" by the caller. The prompt is the call's name: a call and its retries have one, and nobody
    else has it. `sent` and `received` enclose whatever the server did, on the clock that all processes of a machine
    share.
    """

    key_id: str
    prompt: str
    outcome: Outcome
    ids: Sequence[str] = ()
    status: int = 0
    code: str = ""
    replayed: bool = False
    created_at: str = ""
    retry_after: int = 0
    sent: float = 0
    received: float = 0
    images: int = 1
    """How many it asked for."""

    @property
    def id(self) -> str | None:
        """The first of its ids."""
        return self.ids[0] if self.ids else None


class Line:
    """One HTTP connection, opened when it is needed and kept. Every call goes to the journal."""

    def __init__(self, port: int, journal: list[Call]) -> None:
        self._server = port
        self._journal = journal
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._begun = False

    async def connect(self) -> int:
        """The port that it calls from."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._server)
        port: int = self._streams[1].get_extra_info("sockname")[1]
        return port

    async def ask(
        self,
        key: Key,
        prompt: str,
        *,
        order: Order = _DEFAULT,
        idempotency_key: str | None = None,
        body_after: asyncio.Event | None = None,
    ) -> Call:
        """Asks for images. The body of the request may be made to wait for something."""
        sent = time.monotonic()
        call = await self._call(key, prompt, _request(key, prompt, order, idempotency_key), order, body_after)
        call = replace(call, sent=sent, received=time.monotonic(), images=order.images)
        self._journal.append(call)
        return call

    async def _call(
        self, key: Key, prompt: str, request: tuple[bytes, bytes], order: Order, body_after: asyncio.Event | None
    ) -> Call:
        self._begun = False
        try:
            async with asyncio.timeout(order.hangs_up_after or _CALL_SECONDS):
                await self.connect()
                async with self._sending(*request, body_after) as reader:
                    if order.hangs_up_after is not None:
                        await reader.read()  # to its end, which a server that keeps the connection does not reach
                    return _told(key, prompt, *await self._answer(reader))
        except asyncio.CancelledError:
            self.close()  # the answer that is still to come is not the next call's
            raise
        except ConnectionRefusedError:
            return Call(key.id, prompt, "fail", code="refused")  # nobody was there to hear it
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            timeout = "timeout" if order.hangs_up_after is None else "hung up"
            lost = "cut" if self._begun else "reset"
            return Call(key.id, prompt, "unknown", code=timeout if isinstance(error, TimeoutError) else lost)

    @asynccontextmanager
    async def _sending(
        self, head: bytes, body: bytes, after: asyncio.Event | None
    ) -> AsyncIterator[asyncio.StreamReader]:
        assert self._streams is not None
        reader, writer = self._streams
        if after is None:
            writer.write(head + body)
            await writer.drain()
            yield reader
            return
        writer.write(head)
        sender = asyncio.create_task(_write_after(after, writer, body))
        try:
            yield reader
        finally:
            if sender.cancel():
                self.close()  # it still owes a body

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
        first = await reader.readexactly(1)
        self._begun = True
        head = first + await reader.readuntil(b"\r\n\r\n")
        fields = head.lower()
        length = int(_field(fields, b"content-length"))
        body = await reader.readexactly(length)
        if b"connection: close" in fields:
            self.close()
        return int(head.split(b" ", 2)[1]), fields, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def _write_after(event: asyncio.Event, writer: asyncio.StreamWriter, data: bytes) -> None:
    await event.wait()
    writer.write(data)


def _request(key: Key, prompt: str, order: Order, idempotency_key: str | None) -> tuple[bytes, bytes]:
    """Head and body: of the native route, or of OpenAI's where it needs that one."""
    is_native = order.images == 1 and order.hangs_up_after is None
    path = "/v1/generate" if is_native else "/v1/images/generations"
    more = {} if is_native else {"n": order.images, "stream": order.hangs_up_after is not None}
    model = {} if order.model is None else {"model": order.model}
    images = {"images": order.made_from} if order.made_from else {}
    job = {"async": True, "class": order.job_class} if order.job_class else {}
    body = json.dumps({"prompt": prompt, **model, **images, **more, **job}).encode()
    extra = f"Idempotency-Key: {idempotency_key}\r\n" if idempotency_key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: pictures.test\r\nContent-Type: application/json\r\n{extra}"
        f"Authorization: Bearer {key.raw}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


def _told(key: Key, prompt: str, status: int, fields: bytes, body: bytes) -> Call:
    answer: dict[str, Any] = json.loads(body)
    if status == 200:
        replayed = b"idempotent-replayed: true" in fields
        ids = [_id_in(each["url"]) for each in answer["data"]] if "data" in answer else [answer["id"]]
        return Call(key.id, prompt, "ok", ids, status, "", replayed, answer.get("created_at", ""))
    if status == 202:
        return Call(key.id, prompt, "accepted", [each["id"] for each in answer["outputs"]], status)
    code = answer["code"] if "code" in answer else answer["error"]["code"]
    outcome: Outcome = "unknown" if code == "outcome_unknown" else "fail"
    retry_after = int(_field(fields, b"retry-after") or 0)
    return Call(key.id, prompt, outcome, (), status, code, retry_after=retry_after)


def _id_in(url: str) -> str:
    return url.rpartition("/")[2].partition(".")[0]


def _field(fields: bytes, name: bytes) -> bytes:
    return fields.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0]


@asynccontextmanager
async def lines_to_every_worker(fleet: Workers, journal: list[Call], *, each: int) -> AsyncIterator[list[list[Line]]]:
    """For each of as many workers as there should be, this many lines that it has accepted."""
    lines: list[Line] = []
    found: dict[int, list[Line]] = {}
    try:
        async with asyncio.timeout(_SPREAD_SECONDS):
            while len(found) < fleet.size or min(map(len, found.values())) < each:
                lines += [Line(fleet.port, journal) for _ in range(4 * each)]
                ports = [await line.connect() for line in lines]
                await asyncio.sleep(0.05)
                holders = fleet.holders()
                found = {}
                for port, line in zip(ports, lines, strict=True):
                    if port in holders:
                        found.setdefault(holders[port], []).append(line)
        yield [several[:each] for several in found.values()]
    finally:
        for line in lines:
            line.close()


class Traffic:
    """Callers without pause, unless they are given one: every client has a key and several lines.

    Each caller has the orders in turn. Every fourth call, unless it hangs up, has an Idempotency-Key, and is
    sent again until it is ok.
    """

    def __init__(
        self,
        port: int,
        journal: list[Call],
        keys: Sequence[Key],
        *,
        lines: int,
        pause_seconds: float = 0,
        orders: Sequence[Order] = (_DEFAULT,),
    ) -> None:
        self._lines = [(Line(port, journal), key, f"{key.id} {n}") for key in keys for n in range(lines)]
        self._pause_seconds = pause_seconds
        self._orders = orders
        self._flowing = True

    @property
    def width(self) -> int:
        """How many calls can be on their way at a time."""
        return len(self._lines)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """At the end every caller has brought its last call to an end."""
        callers = [asyncio.create_task(self._call_on(*each)) for each in self._lines]
        try:
            yield
        finally:
            self._flowing = False
            await asyncio.gather(*callers)

    async def _call_on(self, line: Line, key: Key, name: str) -> None:
        number = 0
        while self._flowing:
            number += 1
            prompt, order = f"{name} {number}", self._orders[number % len(self._orders)]
            once = f"{name}-{number}".replace(" ", "-") if number % 4 == 0 and order.hangs_up_after is None else None
            call = await line.ask(key, prompt, order=order, idempotency_key=once)
            deadline = time.monotonic() + _CALL_SECONDS  # looked at between calls: each is brought to its end
            while once and call.outcome != "ok" and call.status not in _FINAL and call.code != "refused":
                if time.monotonic() > deadline or (call.code == "idempotency_key_in_use" and not self._flowing):
                    break
                await asyncio.sleep(0.05)
                call = await line.ask(key, prompt, order=order, idempotency_key=once)
            if call.code == "refused":
                return  # the server has gone
            if call.outcome != "ok" or self._pause_seconds:
                await asyncio.sleep(self._pause_seconds or 0.02)
            if number % _CALLS_OF_LINE == 0:
                line.close()  # the next may lead to another worker
        line.close()


_FINAL = {400, 401, 422}
"""Refusals that a retry would only get again."""

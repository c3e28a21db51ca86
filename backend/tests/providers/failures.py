"""The failures of a provider, in either dialect: how many calls each costs, and the error that the client gets."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Literal, get_args

from app.providers import RouteFailure
from PIL import Image
from tests.standins import gemini, openai
from tests.standins.listening import listening
from tests.standins.wire import Reply, json_reply

Dialect = Literal["gemini", "openai"]
Place = Literal["there", "refused", "no TLS", "full"]
"""Where the provider's URL points: its stand-in, a closed port, a port without TLS, or a full accept queue."""


_WHOLE = gemini.image_bytes(1024, 1024)


@dataclass(frozen=True)
class Failure:
    """A provider's reply to every call for an image, the number of calls, and the error that the client gets."""

    name: str
    gemini: Reply
    openai: Reply
    calls: int = 1
    code: str = "provider_failed"
    may_have_been_paid: bool = True
    failure: RouteFailure = "failed"
    place: Place = "there"
    is_silent: bool = False
    """The call ends at its deadline."""
    only: Dialect | None = None
    """The only dialect that has it; by default both have."""

    @property
    def is_final(self) -> bool:
        """Whether the client is told not to repeat its request."""
        is_lasting = self.code == "content_policy_violation" or self.failure == "unusable"
        return self.may_have_been_paid or is_lasting

    def reply(self, dialect: Dialect) -> Reply:
        return self.gemini if dialect == "gemini" else self.openai

    @property
    def row(self) -> str:
        """Its row in docs/operations.md."""
        paid = "yes" if self.may_have_been_paid else "no"
        return f"| {self.name} | {self.calls} | {paid} | `{self.code}` | {self.failure} |"


def alike(name: str, reply: Reply, failure: RouteFailure = "failed") -> Failure:
    """A fault of the connection or of a gateway, which is the same in both dialects."""
    return Failure(name, reply, reply, failure=failure)


def unread(name: str, image: bytes) -> Failure:
    """A reply with these bytes in place of the image."""
    return Failure(name, gemini.drawn(image), openai.in_place(image))


def unreadable(*failures: Failure) -> list[Failure]:
    """The same, as a response that has no image that can be read."""
    return [replace(failure, failure="unreadable") for failure in failures]


def of_json(name: str, body: object) -> Failure:
    """A 200 with this body, which is the same in both dialects."""
    return alike(name, json_reply(body))


def stated(name: str, google: object, endpoint: object) -> Failure:
    """A 200 whose body is one of these errors."""
    return Failure(f"200, {name}", json_reply({"error": google}), json_reply({"error": endpoint, "data": None}))


def compressed(name: str, encoding: str, encode: Callable[[bytes], bytes]) -> Failure:
    """A 200 with a body in this encoding."""
    google, endpoint = encode(gemini.drawn(_WHOLE).content), encode(openai.in_place(_WHOLE).content)
    headers = {"Content-Encoding": encoding}
    return Failure(name, Reply(google, 200, headers), Reply(endpoint, 200, headers))


def refused(failure: Failure, *, only: Dialect, paid: bool) -> Failure:
    return replace(failure, code="content_policy_violation", only=only, may_have_been_paid=paid, failure="refused")


def unpaid(failed: Failure, failure: RouteFailure, *, calls: int = 1) -> Failure:
    code = "provider_unavailable" if failure in {"busy", "unusable"} else "provider_failed"
    return replace(failed, calls=calls, code=code, failure=failure, may_have_been_paid=False)


def unreached(name: str, place: Place) -> Failure:
    return replace(unpaid(alike(name, Reply()), "unreachable", calls=0), place=place)


def silent(failure: Failure) -> Failure:
    return replace(failure, code="provider_timeout", is_silent=True)


def busy(name: str, *, seconds: str | None) -> Failure:
    wait = {"Retry-After": seconds} if seconds else {}
    throttled = gemini.throttled(retry_delay=seconds and f"{seconds}s")
    return Failure(name, throttled, openai.failed(429, "rate_limit_exceeded", headers=wait))


@cache
def enormous() -> bytes:
    """More pixels than are ever decoded, in few bytes."""
    encoded = BytesIO()
    Image.new("1", (12_000, 8_000)).save(encoded, "PNG")
    return encoded.getvalue()


@cache
def animated(kind: Literal["GIF", "PNG", "WEBP"]) -> bytes:
    """Two frames of the requested size."""
    frames = [Image.new("RGB", (1024, 1024), colour) for colour in ("red", "yellow")]
    encoded = BytesIO()
    frames[0].save(encoded, kind, save_all=True, append_images=frames[1:], duration=100)
    return encoded.getvalue()


def _broken_base64() -> Failure:
    part = {"inlineData": {"mimeType": "image/png", "data": "no base64!"}}
    return Failure(
        "base64 is broken", gemini.candidate("STOP", part), json_reply({"data": [{"b64_json": "no base64!"}]})
    )


def _nothing() -> Failure:
    nothing = Failure("200, no image and no reason", gemini.candidate("STOP", {"text": "No"}), json_reply({"data": []}))
    return replace(nothing, calls=2, code="no_image_returned")


_ANSWER = gemini.drawn(_WHOLE).content
_LARGE = gzip.compress(bytes(65 * 1024 * 1024), 1)
_POLICY, _AZURE = {"code": "content_policy_violation"}, {"inner_error": {"code": "ResponsibleAIPolicyViolation"}}
_PER_DAY = gemini.throttled(retry_delay="3s", quota_id="GenerateRequestsPerDayPerProjectPerModel")
_NEVER = Reply(gate=asyncio.Event())

NOT_SENT = [
    unreached("connection refused", "refused"),
    unreached("TLS fails", "no TLS"),
    silent(unreached("no connection until the deadline", "full")),
]
REFUSED = [
    unpaid(busy("429", seconds=None), "busy", calls=3),
    unpaid(busy("429, to wait beyond the deadline", seconds="300"), "busy"),
    unpaid(Failure("503", gemini.failed(503, "UNAVAILABLE"), openai.failed(503, "server_overloaded")), "busy", calls=3),
    unpaid(alike("503 of a gateway", gemini.html(503)), "busy", calls=3),
    unpaid(Failure("quota is spent", _PER_DAY, openai.failed(429, "insufficient_quota")), "unusable"),
    unpaid(Failure("401", gemini.failed(401, "UNAUTHENTICATED"), openai.failed(401, "invalid_api_key")), "unusable"),
    unpaid(alike("402", gemini.html(402)), "unusable"),
    unpaid(Failure("403", gemini.failed(403, "PERMISSION_DENIED"), openai.failed(403, "forbidden")), "unusable"),
    unpaid(Failure("404", gemini.failed(404, "NOT_FOUND"), openai.failed(404, "model_not_found")), "unusable"),
    unpaid(Failure("400", gemini.failed(400, "INVALID"), openai.failed(400, "invalid_value")), "request"),
    unpaid(alike("413", gemini.html(413)), "request"),
    unpaid(alike("422", gemini.html(422)), "request"),
]
SENT = [
    Failure("500", gemini.failed(500, "INTERNAL"), openai.failed(500, "server_error")),
    alike("502 of a gateway", gemini.html(502)),
    Failure("504", gemini.failed(504, "DEADLINE_EXCEEDED"), openai.failed(504, "timeout")),
    alike("504 of a gateway", gemini.html(504)),
    alike("524 of a gateway", gemini.html(524)),
    alike("408 of a gateway", gemini.html(408)),
    alike("499 of a gateway", gemini.html(499)),
    alike("302 to elsewhere", Reply(b"", 302, {"Location": "/elsewhere"})),
    alike("302 to the same place", Reply(b"", 302, {"Location": ""})),
    alike("201 without an image", json_reply({"data": [], "candidates": []}, status=201), "unreadable"),
    alike("202 without an image", Reply(b"{}", 202), "unreadable"),
    alike("204", Reply(b"", 204), "unreadable"),
    alike("connection reset", Reply(is_reset=True)),
    alike("connection closed without an answer", Reply(is_closed=True)),
    alike("connection closed in the middle of the answer", Reply(_ANSWER, cut_after=1000)),
]
UNREAD = unreadable(
    alike("200, HTML", gemini.html()),
    alike("200, empty", Reply()),
    alike("200, JSON that is cut off", Reply(_ANSWER[:-100])),
    alike("200, JSON of another shape", json_reply({"candidates": "none", "data": "none"})),
    of_json("200, JSON in a list of two", [{"data": [], "candidates": []}] * 2),
    compressed("200, gzip that is cut off", "gzip", lambda content: gzip.compress(content)[:-9]),
    compressed("200, gzip that is none", "gzip", lambda content: content[::-1]),
    compressed(
        "200, gzip of more than an answer may have", "gzip", lambda _: gzip.compress(bytes(65 * 1024 * 1024), 1)
    ),
    compressed("200, an encoding that is not known", "br", gzip.compress),
    compressed("200, compressed three times", "gzip, gzip, gzip", gzip.compress),
    alike("200, more than an answer may have", Reply(b" " * 1024 * 1024, is_endless=True)),
    _broken_base64(),
    unread("no image", b"words"),
    unread("half an image", _WHOLE[: len(_WHOLE) // 2]),
    unread("an image of too many pixels", enormous()),
    unread("GIF", animated("GIF")),
    unread("APNG", animated("PNG")),
    unread("animated WebP", animated("WEBP")),
    unread("an image of another shape", gemini.image_bytes(1536, 1024)),
    _nothing(),
)
STATED = [
    unpaid(stated("the error 429", {"code": 429}, {"code": 429}), "busy", calls=3),
    unpaid(stated("the error 503", {"code": 503}, {"code": "503"}), "busy", calls=3),
    unpaid(stated("the error 401", {"status": "UNAUTHENTICATED"}, {"code": "invalid_api_key"}), "unusable"),
    unpaid(stated("the error 404", {"status": "NOT_FOUND"}, {"type": "x", "code": "model_not_found"}), "unusable"),
    unpaid(
        stated("the error 400", {"status": "INVALID_ARGUMENT"}, {"type": "invalid_request_error", "code": None}),
        "request",
    ),
    stated("the error 500", {"code": 500, "status": "INTERNAL"}, {"type": "server_error"}),
    stated("an error of no known name", {}, {"code": "something"}),
    of_json("200, an error in words alone", {"error": "Words of the provider"}),
    refused(stated("`content_policy_violation` (OpenAI)", {}, _POLICY), only="openai", paid=False),
    refused(stated("Azure's refusal (OpenAI)", {}, _AZURE), only="openai", paid=False),
    refused(alike("200, the prompt is refused (Gemini)", gemini.blocked_prompt("SAFETY")), only="gemini", paid=True),
    refused(alike("200, the image is refused (Gemini)", gemini.candidate("image_safety")), only="gemini", paid=True),
]
SILENT = [
    silent(alike("silence until the deadline", _NEVER)),
    silent(alike("silence in the middle of the answer", Reply(_ANSWER[:1000], is_stuck=True))),
]
FAILURES = [*NOT_SENT, *REFUSED, *SENT, *UNREAD, *STATED, *SILENT]
BY_NAME = {failure.name: failure for failure in FAILURES}


def failures_of(dialect: Dialect) -> list[Failure]:
    return [failure for failure in FAILURES if failure.only in {None, dialect}]


CASES = [(dialect, failure) for dialect in get_args(Dialect) for failure in failures_of(dialect)]
"""Every failure in each dialect that has it, for a test with the fixture `remote`."""


@asynccontextmanager
async def provider_url(place: Place) -> AsyncIterator[str | None]:
    """The URL of such a place; None for the stand-in's own."""
    if place == "there":
        yield None
        return
    async with _PLACES[place]() as url:
        yield url


@asynccontextmanager
async def _refused() -> AsyncIterator[str]:
    with socket.socket() as bound:  # bound and not listening: no other process can take the port
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@asynccontextmanager
async def _no_tls() -> AsyncIterator[str]:
    async def speak_plainly(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(speak_plainly) as port:
        yield f"https://127.0.0.1:{port}"


@asynccontextmanager
async def _full() -> AsyncIterator[str]:
    """A full accept queue: further connections wait."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


_PLACES = {"refused": _refused, "no TLS": _no_tls, "full": _full}

"""An S3 server on loopback that speaks the real protocol, checks every signature, and fails on demand.

Path style: PUT, GET (with Range), HEAD and DELETE of objects, HEAD of buckets, ListObjectsV2. What it does not know
is answered 501 NotImplemented, as S3 does. tests/storage/test_standin_s3.py shows with boto3 that it is S3.
"""

import asyncio
import base64
import hashlib
import re
import secrets
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Literal
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from tests.standins.listening import listening
from tests.standins.sigv4 import Request, S3Error, verify

Fault = Literal["internal_error", "slow_down", "not_s3", "reset", "hang", "slow", "cut"]
"""`not_s3`: a 404 of another kind of server. `slow`: responds after a moment. `cut`: sends half of the response's
body and resets. `hang`: never responds."""

_OUTRIGHT = {
    "internal_error": S3Error(500, "InternalError", "We encountered an internal error. Please try again."),
    "slow_down": S3Error(503, "SlowDown", "Please reduce your request rate."),
    "not_s3": S3Error(404, "WordsOfItsOwn", "No such page"),
}
_KEPT_HEADERS = {"content-type", "cache-control", "content-disposition", "content-encoding", "content-language"}
_REASONS = {200: "OK", 204: "No Content", 206: "Partial Content", 403: "Forbidden", 404: "Not Found"}
SLOW_SECONDS = 0.2
CHECKSUMS = {
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
    "content-md5": lambda body: hashlib.md5(body, usedforsecurity=False).digest(),
}


@dataclass(frozen=True)
class Object:
    """The object stored under a key."""

    content: bytes = field(repr=False)
    headers: Mapping[str, str]
    changed_at: float

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


@dataclass(frozen=True)
class Seen:
    """A received request, and its response: the status, 0 where none was sent, and S3's error code."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int
    code: str | None


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    code: str | None = None


class S3Server:
    """The buckets, the credentials that they accept, and the received requests."""

    def __init__(self, *, buckets: tuple[str, ...], region: str) -> None:
        self.url = ""
        self.region = region
        self.key_id, self.secret = f"AK{secrets.token_hex(9).upper()}", secrets.token_hex(32)
        self.buckets: dict[str, dict[str, Object]] = {name: {} for name in buckets}
        self.seen: list[Seen] = []
        self.clock_offset_seconds = 0.0
        self._faults: deque[tuple[Fault, str]] = deque()

    def fail(self, fault: Fault, *, times: int = 1, method: str = "") -> None:
        """The next requests, of this method or of any, get this fault, even with a valid signature."""
        self._faults.extend([(fault, method)] * times)

    def recover(self) -> None:
        self._faults.clear()

    def next_fault(self, method: str) -> Fault | None:
        for entry in self._faults:
            if entry[1] in {"", method}:
                self._faults.remove(entry)
                return entry[0]
        return None

    def answer(self, request: Request, fault: Fault | None) -> _Answer:
        try:
            if fault in _OUTRIGHT:
                raise _OUTRIGHT[fault]
            now = time.time() + self.clock_offset_seconds
            verify(request, {self.key_id: self.secret}, region=self.region, now=now)
            bucket, _, key = unquote(request.path[1:]).partition("/")
            objects = self._objects(bucket)
            return _about_object(request, objects, key) if key else _about_bucket(request, objects)
        except S3Error as error:
            return _Answer(error.status, {"Content-Type": "application/xml"}, _as_xml(error), error.code)

    def _objects(self, bucket: str) -> dict[str, Object]:
        if bucket not in self.buckets:
            raise S3Error(404, "NoSuchBucket", "The specified bucket does not exist", BucketName=bucket)
        return self.buckets[bucket]


def _about_bucket(request: Request, objects: Mapping[str, Object]) -> _Answer:
    if request.method == "HEAD":
        return _Answer(200)
    if request.method == "GET" and request.argument("list-type") == "2" and not request.argument("delimiter"):
        return _listed(request, objects)
    raise S3Error(501, "NotImplemented", "A header or query you provided implies functionality not implemented.")


def _listed(request: Request, objects: Mapping[str, Object]) -> _Answer:
    after = request.argument("continuation-token") or request.argument("start-after")
    most = min(1000, int(request.argument("max-keys", "1000")))
    found = sorted(key for key in objects if key.startswith(request.argument("prefix")) and key > after)
    page, is_more = found[:most], len(found) > most
    rows = "".join(_row(key, objects[key]) for key in page)
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if is_more else ""
    summary = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(is_more).lower()}</IsTruncated>{token}"
    body = f"<ListBucketResult><EncodingType>url</EncodingType>{summary}{rows}</ListBucketResult>"
    return _Answer(200, {"Content-Type": "application/xml"}, body.encode())


def _row(key: str, kept: Object) -> str:
    changed_at = datetime.fromtimestamp(kept.changed_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    about = f"<LastModified>{changed_at}</LastModified><ETag>{escape(kept.etag)}</ETag>"
    return f"<Contents><Key>{escape(quote(key))}</Key>{about}<Size>{len(kept.content)}</Size></Contents>"


def _about_object(request: Request, objects: dict[str, Object], key: str) -> _Answer:
    if {unquote(name) for name, _ in request.query if not name.startswith("X-Amz-")} - {"x-id"}:
        raise S3Error(501, "NotImplemented", "A query you provided implies functionality that is not implemented.")
    if request.method == "PUT":
        return _put(request, objects, key)
    if request.method == "DELETE":
        objects.pop(key, None)
        return _Answer(204)
    if request.method not in {"GET", "HEAD"}:
        raise S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
    if key not in objects:
        raise S3Error(404, "NoSuchKey", "The specified key does not exist.", Key=key)
    return _got(request, objects[key])


def _put(request: Request, objects: dict[str, Object], key: str) -> _Answer:
    if "content-length" not in request.headers:
        raise S3Error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    kept = {name: value for name, value in request.headers.items() if name in _KEPT_HEADERS}
    for name, value in request.headers.items():
        if name in CHECKSUMS and base64.b64encode(CHECKSUMS[name](request.body)).decode() != value:
            raise S3Error(400, "BadDigest", f"The {name} you specified did not match the calculated checksum.")
        if name.startswith("x-amz-checksum-"):
            if name not in CHECKSUMS:
                raise S3Error(501, "NotImplemented", "This checksum is not implemented.")
            kept[name] = value
    objects[key] = Object(request.body, kept, time.time())
    return _Answer(200, {"ETag": objects[key].etag})


def _got(request: Request, kept: Object) -> _Answer:
    size = len(kept.content)
    wants_checksum = request.headers.get("x-amz-checksum-mode") == "ENABLED" and "range" not in request.headers
    headers = {name: value for name, value in kept.headers.items() if wants_checksum or not name.startswith("x-amz-")}
    headers |= {"ETag": kept.etag, "Last-Modified": formatdate(kept.changed_at, usegmt=True), "Accept-Ranges": "bytes"}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not found or found.groups() == ("", ""):
        return _Answer(200, headers, kept.content)
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size or (first and end <= start):
        raise S3Error(416, "InvalidRange", "The requested range is not satisfiable", ActualObjectSize=size)
    return _Answer(206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, kept.content[start:end])


def _as_xml(error: S3Error) -> bytes:
    members = {"Code": error.code, "Message": error.message, **error.details, "RequestId": secrets.token_hex(8)}
    inner = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in members.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


class _Connections:
    """HTTP/1.1 by hand, so that a response can be late, cut, or missing."""

    def __init__(self, server: S3Server) -> None:
        self._server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._answered_one(reader, writer):
            pass
        writer.transport.abort()

    async def _answered_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        headers = Request.read(head, b"").headers
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Request.read(head, await reader.readexactly(int(headers.get("content-length", "0"))))
        fault = self._server.next_fault(request.method)
        answer = None if fault in {"hang", "reset"} else self._server.answer(request, fault)
        status, code = (answer.status, answer.code) if answer else (0, None)
        self._server.seen.append(Seen(request.method, request.path, request.headers, status, code))
        if fault in {"hang", "slow"}:
            await asyncio.sleep(3600 if fault == "hang" else SLOW_SECONDS)
        if answer:
            writer.write(_on_the_wire(request, answer, cut=fault == "cut"))
            await writer.drain()
        if fault in {"reset", "cut"}:
            await asyncio.sleep(0.05 if fault == "cut" else 0)  # so that the sent bytes arrive before the reset
            _close_with_reset(writer)
        return fault not in {"reset", "cut"}


def _on_the_wire(request: Request, answer: _Answer, *, cut: bool) -> bytes:
    headers = {"Content-Length": str(len(answer.body)), "Date": formatdate(usegmt=True), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    body = b"" if request.method == "HEAD" else answer.body
    return "\r\n".join([*lines, "", ""]).encode() + (body[: len(body) // 2] if cut else body)


def _close_with_reset(writer: asyncio.StreamWriter) -> None:
    """Makes the next close send a reset at once, and drop unsent bytes."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def s3_server(*buckets: str, region: str = "auto") -> Iterator[S3Server]:
    """A server with these empty buckets, on a free loopback port, in a thread of its own."""
    server, ready = S3Server(buckets=buckets, region=region), threading.Event()
    loop, stopping = asyncio.SelectorEventLoop(), asyncio.Event()

    async def run() -> None:
        async with listening(_Connections(server).serve, line_bytes_max=2**20, backlog=1024) as port:
            server.url = f"http://127.0.0.1:{port}"
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="s3", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()

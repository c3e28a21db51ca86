"""A small application whose routes take images, on a real server, without a database."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast

import httpx2
from app.core.blobs import Blob, BlobSpace
from app.core.bounds import BODY_BYTES_MAX, EdgeBounds
from app.core.long_text import ImageText
from app.core.metrics import Metrics
from app.core.pool import BoundedPool
from app.core.schemas import Body, Text
from app.features.input_images import read_sent_image
from app.generations.collaborators import Generations
from app.server import http_config
from app.web.app import App
from app.web.body import json_body, read_blob
from app.web.connections import Connection, Connections
from app.web.multipart import read_multipart
from app.web.overload import OverloadGuard
from app.web.prepared_refusals import PreparedRefusals
from app.web.state import BodyBounds, LifespanState, WebSettings
from fastapi import FastAPI, Request
from pydantic import Field
from tests.harness import serving

MIB = 1024 * 1024
BYTES_MAX = 24 * MIB
SLOTS = 10
THREADS = 2
OWN_URL = "https://pictures.test"

Answer = list[tuple[str, str]]


class Sent(Body):
    prompt: Text
    images: list[ImageText] = Field(default=[])
    nested: list[dict[str, ImageText]] = Field(default=[])


class PatientGuard(OverloadGuard):
    """Remembers until when it lets the last body be awaited."""

    deadline: float | None = 0

    def await_until(self, deadline: float | None, wait: asyncio.Timeout) -> None:
        self.deadline = deadline
        super().await_until(deadline, wait)


class _Connections(Connections):
    def __init__(self, bounds: EdgeBounds, metrics: Metrics) -> None:
        super().__init__(bounds, metrics, per_address_max=1000)
        self.made: list[Connection] = []

    def add(self, connection: Connection, *, address: str | None) -> bool:
        self.made.append(connection)
        return super().add(connection, address=address)


@dataclass(frozen=True)
class ImageServer:
    client: httpx2.AsyncClient
    guard: PatientGuard
    blobs: BlobSpace
    connections: Sequence[Connection]
    """All that were made, the oldest first."""


@asynccontextmanager
async def image_server(folder: Path, *, memory: int = 8 * MIB, files: int = 512 * MIB) -> AsyncIterator[ImageServer]:
    """`POST /json` reads the images of a Sent, `POST /form` a form, `POST /raw` any body. Each answers with the name
    and the SHA-256 of each image, and the name and the text of each field.
    """
    metrics = Metrics()
    guard = PatientGuard(SLOTS, metrics, proxies=())
    paths = ((re.compile("/json|/form|/raw"), BodyBounds(BODY_BYTES_MAX, BYTES_MAX)),)
    web = WebSettings(OWN_URL, trusted_proxies=(), error_formats=(), body_bounds=paths)
    connections = _Connections(web.bounds, metrics)
    with closing(BoundedPool(threads=THREADS, queue_max=100, name="read-bodies", niceness=0)) as threads:
        blobs = BlobSpace(memory_bytes_max=memory, file_bytes_max=files, folder=folder, threads=threads)

        @asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[LifespanState]:
            yield {
                "overload_guard": guard,
                "connections": connections,
                "prepared_refusals": await PreparedRefusals.prepare({"web": web}),
                "web": web,
                "services": None,
                "console": None,
                "blobs": blobs,
                "tracing": None,
            }

        app = App(lifespan=lifespan, overload_guard=guard)
        _add_routes(app, cast(Generations, SimpleNamespace(blobs=blobs, public_url=OWN_URL)))
        async with (
            serving(http_config(app)) as port,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ):
            yield ImageServer(client, guard, blobs, connections.made)


def _add_routes(app: App, generations: Generations) -> None:
    @app.post("/json")
    async def read_json(sent: Annotated[Sent, json_body(Sent)]) -> Answer:
        texts = [*sent.images, *(text for each in sent.nested for text in each.values())]
        images = [await read_sent_image(generations, text, pointer=f"#/images/{n}") for n, text in enumerate(texts)]
        return [("prompt", sent.prompt), *(_described("image", each) for each in images)]

    @app.post("/form")
    async def read_form(request: Request) -> Answer:
        return [_described(*part) for part in await read_multipart(request)]

    @app.post("/raw")
    async def read_raw(request: Request) -> Answer:
        return [_described("raw", await read_blob(request))]


def _described(name: str, value: str | Blob) -> tuple[str, str]:
    return name, value.sha256.hex() if isinstance(value, Blob) else value


def parts(boundary: bytes, *each: bytes, end: bytes = b"--\r\n") -> bytes:
    """A form of these parts, each with its headers."""
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in each) + b"--" + boundary + end


def part(name: str, content: bytes, *, filename: str | None = None, headers: Sequence[str] = ()) -> bytes:
    """A part of a form with this name."""
    file = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{file}', *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def told(answer: httpx2.Response) -> tuple[int, Any]:
    """The status, and the answer or the sentences of the error."""
    body = answer.json()
    if answer.status_code == 200:
        return 200, [tuple(each) for each in body]
    return answer.status_code, [body["detail"], *(f"{e['pointer']}: {e['detail']}" for e in body.get("errors", ()))]

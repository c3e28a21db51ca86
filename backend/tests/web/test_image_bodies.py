"""Bodies with images: received within a bound of memory, as strict as small ones, and at nobody else's cost."""

import asyncio
import base64
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from app.core.blobs import PIECE_BYTES, Blob
from app.core.errors import ApiError
from app.core.long_text import LongText
from app.web import strict_json
from app.web.connections import WaitFor
from tests.harness import looks
from tests.raw_http import JSON_TYPE, chunk, connected, head, post_of, read_answer, send_raw
from tests.web.image_server import BYTES_MAX, MIB, OWN_URL, SLOTS, THREADS, ImageServer, image_server, told

SMALL, LARGE = os.urandom(100), os.urandom(3 * MIB + 1)
OTHER = os.urandom(700_000)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ImageServer]:
    async with image_server(tmp_path_factory.mktemp("bodies")) as running:
        yield running


def data_url(content: bytes, media_type: str = "image/png", *, altchars: bytes = b"+/") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content, altchars).decode()}"


def body_of(*images: object, prompt: str = "A cute banana", **more: object) -> bytes:
    return json.dumps({"prompt": prompt, "images": images, **more}).encode()


def php(body: bytes) -> bytes:
    return body.replace(b"/", b"\\/")


async def until(is_so: Callable[[], bool]) -> None:
    for _ in looks():
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


def hashes(*images: bytes) -> list[tuple[str, str]]:
    return [("prompt", "A cute banana"), *(("image", sha256(each).hexdigest()) for each in images)]


def wrapped(text: str) -> str:
    """As MIME has it: in lines of 76 characters."""
    start = text.index(",") + 1
    return "\r\n".join([text[:start], *(text[at : at + 76] for at in range(start, len(text), 76)), ""])


_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "standard": lambda content: body_of(data_url(content)),
    "URL-safe": lambda content: body_of(data_url(content, altchars=b"-_")),
    "without padding": lambda content: body_of(data_url(content).rstrip("=")),
    "in lines": lambda content: body_of(wrapped(data_url(content))),
    "of another type, in capitals": lambda content: body_of(
        data_url(content, "TEXT/PLAIN;name=a").replace("d", "D", 1)
    ),
    "without a type": lambda content: body_of(data_url(content, "")),
    "escaped by PHP": lambda content: php(body_of(data_url(content))),
    "escaped in hexadecimal": lambda content: body_of(data_url(content)).replace(b"/", b"\\u002F"),
}


@pytest.mark.parametrize("encoding", _ENCODINGS)
async def test_an_image_in_base64_of_any_kind_and_size_arrives_whole(server: ImageServer, encoding: str) -> None:
    for size in (0, 1, 60_000, 700_001, len(LARGE)):
        content = LARGE[:size]
        answer = await server.client.post("/json", content=_ENCODINGS[encoding](content), headers=dict([JSON_TYPE]))
        assert told(answer) == (200, hashes(content)), size


async def test_several_images_and_names_of_images_keep_their_order(server: ImageServer) -> None:
    ids, own = ["upl_0123456789abcdefghjkmnpqrs", "gen_01kapn5vfe28fm63cjp43w44255s68"], f"{OWN_URL}/v1/images/"
    names = [*ids, f"{own}{ids[1]}.png", f"{own}{ids[1]}.webp?width=320", "https://elsewhere.test/a.png?b=c#d"]
    body = body_of(data_url(LARGE), *names, data_url(SMALL), nested=[{"a": data_url(OTHER)}])
    expected = hashes(LARGE, SMALL, OTHER)
    expected[2:2] = [("image", each) for each in (*ids, ids[1], ids[1], names[-1])]
    assert told(await send_raw(server.client, post_of("/json", body))) == (200, expected)


IS_NO_IMAGE = "Must be a data: URL in base64, an upl_ or gen_ id, or an https URL"

REFUSED: dict[str, tuple[bytes, int, list[str]]] = {
    "no image inside": (body_of().ljust(64 * 1024 + 1), 413, ["The body is larger than 64 KiB"]),
    "text beside the image": (
        body_of(data_url(LARGE), prompt="a b" * 30_000),
        413,
        ["The body is larger than 64 KiB"],
    ),
    "a prompt like an image": (body_of(prompt="A" * 70_000), 413, ["The body is larger than 64 KiB"]),
    "an image as an unknown field": (
        body_of(mask="A" * 70_000),
        422,
        ["The request is not valid", "#: An unknown field; known are: prompt, images, nested"],
    ),
    "more than a thousand images": (
        body_of(*["data:" + "A" * 1025] * 1100),
        413,
        ["The body is larger than 64 KiB"],
    ),
    "beyond the bound of the path": (b"".ljust(BYTES_MAX + 1), 413, ["The body is larger than 24 MiB"]),
    "cut short in the image": (body_of(data_url(LARGE))[:-100], 400, ["The body is not one JSON text in UTF-8"]),
    "two texts": (body_of(data_url(OTHER)) * 2, 400, ["The body is not one JSON text in UTF-8"]),
    "an image as a key": (b'{"%b": 1}' % base64.b64encode(OTHER), 400, ["The body is not one JSON text in UTF-8"]),
    "an image behind a number": (
        b'{"n": 1"%b"}' % base64.b64encode(OTHER),
        400,
        ["The body is not one JSON text in UTF-8"],
    ),
    "the same key twice": (
        body_of(data_url(OTHER))[:-1] + b', "prompt": "b"}',
        400,
        ["The body has the same key twice in one object"],
    ),
    "a number beyond a double": (
        body_of(data_url(OTHER))[:-1] + b', "n": 1e999}',
        400,
        ["The body has a number that is out of range or not one of JSON"],
    ),
    "a line end within an image": (
        body_of(data_url(OTHER)).replace(b"base64,", b"base64,\n"),
        422,
        ["The request is not valid", "#/images/0: Is not base64"],
    ),
    "not UTF-8": (body_of(data_url(OTHER)).replace(b"cute", b"\xff"), 400, ["The body is not one JSON text in UTF-8"]),
}

_NOT_BASE64 = ["The request is not valid", "#/images/1: Is not base64"]
_NO_IMAGE = ["The request is not valid", f"#/images/1: {IS_NO_IMAGE}"]
_BASE64 = base64.b64encode(OTHER).decode()
NO_IMAGES: dict[str, tuple[str, list[str]]] = {
    "another character": (f"data:;base64,{_BASE64[:-8]}!{_BASE64[-7:]}", _NOT_BASE64),
    "another character in a small one": ("data:;base64,AAA!", _NOT_BASE64),
    "one character too many": (f"data:;base64,{_BASE64[:4000]}A", _NOT_BASE64),
    "padding within": (f"data:;base64,AA=={_BASE64}", _NOT_BASE64),
    "padding at the end of a piece": (f"data:;base64,{'A' * (PIECE_BYTES - 10)}=={'A' * 1000}", _NOT_BASE64),
    "padding alone": ("data:;base64,====", _NOT_BASE64),
    "too much padding": (f"data:;base64,{_BASE64[: 4 * 1000]}===", _NOT_BASE64),
    "another letter": (f"data:;base64,{_BASE64}é", _NOT_BASE64),
    "not in base64": ("data:image/svg+xml,%3Csvg%3E", _NO_IMAGE),
    "bare base64": (_BASE64, _NO_IMAGE),
    "plain HTTP": ("http://elsewhere.test/a.png", _NO_IMAGE),
    "a URL of our own of something else": (f"{OWN_URL}/v1/images/gen_1.png/x".replace("https", "http"), _NO_IMAGE),
    "a long URL": ("https://elsewhere.test/" + "a" * 3000, _NO_IMAGE),
    "an id of something else": ("key_28fm63cjp43w44255s68", _NO_IMAGE),
    "a file": ("file:///etc/passwd", _NO_IMAGE),
    "nothing": ("", _NO_IMAGE),
}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("case", REFUSED)
async def test_a_large_body_is_refused_with_the_rule_that_it_breaks(
    server: ImageServer, case: str, *, chunked: bool
) -> None:
    body, status, sentences = REFUSED[case]

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    answer = await server.client.post("/json", content=pieces() if chunked else body, headers=dict([JSON_TYPE]))
    assert told(answer) == (status, sentences)


@pytest.mark.parametrize("case", NO_IMAGES)
async def test_what_is_no_image_is_a_422_that_points_at_it(server: ImageServer, case: str) -> None:
    text, sentences = NO_IMAGES[case]
    answer = await send_raw(server.client, post_of("/json", body_of(data_url(SMALL), text)))
    assert told(answer) == (422, sentences)


async def test_an_image_beyond_its_own_bound_is_a_422(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.features.input_images.IMAGE_BYTES_MAX", 2 * MIB)
    answer = await send_raw(server.client, post_of("/json", body_of(data_url(LARGE))))
    assert told(answer) == (422, ["The request is not valid", "#/images/0: Is larger than 2 MiB"])


async def test_a_body_that_is_declared_as_too_large_is_refused_before_any_of_it_is_sent(server: ImageServer) -> None:
    answer = await send_raw(server.client, head("POST", "/json", [JSON_TYPE, ("Content-Length", str(BYTES_MAX + 1))]))
    assert told(answer) == (413, ["The body is larger than 24 MiB"])


_TEXTS = [
    b"[]",
    b'"a"',
    b'["", "\\"", "\\\\", "\\\\\\"", "a\\\\"]',
    b'{"a\\"b": ["\\\\\\\\\\"", 1, -2.5e3, true, null, {"\\u00e9": "\xc3\xa9\xf0\x9f\x8d\x8c"}]}',
    b'  {"a" : "data:"}  ',
    b'["' + b"A" * 1025 + b'", "' + b"B" * 1025 + b'", 7]',
    b'["data:\\"' + b"A" * 2000 + b'"]',
    b'["' + b"\\/" * 2000 + b'"]',
    b'["' + b"\\\\" * 2000 + b'"]',
    *(b'["' + b"a b" * size + b'\\"", "data:' + b"A" * size + b'"]' for size in (1000, 10_000, 21_800)),
]


def _as_text(value: Any) -> Any:
    """The value with the text of each LongText in its place."""
    if isinstance(value, dict):
        return {name: _as_text(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    is_long = isinstance(value, LongText)
    return json.loads(b'"%b"' % b"".join(value.pieces(0))) if is_long else value


@pytest.mark.parametrize("text", _TEXTS, ids=range(len(_TEXTS)))
@pytest.mark.parametrize("piece_bytes", [7, 4096])
def test_what_is_read_in_pieces_means_what_json_means(
    monkeypatch: pytest.MonkeyPatch, text: bytes, piece_bytes: int
) -> None:
    monkeypatch.setattr(strict_json, "PIECE_BYTES", piece_bytes)
    assert _as_text(strict_json.parse_large(Blob(text), text_bytes_max=64 * 1024)) == json.loads(text)


class _Counted(Blob):
    """Bytes that count how many of them are read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.read_bytes = 0

    def part(self, start: int, end: int) -> bytes:
        part = super().part(start, end)
        self.read_bytes += len(part)
        return part


@pytest.mark.parametrize(
    "text",
    [b'["' + b'\\"' * MIB, b'["' + b"\\" * MIB + b'"', b'["data:' + b'\\"' * MIB, b'"",' * MIB, b'["a' + b"b" * MIB],
    ids=["escaped quotation marks", "backslashes", "escaped ones in an image", "empty strings", "one long string"],
)
def test_a_body_that_is_made_to_be_slow_is_read_no_further_than_its_text_may_go(text: bytes) -> None:
    body = _Counted(text)
    with pytest.raises(ApiError) as refused:
        strict_json.parse_large(body, text_bytes_max=4096)
    assert refused.value.status in {400, 413}
    assert body.read_bytes < 4 * MIB


async def _sent(server: ImageServer, stack: AsyncExitStack, count: int, sent: bytes) -> None:
    """So many clients have begun to send bodies that go on for long."""
    for _ in range(count):
        _, writer = await stack.enter_async_context(connected(server.client))
        writer.write(head("POST", "/json", [JSON_TYPE, ("Content-Length", str(BYTES_MAX))]) + sent)
        await writer.drain()


async def test_slow_uploads_hold_no_slot_and_no_memory_beyond_the_bound_and_leave_nothing(tmp_path: Path) -> None:
    async with image_server(tmp_path, memory=MIB) as server, AsyncExitStack() as stack:
        await _sent(server, stack, SLOTS, b"{" + b" " * 2 * MIB)
        await until(lambda: server.blobs.files.taken + server.blobs.memory.taken >= SLOTS * MIB)
        await until(lambda: server.guard.free_slots == SLOTS)
        assert server.blobs.memory.taken <= MIB
        await until(lambda: not [*os.scandir(tmp_path)])  # the files have no names
        answer = await server.client.post("/json", content=body_of(data_url(LARGE)), headers=dict([JSON_TYPE]))
        assert told(answer) == (200, hashes(LARGE))
        await stack.aclose()
        await until(lambda: server.blobs.files.taken == server.blobs.memory.taken == 0)


async def test_where_files_have_all_that_they_may_a_body_is_a_503_and_the_next_one_fits(tmp_path: Path) -> None:
    async with image_server(tmp_path, memory=MIB, files=4 * MIB) as server:
        large, fits = body_of(data_url(LARGE), data_url(LARGE)), body_of(data_url(OTHER))
        answer = await server.client.post("/json", content=large, headers=dict([JSON_TYPE]))
        assert told(answer) == (503, ["There is no space for what was sent; try again later"])
        assert int(answer.headers["Retry-After"]) > 0
        assert server.blobs.files.taken == 0
        answer = await server.client.post("/json", content=fits, headers=dict([JSON_TYPE]))
        assert told(answer) == (200, hashes(OTHER))


async def test_a_disk_that_takes_nothing_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with image_server(tmp_path / "file" / "folder") as server:
        answer = await server.client.post("/json", content=body_of(data_url(LARGE)), headers=dict([JSON_TYPE]))
        assert told(answer) == (503, ["There is no space for what was sent; try again later"])


async def test_while_the_disk_is_slow_nothing_is_read_and_the_client_is_not_blamed(server: ImageServer) -> None:
    body, disk = body_of(*[data_url(LARGE)] * 4), threading.Event()
    waiting = [asyncio.create_task(server.blobs.run(disk.wait)) for _ in range(THREADS)]
    async with connected(server.client) as (reader, writer):
        writer.write(post_of("/json", body))
        await until(lambda: server.connections[-1].wait().kind is WaitFor.RESPONSE)
        assert (server.guard.free_slots, server.guard.deadline) == (SLOTS, None)
        disk.set()
        assert told(await read_answer(reader)) == (200, hashes(*[LARGE] * 4))
    await asyncio.gather(*waiting)


async def test_a_chunked_body_is_bounded_while_it_is_read(server: ImageServer) -> None:
    request = head("POST", "/json", [JSON_TYPE, ("Transfer-Encoding", "chunked")])
    answer = await send_raw(server.client, request, *[chunk(b" " * MIB)] * (BYTES_MAX // MIB + 1))
    assert told(answer) == (413, ["The body is larger than 24 MiB"])


async def test_a_raw_body_of_any_size_is_read(server: ImageServer) -> None:
    for content in (b"", SMALL, OTHER, LARGE):
        answer = await server.client.post("/raw", content=content)
        assert told(answer) == (200, [("raw", sha256(content).hexdigest())])

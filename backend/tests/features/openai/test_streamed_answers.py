"""Answers with images as base64: read from the store as fast as the client reads, whole or recognizably cut off."""

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
from app.providers.stub.art import draw_png
from app.storage import CHUNK_BYTES
from app.storage.disk import OpenImage
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.usage.recorded import total
from tests.harness import Key, looks
from tests.problems import check_problem
from tests.raw_http import post_of

ROUTE = "/v1/images/generations"
ONCE = "once"
MEBIBYTE = 1024 * 1024
LARGE = 3 * MEBIBYTE
READ_BY_KERNELS = 20 * MEBIBYTE
"""More than the buffers of a loopback connection take from a server whose client does not read."""


def wanted(count: int = 1, size: str = "1024x1024") -> dict[str, object]:
    return {"prompt": "A cute banana", "size": size, "n": count, "response_format": "b64_json"}


async def ask(there: Painted, count: int = 1, *, key: Key | None = None, once: str = "") -> httpx2.Response:
    headers = {**(key or there.key).headers, **({"Idempotency-Key": once} if once else {})}
    return await there.client.post(ROUTE, json=wanted(count), headers=headers)


def images_in(answer: httpx2.Response) -> list[bytes]:
    """The images of an answer, which is the JSON without spaces that a serializer writes of them."""
    told = answer.json()
    images = [base64.b64decode(each["b64_json"], validate=True) for each in told["data"]]
    data = [{"b64_json": base64.b64encode(each).decode()} for each in images]
    body = {"created": told["created"], "data": data, "size": "1024x1024", "output_format": "png"}
    assert answer.content == json.dumps(body, separators=(",", ":")).encode()
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "application/json"
    return images


async def replaced(there: Painted, folder: Path, sizes: list[int]) -> list[bytes]:
    """Images of these sizes in bytes, in the store in place of those of a new request, whose replay has them."""
    assert (await ask(there, len(sizes), once=ONCE)).status_code == 200
    listed = (await there.client.get("/v1/generations?limit=100", headers=there.key.headers)).json()
    images = [os.urandom(size) for size in sizes]
    for each, image in zip(sorted(listed, key=lambda one: str(one["id"])), images, strict=True):
        _file(folder, each["id"]).write_bytes(image)
    return images


def _file(folder: Path, generation_id: str) -> Path:
    [file] = folder.rglob(f"{generation_id}.png")
    return file


@asynccontextmanager
async def unread(there: Painted, clients: int, *, key: Key | None = None) -> AsyncIterator[None]:
    """So many clients have asked for ten images, and read nothing of the answer. They hang up when the block ends."""
    headers = [*(key or there.key).headers.items(), ("Idempotency-Key", ONCE)]
    request = post_of(ROUTE, json.dumps(wanted(10)).encode(), headers)
    async with AsyncExitStack() as stack:
        for _ in range(clients):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (there.client.base_url.host, there.client.base_url.port))
            await loop.sock_sendall(client, request)
            await loop.sock_recv(client, 12)  # it has begun
        yield


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of the store has read, from now on."""
    lengths: list[int] = []
    read = OpenImage.read

    def counted(self: OpenImage, start: int, length: int) -> bytes:
        lengths.append(length)
        return read(self, start, length)

    monkeypatch.setattr("app.storage.disk.OpenImage.read", counted)
    return lengths


async def test_a_fresh_answer_and_its_replay_are_the_json_that_a_serializer_would_write(start: Start) -> None:
    async with painted(start) as there:
        for count, environment in ((1, "live"), (3, "live"), (2, "test")):
            key = await there.account.create_key(environment=environment)
            fresh, replay = [await ask(there, count, key=key, once=f"{count}") for _ in range(2)]
            assert (replay.content, replay.headers["idempotent-replayed"]) == (fresh.content, "true")
            listed = (await there.client.get(f"/v1/generations?limit={count}", headers=key.headers)).json()
            shown = [(await there.client.get(httpx2.URL(each["url"]).path)).content for each in listed]
            assert sorted(images_in(fresh)) == sorted(shown)


async def test_every_length_is_encoded_as_a_whole(start: Start, tmp_path: Path) -> None:
    lengths = [1, 2, 3, 4, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES + 2, 2 * CHUNK_BYTES + 1, 100]
    async with painted(start, data_dir=tmp_path) as there:
        images = await replaced(there, tmp_path, lengths)
        assert sorted(images_in(await ask(there, len(images), once=ONCE))) == sorted(images)


async def test_what_no_client_reads_is_not_read_from_the_store(start: Start, tmp_path: Path, reads: list[int]) -> None:
    async with painted(start, data_dir=tmp_path) as there:
        await replaced(there, tmp_path, [LARGE] * 10)
        reads.clear()
        async with unread(there, 4):
            whole = await ask(there, 10, once=ONCE)  # meanwhile they would have been read too
            assert len(whole.content) > 10 * LARGE
            assert sum(reads) - 10 * LARGE < 4 * READ_BY_KERNELS


async def test_beyond_the_bound_what_was_paid_waits(start: Start, tmp_path: Path, database: asyncpg.Connection) -> None:
    async with painted(start, data_dir=tmp_path, answer_memory_mib=8) as there:
        await replaced(there, tmp_path, [LARGE] * 10)
        async with unread(there, 4):
            paid = asyncio.create_task(ask(there))
            for _ in looks():
                if await total(database, there.key) == 11:
                    break
                await asyncio.sleep(0.01)
            assert not paid.done()
            by_url = await there.client.post(ROUTE, json={"prompt": "a"}, headers=there.key.headers)
            assert by_url.status_code == 200, "only base64 takes of this memory"
        answer = await paid
        assert answer.status_code == 200
        assert images_in(answer)[0].startswith(b"\x89PNG")


async def test_beyond_their_own_bound_images_of_the_stub_are_not_drawn_and_what_was_paid_does_not_wait_for_them(
    start: Start, tmp_path: Path, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def draw_large(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        drawn.append(prompt)
        return draw_png(prompt, width=width, height=height, model=model) + bytes(LARGE)

    monkeypatch.setattr("app.providers.stub.draw_png", draw_large)
    async with painted(start, data_dir=tmp_path, answer_memory_mib=8) as there:
        test_key = await there.account.create_key(environment="test")
        async with unread(there, 1, key=test_key):
            check_problem(await ask(there, key=test_key), 503, "unavailable")
            assert (len(drawn), await total(database, test_key)) == (1, 10), "nothing for the one that was refused"
            assert (await ask(there)).status_code == 200
        for _ in looks():
            if (await ask(there, key=test_key)).status_code == 200:
                break


async def test_what_was_paid_and_waits_too_long_is_not_to_be_repeated_and_counts(
    start: Start, tmp_path: Path, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.image_answers._WAIT_SECONDS", 0)
    async with painted(start, data_dir=tmp_path, answer_memory_mib=8) as there:
        await replaced(there, tmp_path, [LARGE] * 10)
        async with unread(there, 4):
            paid, replay = await ask(there, once="another"), await ask(there, 10, once=ONCE)
        for answer in (paid, replay):
            check_problem(answer, 503, "unavailable")
        assert (paid.headers.get("x-should-retry"), replay.headers.get("x-should-retry")) == ("false", None)
        assert await total(database, there.key) == 11
        for _ in looks():
            if (again := await ask(there, once="another")).status_code == 200:
                break
        assert (len(images_in(again)), await total(database, there.key)) == (1, 11)


async def test_an_answer_that_cannot_be_read_to_its_end_is_cut_off(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with painted(start, data_dir=tmp_path) as there:
        await replaced(there, tmp_path, [LARGE] * 2)
        read, count = OpenImage.read, 0

        def fail_once(self: OpenImage, start: int, length: int) -> bytes:
            nonlocal count
            count += 1
            if count == 20:
                raise OSError
            return read(self, start, length)

        monkeypatch.setattr("app.storage.disk.OpenImage.read", fail_once)
        with pytest.raises(httpx2.RemoteProtocolError):
            await ask(there, 2, once=ONCE)
        assert len((await ask(there, 2, once=ONCE)).json()["data"]) == 2


async def test_a_replay_whose_image_is_gone_from_the_store_is_a_404_before_anything_is_sent(
    start: Start, tmp_path: Path
) -> None:
    async with painted(start, data_dir=tmp_path) as there:
        await replaced(there, tmp_path, [1, 1])
        listed = (await there.client.get("/v1/generations", headers=there.key.headers)).json()
        _file(tmp_path, listed[0]["id"]).unlink()
        check_problem(await ask(there, 2, once=ONCE), 404, "image_not_found")


async def test_a_client_that_does_not_read_keeps_its_slot_and_one_that_does_finds_it_free(
    start: Start, tmp_path: Path
) -> None:
    async with painted(start, data_dir=tmp_path, generate_concurrency_per_key=10) as there:
        await replaced(there, tmp_path, [LARGE] * 10)
        for _ in range(10):
            assert (await ask(there)).status_code == 200
        async with unread(there, 1):
            check_problem(await ask(there), 429, "concurrency_limit_exceeded")
        for _ in looks():
            if (await ask(there)).status_code == 200:
                break

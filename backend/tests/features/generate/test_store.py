"""Pictures in a bucket: through this server, or from the bucket itself by an address that is good for a while."""

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.usage.recorded import total
from tests.harness import generate, until_ready
from tests.problems import check_problem
from tests.standins.s3 import S3Server, Seen, s3_server

SECONDS = 60

Breakable = tuple[Painted, Callable[[], object], Callable[[], object]]
"""An application, a function that breaks its store, and one that mends it."""


@pytest.fixture
def bucket() -> Iterator[S3Server]:
    with s3_server("pictures") as server:
        yield server


@asynccontextmanager
async def kept(start: Start, bucket: S3Server, **settings: object) -> AsyncIterator[Painted]:
    """An application whose pictures are in the bucket."""
    account = {"s3_access_key_id": SecretStr(bucket.key_id), "s3_secret_access_key": SecretStr(bucket.secret)}
    where = {"image_store": "s3", "s3_bucket": "pictures", "s3_endpoint": bucket.url, **account}
    async with painted(start, **where, **settings) as there:
        yield there


async def made(there: Painted) -> str:
    """The path of a new picture."""
    answer = await generate(there.client, there.key)
    assert answer.status_code == 200, answer.text
    return httpx2.URL(answer.json()["url"]).path


def requests_for(bucket: S3Server, path: str) -> list[Seen]:
    """The requests for this picture. All tests share a database: the application's sweeper deletes others' pictures."""
    return [seen for seen in bucket.seen if seen.path.endswith(path.rpartition("/")[2])]


async def test_a_picture_in_a_bucket_is_shown_in_parts_too_and_deleted_there(start: Start, bucket: S3Server) -> None:
    async with kept(start, bucket) as there:
        path = await made(there)
        [(name, stored)] = bucket.buckets["pictures"].items()
        whole = await there.client.get(path)
        part = await there.client.get(path, headers={"Range": "bytes=10-19"})
        assert (whole.status_code, whole.content) == (200, stored.content)
        assert (part.status_code, part.content) == (206, stored.content[10:20])
        generation_id = name.removesuffix(".png")
        deleted = await there.client.delete(f"/v1/generations/{generation_id}", headers=there.key.headers)
        assert (deleted.status_code, bucket.buckets["pictures"]) == (204, {})
        assert (await there.client.get(path)).status_code == 404


async def test_a_viewer_is_led_to_the_bucket_by_an_address_that_expires(start: Start, bucket: S3Server) -> None:
    async with kept(start, bucket, s3_redirect_seconds=SECONDS) as there, httpx2.AsyncClient() as browser:
        path = await made(there)
        asked = requests_for(bucket, path)
        led = await there.client.get(path)
        assert (led.status_code, led.content, requests_for(bucket, path)) == (307, b"", asked)
        assert led.headers["cache-control"] == f"private, max-age={SECONDS // 2}"
        assert "etag" not in led.headers, "a cache would take an expired address for a fresh one"
        address = led.headers["location"]
        shown = await browser.get(address)
        [stored] = bucket.buckets["pictures"].values()
        assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, stored.content, "image/png")
        part = await browser.get(address, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, stored.content[10:20])
        assert (await browser.get(address.replace(path.rpartition("/")[2], "another.png"))).status_code == 403
        assert (await browser.delete(address)).status_code == 403
        assert bucket.secret not in address
        pages = await there.client.get("/")
        assert f"img-src 'self' {bucket.url};" in pages.headers["content-security-policy"], (
            "pages may show what is there"
        )
        bucket.clock_offset_seconds = SECONDS + 2
        assert (await browser.get(address)).status_code == 403


async def test_a_viewer_is_led_to_a_smaller_copy_which_is_made_first(start: Start, bucket: S3Server) -> None:
    async with kept(start, bucket, s3_redirect_seconds=SECONDS) as there, httpx2.AsyncClient() as browser:
        path = await made(there)
        wanted, name = path.replace(".png", ".webp"), path.rpartition("/")[2].replace(".png", ".w64.webp")
        assert (await there.client.head(f"{wanted}?width=64")).status_code == 200
        assert name not in bucket.buckets["pictures"]
        for _ in range(2):
            led = await there.client.get(f"{wanted}?width=64")
            assert (led.status_code, led.content) == (307, b"")
            shown = await browser.get(led.headers["location"])
            assert (shown.status_code, shown.headers["content-type"]) == (200, "image/webp")
            assert shown.content == bucket.buckets["pictures"][name].content
        head = await there.client.head(f"{wanted}?width=64")
        assert head.headers["content-length"] == str(len(shown.content))
        assert [seen.method for seen in requests_for(bucket, name)].count("PUT") == 1
        generation_id = path.rpartition("/")[2].removesuffix(".png")
        await there.client.delete(f"/v1/generations/{generation_id}", headers=there.key.headers)
        assert bucket.buckets["pictures"] == {}


async def test_a_viewer_who_has_the_picture_or_asks_about_it_is_answered_here(start: Start, bucket: S3Server) -> None:
    async with kept(start, bucket, s3_redirect_seconds=SECONDS) as there:
        path = await made(there)
        head = await there.client.head(path)
        [stored] = bucket.buckets["pictures"].values()
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(stored.content)))
        again = await there.client.get(path, headers={"If-None-Match": head.headers["etag"]})
        assert (again.status_code, "location" in again.headers) == (304, False)
        generation_id = path.rpartition("/")[2].removesuffix(".png")
        await there.client.delete(f"/v1/generations/{generation_id}", headers=there.key.headers)
        for headers in ({}, {"If-None-Match": head.headers["etag"]}):
            check_problem(await there.client.get(path, headers=headers), 404, "image_not_found")
        check_problem(await there.client.get(path.replace(".png", ".webp")), 404, "image_not_found")


async def test_what_the_stub_draws_is_shown_here_wherever_pictures_are_kept(start: Start, bucket: S3Server) -> None:
    async with kept(start, bucket, s3_redirect_seconds=SECONDS) as there:
        key = await there.account.create_key(environment="test")
        path = httpx2.URL((await generate(there.client, key)).json()["url"]).path
        assert (await there.client.get(path)).status_code == 200
        assert requests_for(bucket, path) == []


async def test_bytes_are_answered_as_they_were_drawn_and_not_read_again(
    start: Start, database: asyncpg.Connection, bucket: S3Server
) -> None:
    async with kept(start, bucket, s3_redirect_seconds=SECONDS) as there:
        bucket.fail("internal_error", times=100, method="GET")
        body = {"prompt": "A cute banana", "response_format": "b64_json", "n": 2}
        headers = {**there.key.headers, "Idempotency-Key": "once"}
        answer = await there.client.post("/v1/images/generations", json=body, headers=headers)
        told = {base64.b64decode(each["b64_json"]) for each in answer.json()["data"]}
        assert told == {each.content for each in bucket.buckets["pictures"].values()}
        assert await total(database, there.key) == 2
        bucket.recover()
        replay = await there.client.post("/v1/images/generations", json=body, headers=headers)
        assert (replay.content, replay.headers["idempotent-replayed"]) == (answer.content, "true")


@pytest.mark.usefixtures("quick_probes")
async def test_a_store_that_fails_is_a_503_that_does_not_count(
    start: Start, database: asyncpg.Connection, bucket: S3Server
) -> None:
    async with kept(start, bucket) as there:
        bucket.fail("internal_error", times=100, method="PUT")
        refused = await generate(there.client, there.key)
        check_problem(refused, 503, "unavailable")
        assert refused.headers["x-should-retry"] == "false", "it was drawn"
        assert await total(database, there.key) == 0
        bucket.recover()
        await until_ready(there.client)
        assert (await generate(there.client, there.key)).status_code == 200
        assert await total(database, there.key) == 1


@asynccontextmanager
async def on_disk(start: Start, folder: Path) -> AsyncIterator[Breakable]:
    async with painted(start, data_dir=folder) as there:
        incoming, moved = folder / "pictures" / "incoming", folder / "moved"

        def break_it() -> None:
            incoming.rename(moved)
            incoming.touch()  # a folder that is gone would be made again

        def mend_it() -> None:
            incoming.unlink()
            moved.rename(incoming)

        yield there, break_it, mend_it


@asynccontextmanager
async def in_s3(start: Start, bucket: S3Server) -> AsyncIterator[Breakable]:
    async with kept(start, bucket) as there:
        yield there, lambda: bucket.fail("internal_error", times=1000, method="PUT"), bucket.recover


@pytest.mark.parametrize("kind", ["disk", "s3"])
@pytest.mark.usefixtures("quick_probes")
async def test_of_ten_calls_on_a_store_that_fails_one_is_paid_and_the_others_may_be_repeated(
    start: Start, database: asyncpg.Connection, bucket: S3Server, tmp_path: Path, kind: str
) -> None:
    async with on_disk(start, tmp_path) if kind == "disk" else in_s3(start, bucket) as (there, break_it, mend_it):
        headers = {**there.key.headers, "Idempotency-Key": "before"}
        before = await there.client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=headers)
        there.provider.seen.clear()
        break_it()
        refused = [await generate(there.client, there.key) for _ in range(10)]
        assert [answer.status_code for answer in refused] == [503] * 10
        assert len(there.provider.seen) == 1
        assert [answer.headers.get("x-should-retry") for answer in refused] == ["false", *[None] * 9]
        ready = await there.client.get("/ready")
        assert (ready.status_code, ready.json()["degraded"]) == (200, ["store"]), "the rest of the API is of use"
        again = await there.client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=headers)
        assert (again.status_code, again.content) == (200, before.content), "a replay needs no provider"
        test_key = await there.account.create_key(environment="test")
        assert (await generate(there.client, test_key)).status_code == 200, "nor does a test key"
        mend_it()
        await until_ready(there.client)
        assert (await generate(there.client, there.key)).status_code == 200
        assert await total(database, there.key) == 2

"""Images in the sizes that people look at: made once, kept beside the whole, and gone with it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import asyncpg
import httpx2
import pytest
from app.core.images import ImageFormat
from app.core.settings import Settings
from app.providers import Image, decode
from PIL import Image as Pillow
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.generate.test_sweeper import AS_AFTER_A_CRASH, LONG_AGO
from tests.harness import Account, Key, as_seen, looks
from tests.pool_calls import Hold
from tests.problems import check_problem

MAKE = "app.generations.thumbnails.thumbnail"
FORMATS = ("png", "jpeg", "webp")


async def made(client: httpx2.AsyncClient, key: Key, image_format: str = "png", *, size: str = "1024x1024") -> str:
    """The path of a new image."""
    body = {"prompt": "A cute banana", "size": size, "output_format": image_format}
    answer = await client.post("/v1/images/generations", json=body, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return f"/v1/images/{PurePosixPath(answer.json()['data'][0]['url']).name}"


def files_of(settings: Settings, path: str) -> set[str]:
    """The names of all files of an image."""
    folder: Path = settings.data_dir / "pictures"
    return {each.name for each in folder.rglob(f"{PurePosixPath(path).stem}*")}


def shape(answer: httpx2.Response) -> tuple[str, str, tuple[int, int]]:
    """The media type, and what the bytes are."""
    assert answer.status_code == 200, answer.text
    with Pillow.open(BytesIO(answer.content)) as image:
        image.load()
        return answer.headers["content-type"], str(image.format).lower(), image.size


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kind of thread in which each thumbnail was made, from now on."""
    names: list[str] = []

    def counted(content: bytes, width: int, image_format: ImageFormat) -> Image:
        names.append(threading.current_thread().name.rpartition("_")[0])
        return decode.thumbnail(content, width, image_format)

    monkeypatch.setattr(MAKE, counted)
    return names


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_a_width_shows_a_smaller_copy_of_the_same_shape_in_the_format_of_the_extension(
    start: Start, environment: str
) -> None:
    async with painted(start) as there:
        key = await there.account.create_key(environment=environment)
        for image_format in FORMATS:
            path = await made(there.client, key, image_format, size="1536x1024")
            whole, etags = await there.client.get(path), set()
            for width, size in ((64, (64, 43)), (512, (512, 341))):
                for extension in {image_format, "webp"}:
                    small = await there.client.get(f"{path.rpartition('.')[0]}.{extension}?width={width}")
                    assert shape(small) == (f"image/{extension}", extension, size)
                    assert len(small.content) < len(whole.content)
                    assert small.headers["cache-control"] == whole.headers["cache-control"]
                    etags.add(small.headers["etag"])
            assert len(etags - {whole.headers["etag"]}) == (2 if image_format == "webp" else 4)


async def test_a_width_that_is_not_below_the_images_own_shows_the_image_itself(
    client: httpx2.AsyncClient, account: Account
) -> None:
    path = await made(client, await account.create_key(), size="256x320")
    whole = await client.get(path)
    for width in (256, 512, 1024):
        assert as_seen(await client.get(f"{path}?width={width}")) == as_seen(whole)
        as_webp = await client.get(f"{path.replace('.png', '.webp')}?width={width}")
        assert shape(as_webp) == ("image/webp", "webp", (256, 320)), "never larger than it is"


@pytest.mark.parametrize(
    "query",
    [
        *("width=", "width=0", "width=65", "width=2048", "width=-64", "width=064", "width=64.0", "width=+64"),
        *("width=%2064", "width=%D9%A6%D9%A4", "width=wide", "width=64&width=64", "width=64&width=128"),
    ],
)
async def test_any_other_width_is_refused_with_those_that_there_are(
    client: httpx2.AsyncClient, account: Account, query: str
) -> None:
    path = await made(client, await account.create_key(), size="64x64")
    for method in ("GET", "HEAD"):
        answer = await client.request(method, f"{path}?{query}")
        assert answer.status_code == 422
    answer = await client.get(f"{path}?{query}")
    check_problem(answer, 422, "validation_error", more={"errors"})
    [error] = answer.json()["errors"]
    assert error == {"parameter": "width", "detail": "Must be one of 64, 128, 256, 512, 1024, and be there once"}


async def test_a_thumbnail_of_what_is_not_there_is_404_in_the_same_bytes(
    client: httpx2.AsyncClient, account: Account
) -> None:
    path = await made(client, await account.create_key(), size="64x64")
    stem = path.removesuffix(".png")
    wrong = [f"{stem}.jpeg?width=64", f"{stem}.gif?width=64", f"{stem}.webp", f"{stem[:-1]}.png?width=64"]
    answers = [await client.get(each) for each in wrong]
    check_problem(answers[0], 404, "image_not_found")
    assert [as_seen(each) for each in answers] == [as_seen(answers[0])] * len(wrong)


async def test_a_thumbnail_is_made_once_in_an_unpaid_thread_and_kept_beside_the_image(
    start: Start, settings: Settings, threads: list[str]
) -> None:
    async with painted(start) as there:
        path = await made(there.client, there.key)
        wanted = f"{path.replace('.png', '.webp')}?width=256"
        answers = await asyncio.gather(*(there.client.get(wanted) for _ in range(20)))
        assert {each.content for each in answers} == {answers[0].content}
        assert threads == ["draw-images"], "paid images are decoded in others"
        name = PurePosixPath(path).stem
        assert files_of(settings, path) == {f"{name}.png", f"{name}.w256.webp"}
        again = await (await start()).get(wanted)
        assert again.content == answers[0].content
        assert len(threads) == 1, "another process reads it from the store"


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_a_thumbnail_has_ranges_a_head_and_an_etag_of_its_own(
    start: Start, threads: list[str], environment: str
) -> None:
    async with painted(start) as there:
        path = await made(there.client, await there.account.create_key(environment=environment))
        wanted, whole = f"{path}?width=128", await there.client.get(path)
        unmade = await there.client.head(wanted)
        assert (unmade.status_code, "content-length" in unmade.headers, threads) == (200, False, [])
        small = await there.client.get(wanted)
        assert as_seen(await there.client.head(wanted)) == (200, as_seen(small)[1], b"")
        part = await there.client.get(wanted, headers={"Range": "bytes=-10"})
        assert (part.status_code, part.content) == (206, small.content[-10:])
        behind = await there.client.get(wanted, headers={"Range": f"bytes={len(small.content)}-"})
        assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(small.content)}")
        for etag, status in ((small.headers["etag"], 304), (whole.headers["etag"], 200)):
            assert (await there.client.get(wanted, headers={"If-None-Match": etag})).status_code == status
        assert len(threads) == 1


@dataclass(frozen=True)
class Scene:
    """What deletes an image: its owner, or another process that sweeps."""

    there: Painted
    database: asyncpg.Connection
    start: Start

    async def delete(self, generation_id: str) -> None:
        path = f"/v1/generations/{generation_id}"
        assert (await self.there.client.delete(path, headers=self.there.key.headers)).status_code == 204

    async def sweep(self, generation_id: str) -> None:
        await self.database.execute(AS_AFTER_A_CRASH, generation_id, "failed", LONG_AGO)
        await self.start()


@pytest.mark.parametrize("end", [Scene.delete, Scene.sweep], ids=lambda each: each.__name__)
async def test_what_deletes_an_image_deletes_all_that_was_made_from_it(
    start: Start, settings: Settings, database: asyncpg.Connection, end: Callable[[Scene, str], Awaitable[None]]
) -> None:
    async with painted(start) as there:
        path = await made(there.client, there.key, "jpeg")
        for extension, width in (("jpeg", 64), ("webp", 64), ("jpeg", 512)):
            shape(await there.client.get(f"{path.replace('.jpeg', f'.{extension}')}?width={width}"))
        assert len(files_of(settings, path)) == 4
        await end(Scene(there, database, start), PurePosixPath(path).stem)
        for _ in looks():
            if not files_of(settings, path):
                break
            await asyncio.sleep(0.01)
        assert files_of(settings, path) == set()
        for query in ("", "?width=64"):
            check_problem(await there.client.get(f"{path}{query}"), 404, "image_not_found")


async def test_a_thumbnail_that_is_being_made_when_its_image_is_deleted_is_not_kept(
    start: Start, settings: Settings, database: asyncpg.Connection, hold: Hold
) -> None:
    making = hold(MAKE, decode.thumbnail)
    async with painted(start) as there:
        path = await made(there.client, there.key)
        asked = asyncio.create_task(there.client.get(f"{path}?width=64"))
        await making.until_begun(1)
        await Scene(there, database, start).delete(PurePosixPath(path).stem)
        making.let_go()
        check_problem(await asked, 404, "image_not_found")
        assert files_of(settings, path) == set()


async def test_a_stored_image_that_cannot_be_decoded_has_no_thumbnail(start: Start, settings: Settings) -> None:
    async with painted(start) as there:
        path = await made(there.client, there.key)
        [file] = (settings.data_dir / "pictures").rglob(PurePosixPath(path).name)
        file.write_bytes(file.read_bytes()[:2000])
        check_problem(await there.client.get(f"{path}?width=64"), 404, "image_not_found")
        assert files_of(settings, path) == {PurePosixPath(path).name}

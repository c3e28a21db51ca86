"""Images that go in, below HTTP: what a URL leads to, several images of one request, and one deadline for all of it."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, cast

import asyncpg
import pytest
from app.assembly import open_services
from app.core.blobs import Blob
from app.core.errors import Invalid, Unavailable
from app.core.fetching import Fetcher, FetchFailed, FetchRefused
from app.core.settings import Settings
from app.generations import service
from app.generations.collaborators import Generations
from app.generations.lifetime import Lifetime
from app.generations.spec import Caller, Delivered, GenerationSpec
from tests.features.sent_images import png
from tests.features.usage.recorded import total
from tests.harness import Account, Key

URL = "https://secret:1234@example.com/a.png?token=canary-of-the-url"


class FakeFetcher:
    """Has an image, or an error, for each URL."""

    def __init__(self, pages: Mapping[str, bytes | Exception]) -> None:
        self._pages = pages
        self.groups: list[str] = []

    async def fetch(self, url: str, *, bytes_max: int, deadline: float, group: str = "") -> bytes:
        assert bytes_max > 0 < deadline
        self.groups.append(group)
        page = self._pages[url]
        if isinstance(page, Exception):
            raise page
        return page


@pytest.fixture
async def generations(settings: Settings) -> AsyncIterator[Generations]:
    async with open_services(settings) as services:
        yield services.generations


@pytest.fixture
async def caller(account: Account) -> Caller:
    return Caller((await account.create_key(environment="test")).id, account.account_id, "test", 0)


async def make(generations: Generations, caller: Caller, spec: GenerationSpec, *, once: str | None = None) -> Delivered:
    return await service.generate(generations, caller=caller, spec=spec, route="/v1/images/edits", idempotency_key=once)


async def test_a_url_is_fetched_in_the_name_of_the_account_and_is_nowhere_in_the_row(
    generations: Generations, caller: Caller, database: asyncpg.Connection
) -> None:
    pages: dict[str, bytes | Exception] = {
        URL: png(),
        "https://a.test/": FetchRefused("It is not allowed"),
        "https://b.test/": FetchFailed("No"),
    }
    fetcher = FakeFetcher(pages)
    fetching = replace(generations, fetcher=cast(Fetcher, fetcher))
    made = await make(fetching, caller, GenerationSpec("A cute banana", "auto", images=[URL, Blob(png(colour="teal"))]))
    [row] = await database.fetch("select * from generations where id = $1", made.id)
    digests = [sha256(png(colour=colour)).hexdigest() for colour in ("tomato", "teal")]
    assert json.loads(row["inputs"]) == [{"sha256": each} for each in digests]
    assert (fetcher.groups, "canary" in str(row)) == ([caller.account_id], False)
    unusable: list[tuple[Generations, str, str]] = [
        (fetching, "https://a.test/", "It is not allowed"),
        (fetching, "https://b.test/", "No"),
        (replace(generations, fetcher=None), URL, "URLs are not fetched here (FETCH_IMAGES)"),
    ]
    for refusing, url, sentence in unusable:
        with pytest.raises(Invalid) as refused:
            await make(refusing, caller, GenerationSpec("A cute banana", "64x64", images=[Blob(png()), url]))
        [error] = cast(list[dict[str, Any]], refused.value.members["errors"])
        assert error["pointer"] == "#/images/1"
        assert error["detail"].startswith(sentence)
    assert await total(database, Key(caller.key_id, "")) == 1


async def test_of_several_images_some_may_fail_and_each_has_the_sources(
    generations: Generations, caller: Caller, database: asyncpg.Connection
) -> None:
    spec = GenerationSpec("test:fail:1", "64x64", count=3, as_bytes=True, images=[Blob(png())])
    made = await make(generations, caller, spec, once="several")
    assert (len(made.ids), [(each.index, each.code) for each in made.errors]) == (2, [(0, "provider_failed")])
    again = await make(generations, caller, spec, once="several")
    assert (again.is_replay, again.ids, again.errors, again.inputs) == (True, made.ids, made.errors, made.inputs)
    rows = await database.fetch("select kind, inputs from generations where key_id = $1", caller.key_id)
    sources = [{"sha256": sha256(png()).hexdigest()}]
    assert [(row["kind"], json.loads(row["inputs"])) for row in rows] == [("edit", sources)] * 3
    assert await total(database, Key(caller.key_id, "")) == 2


async def test_images_that_cannot_be_read_in_time_are_a_503_and_nothing_is_recorded(
    generations: Generations, caller: Caller, database: asyncpg.Connection
) -> None:
    late = replace(generations, lifetime=Lifetime(drawing_seconds=0, recording_seconds=1))
    with pytest.raises(Unavailable, match="could not be read in time"):
        await make(late, caller, GenerationSpec("A cute banana", "64x64", images=[Blob(png())]))
    assert await total(database, Key(caller.key_id, "")) == 0

"""k of n: each image of a request has an end of its own; the answer, the rows, the lists and a replay agree on it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
import httpx2
import pytest
from app.storage import StoreUnavailable
from app.storage.filesystem import FilesystemStore
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.usage.recorded import total
from tests.providers.failures import BY_NAME
from tests.standins import gemini
from tests.standins.wire import Reply

ROUTE = "/v1/images/generations"
ONE_AFTER_ANOTHER = {"provider_calls_max_per_account": 1}
ROWS = "select id, status, error, lease_until from generations where key_id = $1 order by id"


class Case(NamedTuple):
    """What a provider replies to images that it is asked for one after another, and what becomes of them."""

    replies: Sequence[Reply]
    codes: Sequence[str | None]
    """Of each image in turn; None where it is delivered."""
    calls: int


GOOD = gemini.drawn(gemini.image_bytes(1024, 1024))
REFUSED, FAILED, BUSY = gemini.blocked_prompt("SAFETY"), BY_NAME["502 of a gateway"].gemini, BY_NAME["503"].gemini
KEY_REFUSED = BY_NAME["401"].gemini
CASES = {
    "one fails": Case([GOOD, FAILED, GOOD], [None, "provider_failed", None], 3),
    "the first fails": Case([FAILED, GOOD, GOOD], ["provider_failed", None, None], 3),
    "all but one fail": Case([FAILED, FAILED, GOOD], ["provider_failed", "provider_failed", None], 3),
    "the repeats are spent": Case([BUSY, BUSY, BUSY, BUSY, GOOD], ["provider_unavailable"] * 2 + [None], 5),
    "the prompt is refused": Case([GOOD, REFUSED], [None, "content_policy_violation", "content_policy_violation"], 2),
    "the key is refused": Case([GOOD, KEY_REFUSED], [None, "provider_unavailable", "provider_unavailable"], 2),
}


async def ask(there: Painted, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    body = {"prompt": "A cute banana", "n": 3}
    return await there.client.post(ROUTE, json=body, headers={**there.key.headers, **(headers or {})})


def codes_of(answer: httpx2.Response) -> list[str | None]:
    """The code of each image in turn, as the answer says; None where it is delivered."""
    codes: list[str | None] = [None] * 3
    for error in answer.json().get("errors", []):
        assert set(error) == {"index", "code"}
        codes[error["index"]] = error["code"]
    assert len(answer.json()["data"]) == codes.count(None)
    return codes


async def check_delivered(
    there: Painted, database: asyncpg.Connection, answer: httpx2.Response, codes: Sequence[str | None]
) -> None:
    """Answer, rows, usage and lists agree: the images without a code are delivered, and no others."""
    assert (answer.status_code, codes_of(answer)) == (200, list(codes))
    rows = await database.fetch(ROWS, there.key.id)
    assert [(row["status"], row["error"], row["lease_until"]) for row in rows] == [
        ("delivered" if code is None else "failed", code, None) for code in codes
    ]
    delivered = [row["id"] for row in rows if row["status"] == "delivered"]
    assert [each["url"].rpartition("/")[2].removesuffix(".png") for each in answer.json()["data"]] == delivered
    listed = await there.client.get("/v1/generations", headers=there.key.headers)
    assert sorted(each["id"] for each in listed.json()) == delivered
    for row in rows:
        image = await there.client.get(f"/v1/images/{row['id']}.png")
        assert image.status_code == (200 if row["status"] == "delivered" else 404)
    first, *others = [
        (await there.client.get(f"/v1/generations/{row['id']}", headers=there.key.headers)).json() for row in rows
    ]
    assert [(each["status"], (each["error"] or {}).get("code")) for each in first["outputs"]] == [
        (row["status"], row["error"]) for row in rows
    ]
    assert [each["status"] for each in others] == [row["status"] for row in rows[1:]]
    assert await total(database, there.key) == len(delivered)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("short_pauses")
async def test_the_images_that_could_be_drawn_are_delivered_and_a_replay_says_the_same(
    start: Start, database: asyncpg.Connection, name: str
) -> None:
    case, once = CASES[name], {"Idempotency-Key": name.replace(" ", "-")}
    async with painted(start, **ONE_AFTER_ANOTHER) as there:
        there.provider.faults.extend(case.replies)
        answer = await ask(there, once)
        await check_delivered(there, database, answer, case.codes)
        assert len(there.provider.seen) == case.calls
        replay = await ask(there, once)
        assert (replay.content, replay.headers["idempotent-replayed"]) == (answer.content, "true")
        assert len(there.provider.seen) == case.calls
        await check_delivered(there, database, replay, case.codes)


async def test_at_the_deadline_the_images_that_are_there_are_delivered(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, generation_deadline_seconds=1) as there:
        there.provider.faults.extend([gemini.slow(asyncio.Event())] * 2)
        answer = await ask(there)
        codes = codes_of(answer)
        assert sorted(codes, key=str) == [None, "provider_timeout", "provider_timeout"]
        await check_delivered(there, database, answer, codes)


async def test_images_that_were_not_asked_for_before_the_deadline_fail_with_it(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, generation_deadline_seconds=1, **ONE_AFTER_ANOTHER) as there:
        there.provider.faults.extend([GOOD, gemini.slow(asyncio.Event())])
        await check_delivered(there, database, await ask(there), [None, "provider_timeout", "provider_timeout"])
        assert len(there.provider.seen) == 2


async def test_where_the_store_fails_what_it_has_is_delivered_and_no_further_image_is_bought(
    start: Start, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts, put = 0, FilesystemStore.put

    async def put_once(store: FilesystemStore, *arguments: Any) -> None:
        nonlocal puts
        puts += 1
        if puts > 1:
            raise StoreUnavailable
        await put(store, *arguments)

    async with painted(start, **ONE_AFTER_ANOTHER) as there:
        monkeypatch.setattr(FilesystemStore, "put", put_once)
        answer = await ask(there)
        await check_delivered(there, database, answer, [None, "unavailable", "unavailable"])
        assert len(there.provider.seen) == 2

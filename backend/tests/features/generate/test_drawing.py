"""Pictures that cost: drawn once, kept before they are delivered, counted only then."""

import asyncio
from io import BytesIO
from itertools import islice

import asyncpg
import httpx2
import pytest
from app.core.settings import Settings
from PIL import Image
from tests.conftest import Start
from tests.features.generate.painted import PROVIDER_KEY, painted
from tests.features.usage.recorded import total
from tests.harness import generate, looks, until_none_is_held
from tests.raw_http import JSON_TYPE, connected, head
from tests.standins import gemini

ONCE = {"Idempotency-Key": "once"}
LET_THE_LEASE_LAPSE = """
    update claims set lease_until = now() where generation_id in (select id from generations where key_id = $1)
"""


async def _ask(client: httpx2.AsyncClient, key: object, **headers: str) -> httpx2.Response:
    sent = {**getattr(key, "headers", {}), **headers}
    return await client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=sent)


async def _look(client: httpx2.AsyncClient, url: str, **headers: str) -> httpx2.Response:
    return await client.get(httpx2.URL(url).path, headers=headers)


async def test_a_live_key_gets_a_picture_of_the_provider_in_exactly_the_asked_size(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        answer = await generate(there.client, there.key, size="1536x1024")
        assert answer.status_code == 200, answer.text
        assert answer.json()["size"] == "1536x1024"
        shown = await _look(there.client, answer.json()["url"])
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
        assert shown.headers["x-content-type-options"] == "nosniff"
        with Image.open(BytesIO(shown.content)) as picture:
            assert (picture.format, picture.size) == ("PNG", (1536, 1024))
        [seen] = there.provider.seen
        assert PROVIDER_KEY not in seen.target
        assert await total(database, there.key) == 1


async def test_a_test_key_never_reaches_the_provider_and_takes_the_same_sizes(start: Start) -> None:
    async with painted(start) as there:
        key = await there.account.create_key(environment="test")
        answer = await generate(there.client, key, size="1536x1024")
        refused = await generate(there.client, key, size="100x100")
        assert (answer.status_code, refused.status_code) == (200, 422)
        with Image.open(BytesIO((await _look(there.client, answer.json()["url"])).content)) as picture:
            assert picture.size == (1536, 1024)
        assert there.provider.seen == []


async def test_a_provider_that_hangs_is_a_504_at_the_deadline_and_holds_no_connection(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, generation_deadline_seconds=1, database_pool_size=1) as there:
        gate = asyncio.Event()
        there.provider.faults.extend([gemini.slow(gate)] * 20)
        calls = [asyncio.create_task(generate(there.client, there.key)) for _ in range(20)]
        await there.asked(20)
        await until_none_is_held(database)
        other = await there.account.create_key(environment="test")
        assert (await generate(there.client, other)).status_code == 200
        answers = await asyncio.gather(*calls)
        assert {(each.status_code, each.json()["code"]) for each in answers} == {(504, "provider_timeout")}
        assert await total(database, there.key) == 0
        gate.set()


async def test_the_same_request_while_it_is_drawn_is_a_conflict_and_afterwards_a_replay(start: Start) -> None:
    async with painted(start) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        first = asyncio.create_task(_ask(there.client, there.key, **ONCE))
        await there.asked()
        meanwhile = [await _ask(there.client, there.key, **ONCE) for _ in range(3)]
        assert {(each.status_code, each.json()["code"]) for each in meanwhile} == {(409, "idempotency_key_in_use")}
        assert {each.headers["retry-after"] for each in meanwhile} == {"1"}
        gate.set()
        drawn, replay = await first, await _ask(there.client, there.key, **ONCE)
        assert replay.content == drawn.content
        assert replay.headers["idempotent-replayed"] == "true"


async def test_whoever_hangs_up_while_it_is_drawn_finds_the_picture_when_he_asks_again(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        body = b'{"prompt":"A cute banana"}'
        headers = [*there.key.headers.items(), *ONCE.items(), JSON_TYPE, ("Content-Length", str(len(body)))]
        async with connected(there.client) as (_, writer):
            writer.write(head("POST", "/v1/generate", headers) + body)
            await there.asked()
        assert (await _ask(there.client, there.key, **ONCE)).status_code == 409, "it is drawn on"
        gate.set()
        for _ in looks():
            again = await _ask(there.client, there.key, **ONCE)
            if again.status_code != 409:
                break
            await asyncio.sleep(0.01)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert (await _look(there.client, again.json()["url"])).status_code == 200
        assert await total(database, there.key) == 1


async def test_a_key_that_is_revoked_before_it_is_admitted_costs_nothing_and_one_that_is_drawn_for_is_counted(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        running = asyncio.create_task(generate(there.client, there.key))
        await there.asked()
        await there.account.revoke_key(there.key)
        assert (await generate(there.client, there.key)).status_code == 401
        assert len(there.provider.seen) == 1, "the cache still knows the key, the ledger does not"
        gate.set()
        assert (await running).status_code == 200
        assert await total(database, there.key) == 1


@pytest.mark.parametrize(
    ("headers", "status", "code"), [({}, 503, "unavailable"), (ONCE, 409, "idempotency_key_in_use")]
)
async def test_a_worker_that_has_lost_its_lease_throws_its_pictures_away(
    start: Start, settings: Settings, database: asyncpg.Connection, *, headers: dict[str, str], status: int, code: str
) -> None:
    async with painted(start) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        running = asyncio.create_task(_ask(there.client, there.key, **headers))
        await there.asked()
        lost = await database.fetchval(
            "update generations set status = 'lost' where key_id = $1 returning id", there.key.id
        )
        gate.set()
        answer = await running
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (status, code, "1")
        assert answer.headers["x-should-retry"] == "false", "it was drawn"
        assert list((settings.data_dir / "pictures").rglob(f"{lost}*")) == []
        assert await total(database, there.key) == 0


async def test_of_two_who_take_over_from_a_crash_one_draws_and_the_other_waits(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        first_gate, second_gate = asyncio.Event(), asyncio.Event()
        there.provider.faults.extend([gemini.slow(gate) for gate in (first_gate, second_gate)])
        late = asyncio.create_task(_ask(there.client, there.key, **ONCE))
        await there.asked()
        await database.execute(LET_THE_LEASE_LAPSE, there.key.id)
        calls = [asyncio.create_task(_ask(there.client, there.key, **ONCE)) for _ in range(5)]
        await there.asked(2)
        refused = [await each for each in islice(asyncio.as_completed(calls), 4)]
        assert {answer.status_code for answer in refused} == {409}
        first_gate.set()
        assert (await late).json()["code"] == "idempotency_key_in_use", "it came too late, and the other draws"
        second_gate.set()
        answers = await asyncio.gather(*calls)
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
        assert len(there.provider.seen) == 2
        assert await total(database, there.key) == 1


async def test_a_deleted_picture_is_gone_and_still_counted(start: Start, database: asyncpg.Connection) -> None:
    async with painted(start) as there:
        made = (await _ask(there.client, there.key, **ONCE)).json()
        path = f"/v1/generations/{made['id']}"
        stranger = await there.account.create_key(environment="test")
        assert (await there.client.delete(path, headers=stranger.headers)).status_code == 404
        deleted = [(await there.client.delete(path, headers=there.key.headers)).status_code for _ in range(2)]
        assert deleted == [204, 404]
        assert (await _look(there.client, made["url"])).status_code == 404
        assert (await there.client.get(path, headers=there.key.headers)).status_code == 404
        replay = await _ask(there.client, there.key, **ONCE)
        assert (replay.status_code, replay.json()["code"]) == (410, "image_deleted")
        assert await total(database, there.key) == 1


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_parts_of_a_picture_can_be_asked_for(start: Start, environment: str) -> None:
    async with painted(start) as there:
        key = await there.account.create_key(environment=environment)
        url = (await generate(there.client, key)).json()["url"]
        whole = (await _look(there.client, url)).content
        for asked, first, behind in (
            ("bytes=0-0", 0, 1),
            ("bytes=10-19", 10, 20),
            ("bytes=10-", 10, len(whole)),
            ("bytes=-7", len(whole) - 7, len(whole)),
            ("bytes=5-999999999", 5, len(whole)),
        ):
            part = await _look(there.client, url, Range=asked)
            assert (part.status_code, part.content) == (206, whole[first:behind]), asked
            assert part.headers["content-range"] == f"bytes {first}-{behind - 1}/{len(whole)}"
        for ignored in ("bytes=9-3", "bytes=0-1,3-4", "lines=1-2", "bytes=x-"):
            assert (await _look(there.client, url, Range=ignored)).content == whole
        behind_the_end = await _look(there.client, url, Range=f"bytes={len(whole)}-")
        assert (behind_the_end.status_code, behind_the_end.json()["code"]) == (416, "range_not_satisfiable")
        assert behind_the_end.headers["content-range"] == f"bytes */{len(whole)}"
        head = await there.client.head(httpx2.URL(url).path)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(whole)), b"")

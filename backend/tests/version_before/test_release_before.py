"""The migration of the catalogue: the release before it, which knows one model, records and settles on the newest
schema beside processes that write other models, and finds its own schema and all rows again after the way back.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.core.security import new_timed_id
from app.generations.ledger.statements import RECORD, SETTLE
from tests.harness import fresh_database
from tests.schema_dump import dump
from tests.version_before import statements_by_model as old
from tests.version_before.calls import create_key, register
from tests.version_before.history import connected, downgrade, stored, upgrade, upgrade_to_next
from tests.version_before.rows import Rows

ONE, ANOTHER = "nano-banana", "poster"
PRICE, COST = 50_000, 39_000
_COUNTS = "select model, pictures, list_amount, cost from usage where key_id = $1 order by model"


@pytest.fixture(scope="module")
def filled_url(server_url: str, version_before: tuple[str, Rows]) -> Iterator[str]:
    """A database with rows of every kind, on the schema of the release before."""
    with fresh_database(server_url, copy_of=version_before[0]) as url:
        upgrade_to_next(url)
        yield url


@pytest.fixture
def its_url(server_url: str, filled_url: str) -> Iterator[str]:
    """A copy of it."""
    with fresh_database(server_url, copy_of=filled_url) as url:
        yield url


@pytest.fixture
async def writer(its_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The connection of a ledger to it."""
    connection = await connect_for_writing(its_url)
    yield connection
    await connection.close()


async def record_as_before(database: asyncpg.Connection, key_id: str, *, is_drawn: bool = True) -> Sequence[Any]:
    """Records an image by the statement of the release before; its id and lease."""
    made, lease = new_timed_id("gen", now=time.time()), None if is_drawn else uuid4()
    words = ("64x64", "png", ONE, "stub" if is_drawn else "gemini")
    row = (made, made, key_id, "0", ["A cute banana"], *words, [lease], [None if is_drawn else 60.0], [None], [None])
    [answer] = await database.fetch(old.RECORD, *row)
    assert (answer["active"], answer["current"], answer["created_at"] is None) == (True, True, False)
    return made, lease


async def settle_as_before(database: asyncpg.Connection, key_id: str, made: str, lease: object) -> None:
    [answer] = await database.fetch(old.SETTLE, [made], [made], [key_id], [lease], [None], [None])
    assert answer["settled"]


async def deliver_of(database: asyncpg.Connection, key_id: str, model: str) -> str:
    """Records and settles an image of the model by this version's statements; its id."""
    made, lease = new_timed_id("gen", now=time.time()), uuid4()
    words = {"id": made, "request_id": made, "key_id": key_id, "revision": "0", "size": "64x64", "format": "png"}
    asked = {"model": model, "provider": "gemini", "quality": "high", "list_price": str(PRICE)}
    rest = {
        "prompt": ["A poster"],
        "extra": None,
        "lease": [lease],
        "lease_seconds": [60.0],
        "scope": [None],
        "fingerprint": [None],
    }
    await database.fetch(RECORD.text, *RECORD.arguments({**words, **asked, **rest}))
    drawn = {"route": f"{model}/1", "provider": "gemini", "tries": 2, "cost": COST, "provider_request_id": "req_1"}
    settled: Mapping[str, Any] = {
        **drawn,
        "id": made,
        "request_id": made,
        "key_id": key_id,
        "lease": lease,
        "error": None,
        "scope": None,
    }
    columns = {name: [value] for name, value in settled.items()}
    [answer] = await database.fetch(SETTLE.text, *SETTLE.arguments(columns))
    assert answer["settled"]
    return made


async def counts(database: asyncpg.Connection, key_id: str) -> Sequence[tuple[Any, ...]]:
    return [tuple(row) for row in await database.fetch(_COUNTS, key_id)]


def back(database_url: str) -> None:
    """Brings the database back to the schema of the release before."""
    downgrade(database_url, old.REVISION)


async def test_it_counts_its_model_while_new_processes_write_others_for_the_same_key_and_day(
    its_url: str, writer: asyncpg.Connection
) -> None:
    """On a connection whose statements were prepared before the migration, through the way back and forth."""
    key_id = await create_key(writer, await register(writer))
    counted, delivered = 0, 0
    for step in (None, upgrade, back, upgrade):
        if step is not None:
            await asyncio.to_thread(step, its_url)
        for _ in range(6):  # from the fifth time on, plans are kept
            await record_as_before(writer, key_id)
            made, lease = await record_as_before(writer, key_id, is_drawn=False)
            if step is upgrade:
                async with connected(its_url) as another:
                    await deliver_of(another, key_id, ANOTHER)
                delivered += 1
            await settle_as_before(writer, key_id, str(made), lease)
            counted += 2
        expected = [(ONE, counted, 0, 0), (ANOTHER, delivered, delivered * PRICE, delivered * COST)]
        assert await counts(writer, key_id) == [row for row in expected if row[1]]
    per_model = (
        "select model, count(*) from generations where key_id = $1 and status = 'delivered' group by 1 order by 1"
    )
    assert [tuple(row) for row in await writer.fetch(per_model, key_id)] == [(ONE, counted), (ANOTHER, delivered)]


def test_up_down_and_up_again_keeps_every_row_and_ends_with_the_schema_of_the_models(
    its_url: str, migrated_url: str
) -> None:
    schema, rows = dump(its_url), asyncio.run(stored(its_url))
    upgrade(its_url)
    newest = dump(its_url)
    assert newest == dump(migrated_url)
    migrated_rows = asyncio.run(stored(its_url))
    back(its_url)
    assert dump(its_url) == schema
    assert asyncio.run(stored(its_url)) == rows
    upgrade(its_url)
    assert dump(its_url) == newest
    assert asyncio.run(stored(its_url)) == migrated_rows


def test_the_way_back_keeps_the_counts_of_several_models_a_day(its_url: str) -> None:
    async def write() -> tuple[str, Sequence[tuple[Any, ...]]]:
        async with connected(its_url) as database:
            key_id = await create_key(database, await register(database))
            for model in (ONE, ANOTHER):
                await deliver_of(database, key_id, model)
            return key_id, await counts(database, key_id)

    async def go_on(key_id: str, before: Sequence[tuple[Any, ...]]) -> None:
        async with connected(its_url) as database:
            assert await counts(database, key_id) == before
            await record_as_before(database, key_id)
            (model, pictures, *amounts), other = before
            assert await counts(database, key_id) == [(model, pictures + 1, *amounts), other]

    upgrade(its_url)
    newest = dump(its_url)
    key_id, before = asyncio.run(write())
    assert before == [(ONE, 1, PRICE, COST), (ANOTHER, 1, PRICE, COST)]
    back(its_url)
    asyncio.run(go_on(key_id, before))
    upgrade(its_url)
    assert dump(its_url) == newest

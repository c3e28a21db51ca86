"""What the sweeper changes in generations is found without a look-up of partitions (decision 55)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from app.core.db import connect_for_writing
from sqlalchemy import Connection, Engine, event
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.generate.test_sweeper import AS_AFTER_A_CRASH, LONG_AGO
from tests.harness import generate, looks

_ERASE = "insert into erasures (account_id, lease_until) values ($1, now())"
_DONE = "select not exists (select from erasures) and not exists (select from generations where deleted_at is null)"


@contextmanager
def transactions() -> Iterator[list[list[str]]]:
    """The statements of each transaction of an engine that begins meanwhile."""
    all_, open_ = list[list[str]](), dict[int, list[str]]()

    def begin(connection: Connection) -> None:
        open_[id(connection)] = []
        all_.append(open_[id(connection)])

    def look(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        open_.get(id(connection), []).append(" ".join(statement.split()))

    event.listen(Engine, "begin", begin)
    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield all_
    finally:
        event.remove(Engine, "begin", begin)
        event.remove(Engine, "before_cursor_execute", look)


async def test_generations_are_marked_and_erased_without_a_look_up_of_partitions(
    start: Start, new_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.sweep._SWEEP_SECONDS", 0.1)
    database = await connect_for_writing(new_database_url)
    with transactions() as found:
        async with painted(start, database_url=new_database_url, data_dir=tmp_path) as there:
            await _sweep_and_erase(database, there)
    await database.close()
    changing = [each for each in found if any(" update generations " in f" {of.lower()} " for of in each)]
    assert len({each[-1] for each in changing}) >= 2, "the sweep's and the erasure's"
    assert {each[0] for each in changing} == {"set local enable_partition_pruning = off"}


async def _sweep_and_erase(database: asyncpg.Connection, there: Painted) -> None:
    failed, _ = [(await generate(there.client, there.key)).json()["id"] for _ in range(2)]
    await database.execute(AS_AFTER_A_CRASH, failed, "failed", LONG_AGO)
    await database.execute(_ERASE, there.account.account_id)
    for _ in looks():
        if await database.fetchval(_DONE):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("something is left")

"""The watch over the pools that is on in every test notices what it is there for."""

import asyncio

from app.core.db import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.pool_use import PoolUse


async def _use_one(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass


async def test_a_task_that_takes_a_second_connection_while_it_holds_one_is_noticed(
    database_url: str, pool_use: PoolUse
) -> None:
    engine = create_engine(database_url, pool_size=2)
    async with engine.connect():
        await _use_one(engine)
    [fault] = pool_use.take_faults()
    assert fault.startswith("a task that holds a connection takes a second one")
    await engine.dispose()


async def test_connections_of_two_tasks_and_of_one_task_in_turn_are_no_fault(
    database_url: str, pool_use: PoolUse
) -> None:
    engine = create_engine(database_url, pool_size=2)
    await asyncio.gather(_use_one(engine), _use_one(engine))
    await _use_one(engine)
    await _use_one(engine)
    assert pool_use.faults == []
    await engine.dispose()

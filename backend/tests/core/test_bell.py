"""The bell while its connection is away."""

import asyncpg
from app.core.bell import JOBS, Bell


async def refused() -> asyncpg.Connection:
    raise ConnectionRefusedError


async def test_what_is_to_be_rung_for_is_bounded_while_the_connection_is_away_and_jobs_are_never_left_out() -> None:
    bell = Bell(refused)
    for number in range(100_000):
        bell.ring(f"gen_{number:020}")
    bell.ring(JOBS)
    assert len(bell.unrung) < 20_000
    assert JOBS in bell.unrung

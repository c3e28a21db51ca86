"""What processes of the version before do, by their own statements."""

import time
from collections.abc import Sequence

import asyncpg
from app.core.security import new_id, new_timed_id
from tests.version_before import statements as old
from tests.version_before.rows import Person, digest


async def register(database: asyncpg.Connection) -> Person:
    person = Person()
    await database.fetchrow(old.REGISTER, person.id, person.email, "a hash")
    return person


async def create_key(database: asyncpg.Connection, person: Person, environment: str = "live") -> str:
    key_id = new_id("key")
    row = (key_id, person.id, "a key", environment, "nb_live_12345678", digest(key_id), None, None, None, None)
    await database.fetchrow(old.CREATE_KEY, *row)
    return key_id


async def record(
    database: asyncpg.Connection,
    key_id: str,
    *,
    status: str = "delivered",
    scope: bytes | None = None,
    lease: float | None = None,
    at: float | None = None,
    count: int = 1,
) -> Sequence[str]:
    """Records a request as the version before does, and returns the ids of its images."""
    made = [new_timed_id("gen", now=at or time.time()) for _ in range(count)]
    fingerprint = None if scope is None else digest("a request")
    rest = ("A cute banana", "64x64", "png", "stub", status, made[0], scope, fingerprint, lease)
    rows = [(each, key_id, *rest) for each in made]
    [answer] = await database.fetch(old.RECORD, *zip(*rows, strict=True))
    assert answer["active"]
    assert answer["created_at"] is not None
    return made

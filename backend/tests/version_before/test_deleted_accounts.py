"""Accounts that this version deleted, after the way back: the version before finds a user for each key that is left."""

import asyncio

from app.core.db import create_engine
from app.core.security import verify_password
from app.features.auth.deletion import delete_account
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.schema_dump import dump
from tests.version_before.calls import create_key, register
from tests.version_before.history import connected, downgrade, upgrade
from tests.version_before.rows import Person

_BEFORE = "7c1e94d0a5b3"


def test_keys_of_deleted_accounts_get_a_user_who_cannot_log_in(new_database_url: str) -> None:
    async def write() -> tuple[Person, str]:
        async with connected(new_database_url) as database:
            person = await register(database)
            key_id = await create_key(database, person)
        engine = create_engine(new_database_url, pool_size=1)
        async with async_sessionmaker(engine).begin() as session:
            assert await delete_account(session, owner=person.email) == person.account_id
        await engine.dispose()
        return person, key_id

    async def read() -> None:
        async with connected(new_database_url) as database:
            owner = "select u.* from users u join api_keys k on k.user_id = u.id where k.id = $1"
            user = await database.fetchrow(owner, key_id)
            assert user is not None
            assert (user["id"], user["is_active"], user["email"]) == (
                person.id,
                False,
                f"{person.id[4:]}@deleted.invalid",
            )
            assert verify_password("", user["password_hash"]) == (False, None)

    newest = dump(new_database_url)
    person, key_id = asyncio.run(write())
    downgrade(new_database_url, _BEFORE)
    asyncio.run(read())
    upgrade(new_database_url)
    assert dump(new_database_url) == newest

"""Browser sessions: stored as hashes, ended on the server, bounded for each account."""

import asyncio
from datetime import timedelta
from hashlib import sha256

import asyncpg
import pytest
from app.core.errors import Invalid
from app.features.auth import sessions
from app.features.auth.service import Accounts, InvalidCredentials, InvalidToken, WrongPassword, end_all_sessions
from app.features.auth.sessions import SESSIONS_MAX, OpenedSession
from app.models import User
from sqlalchemy import event
from tests.features.auth.conftest import HeldCheck
from tests.features.usage.recorded import until_waiting
from tests.harness import PASSWORD, Account, everything_stored, new_email

NEW = "a banana is a berry"
DAY_SECONDS = 86_400

NO_TOKENS = [
    "",
    "a",
    "a" * 42,
    "a" * 44,
    "a" * 43,
    f"{'a' * 42}=",
    f"{'a' * 42}\0",
    f"{'a' * 42}\u00e9",
    "\ud800" * 43,
    "'" * 43,
]


async def _open(accounts: Accounts, account: Account, password: str = PASSWORD) -> OpenedSession:
    return await sessions.open_session(accounts, email=account.email, password=password)


async def _find(accounts: Accounts, token: str) -> str | None:
    """The id of the account that a session's token authenticates."""
    async with accounts.sessions.begin() as session:
        user = await sessions.find_session_user(session, token=token)
    return user.id if user else None


async def _user(accounts: Accounts, token: str) -> User:
    async with accounts.sessions.begin() as session:
        user = await sessions.find_session_user(session, token=token)
    assert user is not None
    return user


async def _count(database: asyncpg.Connection, account: Account) -> int:
    count: int = await database.fetchval("select count(*) from browser_sessions where user_id = $1", account.id)
    return count


async def _fill(database: asyncpg.Connection, account: Account, count: int, *, expired: bool = False) -> None:
    """Inserts sessions that were opened an hour ago and earlier, the latest first."""
    await database.execute(
        """
        insert into browser_sessions (token_hash, user_id, created_at, expires_at)
        select sha256(convert_to($1 || n, 'UTF8')), $1, now() - n * interval '1 hour', now() + $3 * interval '1 second'
        from generate_series(1, $2) as n
        """,
        account.id,
        count,
        -1 if expired else 60,
    )


async def test_a_session_authenticates_its_own_account_until_it_is_ended(
    accounts: Accounts, account: Account, other_account: Account
) -> None:
    mine, theirs, other = [await _open(accounts, each) for each in (account, other_account, account)]
    assert (mine.user.id, mine.user.email, mine.expires_in) == (account.id, account.email, 14 * DAY_SECONDS)
    assert [await _find(accounts, each.token) for each in (mine, theirs)] == [account.id, other_account.id]
    for _ in range(2):  # ending it again is no error
        async with accounts.sessions.begin() as session:
            await sessions.end_session(session, token=mine.token)
    found = [await _find(accounts, each.token) for each in (mine, theirs, other)]
    assert found == [None, other_account.id, account.id]


async def test_tokens_are_43_random_characters_and_only_their_hashes_are_stored(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    tokens = [(await _open(accounts, account)).token for _ in range(3)]
    assert [len(token) for token in tokens] == [43] * 3
    assert len(set(tokens)) == 3
    stored = await database.fetch("select token_hash from browser_sessions where user_id = $1", account.id)
    assert {row["token_hash"] for row in stored} == {sha256(token.encode()).digest() for token in tokens}
    dump = await everything_stored(database)
    assert [token for token in tokens if token in dump] == []


@pytest.mark.parametrize("token", NO_TOKENS, ids=ascii)
async def test_any_other_text_than_a_token_neither_opens_nor_ends_a_session(
    accounts: Accounts, account: Account, token: str
) -> None:
    opened = await _open(accounts, account)
    assert await _find(accounts, token) is None
    async with accounts.sessions.begin() as session:
        await sessions.end_session(session, token=token)
    assert await _find(accounts, opened.token) == account.id


async def test_neither_the_stored_hash_nor_a_login_token_opens_a_session(accounts: Accounts, account: Account) -> None:
    token = (await _open(accounts, account)).token
    digest = sha256(token.encode())
    for other in (digest.hexdigest(), digest.hexdigest()[:43], account.token, token.swapcase(), f"{token} "):
        assert await _find(accounts, other) is None


async def test_a_session_expires_by_the_databases_clock_however_often_it_was_used(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    token = (await _open(accounts, account)).token
    assert await database.fetchval(
        "select expires_at - created_at from browser_sessions where user_id = $1", account.id
    ) == timedelta(days=14)
    used = await database.fetchval("select expires_at from browser_sessions where user_id = $1", account.id)
    assert await _find(accounts, token) == account.id
    assert await database.fetchval("select expires_at from browser_sessions where user_id = $1", account.id) == used
    await database.execute("update browser_sessions set expires_at = now() where user_id = $1", account.id)
    assert await _find(accounts, token) is None


async def test_a_disabled_accounts_session_is_refused_at_once_and_no_new_one_is_opened(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    token = (await _open(accounts, account)).token
    await database.execute("update users set is_active = false where id = $1", account.id)
    assert await _find(accounts, token) is None
    with pytest.raises(InvalidCredentials):
        await _open(accounts, account)
    await database.execute("update users set is_active = true where id = $1", account.id)
    assert await _find(accounts, token) == account.id


async def test_an_account_is_found_with_one_statement(accounts: Accounts, account: Account) -> None:
    token, statements = (await _open(accounts, account)).token, []
    engine = accounts.sessions.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", lambda *of: statements.append(of[2]))
    assert await _find(accounts, token) == account.id
    assert len(statements) == 1
    assert await _find(accounts, "no token") is None
    assert len(statements) == 1, "what is not shaped like a token is not looked up"


async def test_a_wrong_password_or_an_unknown_email_opens_no_session(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    for email, password in ((account.email, "a wrong guess"), (new_email(), PASSWORD)):
        with pytest.raises(InvalidCredentials):
            await sessions.open_session(accounts, email=email, password=password)
    assert await _count(database, account) == 0


async def test_one_session_over_the_maximum_ends_the_oldest(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    first, second = await _open(accounts, account), await _open(accounts, account)
    await _fill(database, account, SESSIONS_MAX - 2)  # all of them older
    await database.execute(
        "update browser_sessions set created_at = now() - interval '1 year' where token_hash = $1",
        sha256(first.token.encode()).digest(),
    )
    third = await _open(accounts, account)
    assert [await _find(accounts, each.token) for each in (first, second, third)] == [None, account.id, account.id]
    assert await _count(database, account) == SESSIONS_MAX


async def test_a_login_deletes_expired_sessions_of_its_own_account_only(
    accounts: Accounts, account: Account, other_account: Account, database: asyncpg.Connection
) -> None:
    await _fill(database, account, 5, expired=True)
    await _fill(database, other_account, 5)
    await _open(accounts, account)
    assert [await _count(database, each) for each in (account, other_account)] == [1, 5]


async def test_parallel_logins_leave_no_more_than_the_maximum_of_sessions(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    await _fill(database, account, SESSIONS_MAX)
    async with database.transaction():
        await database.execute("lock table browser_sessions in share mode")  # all have begun, and none has written
        opening = asyncio.gather(*(_open(accounts, account) for _ in range(4)))
        await until_waiting(database, 4)
    opened = await opening
    assert await _count(database, account) == SESSIONS_MAX
    assert [await _find(accounts, each.token) for each in opened] == [account.id] * 4


async def test_a_session_that_is_opened_while_all_are_being_ended_is_ended_too(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    async def end_all() -> None:
        async with accounts.sessions.begin() as session:
            await end_all_sessions(session, user_id=account.id)

    async with database.transaction():
        await database.execute("select from users where id = $1 for no key update", account.id)
        opening = asyncio.ensure_future(_open(accounts, account))
        await until_waiting(database, 1)
        ending = asyncio.ensure_future(end_all())
        await until_waiting(database, 2)
    opened, _ = await asyncio.gather(opening, ending)
    assert await _find(accounts, opened.token) is None
    assert await _count(database, account) == 0


async def test_no_session_is_opened_for_a_password_that_was_changed_while_it_was_checked(
    accounts: Accounts, account: Account, database: asyncpg.Connection, held_check: HeldCheck
) -> None:
    opening = asyncio.ensure_future(_open(accounts, account))
    await held_check.until_reached()
    change = {"current_password": PASSWORD, "new_password": NEW}
    changed = await account.client.post("/v1/auth/password", json=change, headers=account.headers)
    assert changed.status_code == 200
    held_check.free.set()
    with pytest.raises(InvalidCredentials):
        await opening
    assert await _count(database, account) == 0


async def test_a_change_of_password_in_a_browser_ends_all_sessions_but_its_new_one(
    accounts: Accounts, account: Account, database: asyncpg.Connection
) -> None:
    here, elsewhere = await _open(accounts, account), await _open(accounts, account)
    user = await _user(accounts, here.token)
    fresh = await sessions.change_password(accounts, user=user, current_password=PASSWORD, new_password=NEW)
    found = [await _find(accounts, each.token) for each in (here, elsewhere, fresh)]
    assert found == [None, None, account.id]
    assert await _count(database, account) == 1
    assert (await account.client.get("/v1/auth/me", headers=account.headers)).status_code == 401
    assert await _find(accounts, (await _open(accounts, account, NEW)).token) == account.id


async def test_of_two_parallel_changes_in_browsers_one_succeeds(accounts: Accounts, account: Account) -> None:
    user = await _user(accounts, (await _open(accounts, account)).token)
    first, second = await asyncio.gather(
        *(
            sessions.change_password(accounts, user=user, current_password=PASSWORD, new_password=f"{NEW} {n}")
            for n in range(2)
        ),
        return_exceptions=True,
    )
    assert {type(first), type(second)} == {OpenedSession, InvalidToken}


@pytest.mark.parametrize(("current", "new", "error"), [("wrong", NEW, WrongPassword), (PASSWORD, "short", Invalid)])
async def test_a_change_that_is_refused_ends_no_session(
    accounts: Accounts, account: Account, current: str, new: str, error: type[Invalid]
) -> None:
    token = (await _open(accounts, account)).token
    user = await _user(accounts, token)
    with pytest.raises(error):
        await sessions.change_password(accounts, user=user, current_password=current, new_password=new)
    assert await _find(accounts, token) == account.id

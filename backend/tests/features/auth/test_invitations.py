"""Who may sign up: everybody, whoever has an invitation, or nobody; in the API and the console alike."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from io import StringIO

import asyncpg
import httpx2
import pytest
from app.core.db import SessionMaker, create_engine
from app.core.settings import Settings
from app.features.auth import invitations
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.conftest import Start
from tests.console.browser import new_browser
from tests.harness import JSON, PASSWORD, Account, new_email, register, until_waited_for
from tests.problems import check_problem

CONSOLE = "http://console.test"


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[SessionMaker]:
    """Transactions of an operator's command."""
    assert settings.database_url is not None
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=2)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


async def invite(
    sessions: SessionMaker, *, email: str | None = None, days: int = 1, uses: int = 1
) -> invitations.CreatedInvitation:
    async with sessions.begin() as session:
        return await invitations.create(session, email=email, lifetime=timedelta(days=days), uses=uses)


async def _users(database: asyncpg.Connection, *emails: str) -> int:
    count: int = await database.fetchval("select count(*) from users where email = any($1)", emails)
    return count


async def test_closed_registration_lets_nobody_sign_up_and_shows_no_link_to_it(
    start: Start, sessions: SessionMaker, database: asyncpg.Connection
) -> None:
    client, email = await start(registration="closed", public_url=CONSOLE), new_email()
    token = (await invite(sessions)).token
    for fields in ({}, {"invitation": token}):
        check_problem(await register(client, email=email, **fields), 403, "registration_closed")
    async with new_browser(client) as browser:
        for path in ("/", "/log-in"):
            page = await browser.open(path)
            assert (page.status, page.all("a", href="/sign-up")) == (200, [])
        assert (await browser.open("/sign-up")).status == 403
        csrf_token = (await browser.open("/log-in")).form("/log-in").values["csrf_token"]
        sent = {"email": email, "password": PASSWORD, "csrf_token": csrf_token}
        refused = await browser.post("/sign-up", sent)
        assert (refused.status, refused.forms) == (403, [])
    assert await _users(database, email) == 0


async def test_an_invitation_lets_so_many_sign_up_and_says_why_it_lets_no_more(
    start: Start, sessions: SessionMaker, database: asyncpg.Connection, account: Account
) -> None:
    client, expected = await start(registration="invite"), new_email()

    async def refused(code: str, sentence: str, **fields: object) -> None:
        answers = [await register(client, email=email, **fields) for email in (new_email(), account.email)]
        for answer in answers:
            check_problem(answer, 403, code)
        told: list[JSON] = [{**answer.json(), "request_id": ""} for answer in answers]
        assert sentence in told[0]["detail"]
        assert told[0] == told[1], "whether there is an account with the email is not told"

    bound, twice, old, revoked = [
        await invite(sessions, **fields) for fields in ({"email": expected}, {"uses": 2}, {"days": -1}, {})
    ]
    async with sessions.begin() as session:
        assert await invitations.revoke(session, invitation_id=revoked.id)
    for sent in (None, ""):
        await refused("invitation_required", "needs an invitation", invitation=sent)
    for sent, sentence in (
        ("x", "no such invitation"),
        (f"{bound.token[:-1]}\u00e4", "no such invitation"),
        (bound.token, "another email"),
        (old.token, "has expired"),
        (revoked.token, "was revoked"),
    ):
        await refused("invitation_invalid", sentence, invitation=sent)
    assert (await register(client, email=expected.upper(), invitation=bound.token)).status_code == 201
    known = await register(client, email=account.email, invitation=twice.token)
    check_problem(known, 409, "email_already_registered")
    for status in (201, 201):
        assert (await register(client, invitation=twice.token)).status_code == status
    await refused("invitation_invalid", "was used already", invitation=twice.token)
    uses = await database.fetch("select uses from invitations where id = any($1) order by uses", [bound.id, twice.id])
    assert [use for (use,) in uses] == [1, 2], "a sign-up that failed gave its use back"


async def test_of_two_who_sign_up_at_once_with_one_use_one_gets_it(
    start: Start, sessions: SessionMaker, database: asyncpg.Connection
) -> None:
    client, invitation, emails = await start(registration="invite"), await invite(sessions), [new_email(), new_email()]
    async with database.transaction():  # both are behind the check, before either has used it
        await database.execute("select from invitations where id = $1 for no key update", invitation.id)
        both = [asyncio.create_task(register(client, email=each, invitation=invitation.token)) for each in emails]
        await until_waited_for(database)
        await asyncio.wait(both, timeout=0.1)
        assert not any(each.done() for each in both)
    answers = [await each for each in both]
    assert sorted(each.status_code for each in answers) == [201, 403]
    assert await _users(database, *emails) == 1


async def test_the_console_signs_up_with_the_link_of_an_invitation_and_sends_it_nowhere_else(
    start: Start, sessions: SessionMaker, log: StringIO
) -> None:
    client, token = await start(registration="invite", public_url=CONSOLE), (await invite(sessions)).token
    async with new_browser(client) as browser:
        plain = await browser.open("/sign-up")
        assert plain.form("/sign-up").values["invitation"] == ""
        refused = await browser.submit(plain, "/sign-up", email=new_email(), password=PASSWORD)
        assert (refused.status, "needs an invitation" in refused.text("p", role="alert")) == (403, True)
        page = await browser.open(f"/sign-up?invitation={token}")
        assert page.response.headers["referrer-policy"] == "strict-origin"
        assert [each for each in page.all("a") if token in each.attributes["href"]] == []
        wrong = await browser.submit(page, "/sign-up", email="nobody", password=PASSWORD)
        assert (wrong.status, wrong.form("/sign-up").values["invitation"]) == (422, token)
        signed_up = await browser.submit(wrong, "/sign-up", email=new_email(), password=PASSWORD)
        assert (signed_up.status, signed_up.path) == (200, "/playground")
    assert log.getvalue().count('"route": "/sign-up"') >= 4
    assert token not in log.getvalue()


async def test_open_registration_asks_no_invitation_and_uses_none_up(
    client: httpx2.AsyncClient, sessions: SessionMaker, database: asyncpg.Connection
) -> None:
    invitation = await invite(sessions)
    for sent in (invitation.token, "x", None):
        assert (await register(client, invitation=sent)).status_code == 201
    assert await database.fetchval("select uses from invitations where id = $1", invitation.id) == 0

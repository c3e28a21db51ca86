"""What an account can leave behind by creating keys and revoking them is bounded, and so are images of test keys."""

from datetime import timedelta

import asyncpg
from tests.conftest import Start
from tests.console.browser import Browser
from tests.features.usage.recorded import total
from tests.harness import Account, Clock, generate, new_email, sign_up
from tests.problems import check_problem

OLD, RECENT = timedelta(hours=2), timedelta(minutes=30)


async def test_keys_that_are_created_and_revoked_in_a_loop_are_limited(
    start: Start, limit_clock: Clock, account: Account
) -> None:
    client = await start(create_key_limit_per_account="3/hour")
    here, other = Account(client, account.id, account.email, account.token), await sign_up(client)
    for _ in range(3):
        await here.revoke_key(await here.create_key())
    refused = await client.post("/v1/keys", json={"name": "a"}, headers=here.headers)
    check_problem(refused, 429, "rate_limit_exceeded")
    assert (refused.headers["retry-after"], refused.headers["ratelimit"]) == ("1200", '"create-key";r=0;t=3600')
    await other.create_key()
    limit_clock.now += 1200
    await here.create_key()


async def test_keys_of_the_console_take_from_the_same_limit(start: Start) -> None:
    client = await start(public_url="http://console.test", create_key_limit_per_account="1/hour")
    browser = Browser(client)
    await browser.sign_up(email=new_email())
    keys, playground = await browser.open("/keys"), await browser.open("/playground")
    assert (await browser.submit(keys, "/keys", name="a key", environment="live")).status == 200
    again = await browser.submit(keys, "/keys", name="another key", environment="live")
    assert again.status == 429
    assert (await browser.submit(playground, "/playground/first-key")).status == 429


_REVOKED = """
    insert into api_keys
      (id, user_id, account_id, name, environment, prefix, key_hash, created_at, revoked_at, last_used_at)
    select 'key_' || md5($3 || n || $1), $1, $2, $3, 'live', 'nb_live_', sha256(($3 || n || $1)::bytea),
      now() - $5::interval, now() - $5::interval, case when $6 then now() end
    from generate_series(1, $4) n
"""


async def _add_revoked(
    database: asyncpg.Connection, account: Account, name: str, count: int, *, ago: timedelta, used: bool = False
) -> None:
    await database.execute(_REVOKED, account.id, account.account_id, name, count, ago, used)


async def test_keys_that_were_revoked_unused_are_forgotten_but_the_newest(
    start: Start, database: asyncpg.Connection, account: Account
) -> None:
    client = await start(keys_per_account_max=5)
    here = Account(client, account.id, account.email, account.token)
    await _add_revoked(database, account, "old", 20, ago=OLD)
    await _add_revoked(database, account, "recent", 7, ago=RECENT)
    await _add_revoked(database, account, "used", 7, ago=OLD, used=True)
    await _add_revoked(database, account, "counted", 1, ago=10 * OLD)
    counted = "insert into usage (key_id, day, pictures) select id, '2026-11-01', 1 from api_keys where name = $1"
    await database.execute(f"{counted} and account_id = $2", "counted", account.account_id)
    await here.create_key(name="new")
    left = "select name, count(*) from api_keys where account_id = $1 group by 1"
    found = {row["name"]: row["count"] for row in await database.fetch(left, account.account_id)}
    assert found == {"old": 5, "recent": 7, "used": 7, "counted": 1, "new": 1}


async def test_test_keys_of_an_account_share_a_limit_that_live_keys_do_not_take_from(
    start: Start, database: asyncpg.Connection, account: Account
) -> None:
    client = await start(test_generate_limit_per_account="3/day")
    test_keys = [await account.create_key(environment="test") for _ in range(2)]
    live = await account.create_key()
    answers = [await generate(client, test_keys[turn % 2]) for turn in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert '"account-test";r=0;t=86400' in answers[2].headers["ratelimit"]
    assert (await generate(client, live)).status_code == 200
    assert sum([await total(database, key) for key in test_keys]) == 3

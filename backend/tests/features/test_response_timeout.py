"""A request that is not answered in time is a 504 in the format of its path. What may be paid goes on and is delivered;
of anything else nothing is left.
"""

import asyncio
import json
from io import StringIO

import asyncpg
import httpx2
from tests.conftest import Start
from tests.console.browser import Browser
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import Key, looks, new_email, register, until_waited_for
from tests.problems import check_problem
from tests.standins import gemini

OPENAI = "/v1/images/generations"
MEDIA_TYPES = ["application/problem+json", "application/json", "text/html"]
ONCE = {"Idempotency-Key": "once"}
DELIVERED = "select count(*) from generations where key_id = any($1) and status = 'delivered'"
WAITING = "select count(*) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"


async def test_paid_work_goes_on_behind_a_504_is_delivered_and_a_retry_gets_it(
    start: Start, database: asyncpg.Connection, time_is_up: asyncio.Event
) -> None:
    async with painted(start, public_url="http://console.test") as there:
        gate, browser = asyncio.Event(), Browser(there.client)
        await browser.sign_up()
        console_key, raw = await browser.create_key()
        page, keys = await browser.open("/playground"), [there.key, Key(console_key, raw)]
        there.provider.faults.extend([gemini.slow(gate)] * 3)

        async def ask(path: str) -> httpx2.Response:
            return await there.client.post(path, json={"prompt": "A banana"}, headers={**there.key.headers, **ONCE})

        async def submit() -> httpx2.Response:
            return (await browser.submit(page, "/playground", prompt="A banana", size="1024x1024")).response

        asked = [asyncio.ensure_future(each) for each in (ask("/v1/generate"), ask(OPENAI), submit())]
        await there.asked(3)
        time_is_up.set()
        answers = await asyncio.gather(*asked)
        assert [each.headers["content-type"].partition(";")[0] for each in answers] == MEDIA_TYPES
        for answer in answers:
            check_problem(answer, 504, "response_timeout")
            assert (answer.headers["x-should-retry"], answer.headers["connection"]) == ("false", "close")
        time_is_up.clear()
        assert [await total(database, key) for key in keys] == [0, 0]
        gate.set()
        for _ in looks():
            if await database.fetchval(DELIVERED, [key.id for key in keys]) == 3:
                break
            await asyncio.sleep(0.01)
        again = await ask("/v1/generate")
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert (await there.client.get(httpx2.URL(again.json()["url"]).path)).status_code == 200
        assert [await total(database, key) for key in keys] == [2, 1]
        assert len(there.provider.seen) == 3


async def test_nothing_is_left_of_other_work_and_the_line_in_the_log_says_what_its_client_was_answered(
    start: Start, database: asyncpg.Connection, time_is_up: asyncio.Event, log: StringIO
) -> None:
    client, email = await start(), new_email()
    await database.execute("begin")
    await database.execute("insert into users (id, email, password_hash) values ($1, $1, '')", email)
    asked = asyncio.create_task(register(client, email=email))
    await until_waited_for(database)
    time_is_up.set()
    answer = await asked
    check_problem(answer, 504, "response_timeout")
    for _ in looks():
        await database.execute("select pg_stat_clear_snapshot()")
        if await database.fetchval(WAITING) == 0:
            break
        await asyncio.sleep(0.01)
    await database.execute("rollback")
    assert await database.fetchval("select count(*) from users where email = $1", email) == 0
    lines = [json.loads(each) for each in log.getvalue().splitlines()]
    of_request = [each for each in lines if each.get("request_id") == answer.headers["x-request-id"]]
    events = [(each["event"], each.get("status")) for each in of_request]
    assert {("response_timeout", None), ("request", 504)} <= set(events), events

"""A caller who does not wait gets a 202 once the request is on disk, and finds what became of it under its id."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta

import asyncpg
import httpx2
import pytest
from app.generations.ledger.statements import SWEEP_JOBS
from tests.features.jobs.application import ASYNC, BODIES, BODY, EDITS, IMAGE, NATIVE, OPENAI, WAITING_MAX, Jobs
from tests.harness import JSON, generate, sign_up
from tests.problems import check_problem
from tests.raw_http import connected, post_of
from tests.standins.openai import failed, in_place

AS_MEMBER: JSON = {"headers": {}, "async": True}
SPELLINGS: dict[str, JSON] = {"the header": {}, "the body": AS_MEMBER}
REFUSED = failed(400, "moderation_blocked")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("route", BODIES)
async def test_a_request_is_accepted_at_once_and_delivered_later(jobs: Jobs, route: str, spelling: str) -> None:
    gate = jobs.hold()
    accepted = await jobs.ask(route, **SPELLINGS[spelling])
    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async"), accepted.text
    told: JSON = accepted.json()
    path = accepted.headers["location"]
    assert path == f"/v1/generations/{told['id']}"
    is_queued = told["status"] == "queued"  # a worker may have taken it by now
    assert (told["url"], told["position"], told["error"]) == (None, 1 if is_queued else None, None)
    assert told["outputs"] == [{"id": told["id"], "url": None, "status": told["status"], "error": None}]
    drawing = await jobs.until(path, "processing")
    assert set(drawing) == set(told)
    assert (await jobs.show(f"/v1/images/{told['id']}.png")).status_code == 404
    gate.set()
    shown = await jobs.until(path, "delivered")
    assert (shown["position"], shown["error"]) == (None, None)
    assert shown["outputs"] == [{"id": told["id"], "url": shown["url"], "status": "delivered", "error": None}]
    assert shown["created_at"] <= shown["started_at"] <= shown["delivered_at"] <= shown["expires_at"]
    assert (await jobs.client.get(httpx2.URL(shown["url"]).path)).content == IMAGE


FREE: Mapping[str, tuple[str, JSON]] = {
    "one image": (NATIVE, {"size": "1536x1024"}),
    "three images": (OPENAI, {"n": 3}),
}


@pytest.mark.parametrize("name", FREE)
async def test_what_costs_nothing_is_delivered_with_its_acceptance(jobs: Jobs, name: str) -> None:
    route, asked = FREE[name]
    test_key = await jobs.account.create_key(environment="test")
    accepted = await jobs.client.post(route, json={**BODY, **asked, "async": True}, headers=test_key.headers)
    assert (accepted.status_code, accepted.json()["status"]) == (202, "delivered"), accepted.text
    assert len(accepted.json()["outputs"]) == asked.get("n", 1)
    assert accepted.json() == (await jobs.show(accepted.headers["location"], key=test_key)).json()


@pytest.mark.parametrize("route", [NATIVE, OPENAI])
async def test_who_waits_for_what_costs_nothing_gets_what_a_synchronous_call_gets(jobs: Jobs, route: str) -> None:
    test_key = await jobs.account.create_key(environment="test")
    synchronous = await jobs.client.post(route, json=BODY, headers=test_key.headers)
    waited = await jobs.client.post(route, json=BODY, headers={**test_key.headers, "Prefer": "wait=5"})
    assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=5")
    assert set(waited.json()) == set(synchronous.json())
    assert "idempotent-replayed" not in waited.headers


@pytest.mark.parametrize("route", [NATIVE, OPENAI])
async def test_who_waits_gets_what_a_synchronous_call_gets(jobs: Jobs, route: str) -> None:
    jobs.provider.faults.extend([in_place(IMAGE), in_place(IMAGE), REFUSED, REFUSED])
    synchronous, waited = (
        await jobs.ask(route, headers={}),
        await jobs.ask(route, headers={"Prefer": "foo=bar, wait=60"}),
    )
    assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=60")
    assert set(waited.json()) == set(synchronous.json())
    errors = [
        await jobs.ask(route, headers={}),
        await jobs.ask(route, headers={"Prefer": 'respond-async; x, WAIT="60"'}),
    ]
    for each in errors:
        check_problem(each, 400, "content_policy_violation")
        assert each.headers["x-should-retry"] == "false"


async def test_who_waits_too_short_a_time_gets_a_202(jobs: Jobs) -> None:
    jobs.hold()
    answer = await jobs.ask(headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")


async def test_a_request_waits_as_long_as_it_says(jobs: Jobs, jobs_database: asyncpg.Connection) -> None:
    await jobs.fill()
    waiting = (await jobs.ask(expires_in=60)).json()
    lifetime = datetime.fromisoformat(waiting["expires_at"]) - datetime.fromisoformat(waiting["created_at"])
    assert lifetime == timedelta(seconds=60)
    of_it = "update generations set lease_until = now() - interval '1 second', expires_at = now() where id = $1"
    await jobs_database.execute(of_it, waiting["id"])
    await jobs_database.fetch(SWEEP_JOBS.text, *SWEEP_JOBS.arguments({"attempts_max": 3}))
    shown = (await jobs.show(f"/v1/generations/{waiting['id']}")).json()
    assert (shown["status"], shown["error"]["code"], shown["error"]["status"]) == ("cancelled", "expired", 504)


async def test_what_waits_is_cancelled_and_what_was_sent_is_not(jobs: Jobs) -> None:
    [sent, *_] = await jobs.fill()
    waiting = await jobs.accepted()
    for _ in range(2):  # the answer of the first may have been lost
        cancelled = await jobs.client.post(f"{waiting}/cancel", headers=jobs.key.headers)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        assert cancelled.json()["error"]["code"] == "cancelled"
    check_problem(await jobs.client.post(f"{sent}/cancel", headers=jobs.key.headers), 409, "not_cancellable")


async def test_what_has_ended_without_an_image_is_deleted_with_its_prompt_and_what_has_not_ended_is_a_409(
    jobs: Jobs, jobs_database: asyncpg.Connection
) -> None:
    stored = "select prompt, inputs::text, deleted_at is not null from generations where id = $1"
    jobs.provider.faults.append(REFUSED)
    failed = await jobs.accepted(EDITS)
    await jobs.until(failed, "failed")
    [sent, *_] = await jobs.fill()
    waiting = await jobs.accepted()
    for path in (sent, waiting):
        refused = await jobs.client.delete(path, headers=jobs.key.headers)
        check_problem(refused, 409, "generation_not_ended")
        assert refused.json()["detail"] == "The generation has not ended: cancel it, or wait for its end"
    await jobs.client.post(f"{waiting}/cancel", headers=jobs.key.headers)
    other = await (await sign_up(jobs.client)).create_key()
    for path, status in ((failed, "failed"), (waiting, "cancelled")):
        check_problem(await jobs.client.delete(path, headers=other.headers), 404, "generation_not_found")
        for _ in range(2):
            assert (await jobs.client.delete(path, headers=jobs.key.headers)).status_code == 204
        shown = (await jobs.show(path)).json()
        assert (shown["status"], shown["prompt"], shown["images"]) == (status, "", None)
        row = await jobs_database.fetchrow(stored, shown["id"])
        assert tuple(row or ()) == ("", None, True)


async def test_no_more_wait_than_may(jobs: Jobs) -> None:
    await jobs.fill()
    places = [(await jobs.ask()).json()["position"] for _ in range(WAITING_MAX)]
    assert places == sorted(places)
    check_problem(await jobs.ask(), 429, "queue_full")


@pytest.mark.parametrize("route", [NATIVE, OPENAI])
async def test_one_idempotency_key_is_one_generation_however_it_is_asked_for(jobs: Jobs, route: str) -> None:
    gate = jobs.hold()
    synchronously = {"Idempotency-Key": "once"}
    asynchronously = {**synchronously, **ASYNC}
    first = await jobs.ask(route, headers=asynchronously)
    for headers in (asynchronously, synchronously):
        again = await jobs.ask(route, headers=headers)
        assert (again.status_code, again.headers["location"]) == (202, first.headers["location"])
    gate.set()
    shown = await jobs.until(first.headers["location"], "delivered")
    delivered, replay = [await jobs.ask(route, headers=each) for each in (synchronously, asynchronously)]
    assert [each.headers["idempotent-replayed"] for each in (delivered, replay)] == ["true", "true"]
    assert (delivered.status_code, shown["url"] in delivered.text) == (200, True)
    assert (replay.status_code, replay.json()) == (202, shown)


async def test_each_image_of_a_request_has_a_state_of_its_own(jobs: Jobs) -> None:
    jobs.provider.faults.extend([REFUSED, in_place(IMAGE), in_place(IMAGE)])
    path = await jobs.accepted(route=OPENAI, n=3)
    shown = await jobs.until(path, "delivered")
    by_status = {each["status"]: each for each in shown["outputs"]}
    assert set(by_status) == {"delivered", "failed"}
    assert shown["url"] == next(each["url"] for each in shown["outputs"] if each["url"])
    lost = (await jobs.show(f"/v1/generations/{by_status['failed']['id']}")).json()
    if lost["id"] != shown["id"]:
        assert (lost["status"], lost["outputs"]) == ("failed", [by_status["failed"]])
    problem = by_status["failed"]["error"]
    assert set(problem) == {"type", "title", "status", "code", "detail"}
    assert (problem["status"], problem["code"]) == (400, "content_policy_violation")


async def test_a_synchronous_caller_who_leaves_finds_the_generation(jobs: Jobs) -> None:
    gate = jobs.hold()
    request = post_of(NATIVE, json.dumps(BODY).encode(), jobs.key.headers.items())
    async with connected(jobs.client) as (_, writer):
        writer.write(request)
        await jobs.asked()
    [found] = (await jobs.show("/v1/generations?status=processing")).json()
    assert (found["status"], found["url"], found["expires_at"]) == ("processing", None, None)
    gate.set()
    shown = await jobs.until(f"/v1/generations/{found['id']}", "delivered")
    assert [shown["id"]] == [each["id"] for each in (await jobs.show("/v1/generations")).json()]


async def test_another_environment_of_the_account_finds_nothing(jobs: Jobs) -> None:
    path, other = await jobs.accepted(), await jobs.account.create_key(environment="test")
    for each in (path, f"{path}?wait=60", f"{path}/events"):
        check_problem(await jobs.show(each, key=other), 404, "generation_not_found")
    check_problem(await jobs.client.post(f"{path}/cancel", headers=other.headers), 404, "generation_not_found")


WRONG: dict[str, tuple[JSON, str]] = {
    "async is no boolean": ({"async": "yes"}, "boolean"),
    "too short": ({"async": True, "expires_in": 0}, "greater than or equal to 1"),
    "too long": ({"async": True, "expires_in": 72_001}, "less than or equal to 72000"),
    "an unknown class": ({"async": True, "class": "soon"}, "'now' or 'batch'"),
    "a class of a synchronous one": ({"class": "batch"}, "Needs async"),
    "an expiry of a synchronous one": ({"async": False, "expires_in": 60}, "Needs async"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("route", [NATIVE, OPENAI])
async def test_wrong_terms_are_refused_in_words(jobs: Jobs, route: str, wrong: str) -> None:
    body, sentence = WRONG[wrong]
    answer = await jobs.ask(route, headers={}, **body)
    assert (answer.status_code, sentence in answer.text) == (422, True), answer.text


async def test_wrong_preferences_and_queries_are_refused_in_words(jobs: Jobs) -> None:
    for wait in ("0", "61", "1.5", "soon", ""):
        check_problem(await jobs.ask(headers={"Prefer": f"wait={wait}"}), 400, "invalid_request")
    path = await jobs.accepted()
    for query in ("wait=0", "wait=61", "wait=soon", "wait=1&wait=2", "until=2"):
        assert (await jobs.show(f"{path}?{query}")).status_code == 422
    for status in ("", "done", "queued,", "queued,done"):
        refused = await jobs.show(f"/v1/generations?status={status}")
        assert (refused.status_code, "must be some of" in refused.text.lower()) == (422, True)
    stream = await jobs.ask(OPENAI, stream=True)
    assert (stream.status_code, stream.json()["error"]["param"]) == (422, "stream")


async def test_an_asynchronous_request_takes_no_slot_and_its_units(
    jobs: Jobs, jobs_database: asyncpg.Connection
) -> None:
    one = "update api_keys set generate_concurrency = 1 where id = $1"
    await jobs_database.execute(one, jobs.key.id)
    gate = jobs.hold()
    synchronous = asyncio.create_task(generate(jobs.client, jobs.key))
    await jobs.asked()
    accepted = await jobs.ask()
    assert (accepted.status_code, "ratelimit" in accepted.headers) == (202, True)
    check_problem(await jobs.ask(**AS_MEMBER), 429, "concurrency_limit_exceeded")
    gate.set()
    assert (await synchronous).status_code == 200


@pytest.mark.parametrize("prefer", ["respond-async", "wait=5"])
async def test_a_request_that_is_on_disk_is_not_said_to_be_refused(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, prefer: str
) -> None:
    async def find(*_arguments: object, **_named: object) -> None:
        raise ConnectionResetError

    for name in ("find", "of_queued"):
        monkeypatch.setattr(f"app.features.generate.asynchronous.state.{name}", find)
    answer = await jobs.ask(headers={"Prefer": prefer})
    check_problem(answer, 503, "outcome_unknown")
    assert answer.headers["x-should-retry"] == "false", "without a key it would be a second generation"

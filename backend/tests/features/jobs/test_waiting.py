"""Callers who wait for a change hold nothing that others need, are few enough, and are answered when it comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import httpx2
import pytest
from app.core.settings import Settings
from app.generations.jobs.waiting import RETRY_SECONDS
from pydantic import SecretStr
from tests.features.jobs.application import ASYNC, BODY, NATIVE, WAITING_CALLERS_PER_ACCOUNT, Jobs
from tests.harness import JSON, generate, looks, running, sign_up
from tests.problems import check_problem
from tests.raw_http import connected, head


async def events_of(answer: httpx2.Response) -> AsyncIterator[dict[str, str]]:
    """The events of a stream, each with its fields by name; comments are left out."""
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, separator, value = line.partition(": ")
        if separator and name:
            event[name] = value
        elif not line and event:
            yield event
            event = {}


async def served(call: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
    """The answer to a call that is sent again and again while the process has no slot for it."""
    for _ in looks():
        answer = await call()
        if answer.status_code != 503:
            return answer
    raise AssertionError("there is no slot")


async def until_full(jobs: Jobs, path: str) -> None:
    """Returns once nobody else may wait."""
    for _ in looks():
        async with jobs.client.stream("GET", f"{path}/events", headers=jobs.key.headers) as answer:
            if answer.headers.get("retry-after") == str(RETRY_SECONDS):  # for want of a slot it is 1
                await answer.aread()
                check_problem(answer, 503, "overloaded")
                return
    raise AssertionError("more may wait")


async def test_those_who_wait_are_answered_at_the_next_change_and_hold_no_slot_meanwhile(jobs: Jobs) -> None:
    gate = jobs.hold()
    path = await jobs.accepted()
    await jobs.asked()
    show = partial(jobs.show, f"{path}?wait=60")
    waiting = [asyncio.create_task(served(show)) for _ in range(WAITING_CALLERS_PER_ACCOUNT)]
    await until_full(jobs, path)
    accepted = await served(partial(jobs.ask, headers={"Prefer": "wait=60"}))
    assert accepted.status_code == 202, "it is on disk, though its caller cannot wait"
    gate.set()
    for each in waiting:
        assert ((await each).status_code, (await each).json()["status"]) == (200, "delivered")
    ended = await jobs.show(f"{path}?wait=60")
    assert ended.json()["status"] == "delivered"


async def test_callers_of_one_account_leave_room_for_those_of_others(jobs: Jobs) -> None:
    jobs.hold()
    path = await jobs.accepted()
    await jobs.asked()
    show = partial(jobs.show, f"{path}?wait=60")
    waiting = [asyncio.create_task(served(show)) for _ in range(WAITING_CALLERS_PER_ACCOUNT)]
    await until_full(jobs, path)
    stranger = await sign_up(jobs.client)
    other = replace(jobs, account=stranger, key=await stranger.create_key())
    jobs.hold()
    theirs = await other.accepted()
    await jobs.asked()
    theirs_shown = asyncio.create_task(served(partial(other.show, f"{theirs}?wait=60")))
    await until_full(jobs, path)
    jobs.let_draw()
    for each in (*waiting, theirs_shown):
        assert ((await each).status_code, (await each).json()["status"]) == (200, "delivered")


async def test_who_waits_is_not_late(jobs: Jobs, time_is_up: asyncio.Event) -> None:
    jobs.hold()
    path = await jobs.accepted()
    await jobs.asked()
    show = partial(jobs.show, f"{path}?wait=60")
    waiting = [asyncio.create_task(served(show)) for _ in range(WAITING_CALLERS_PER_ACCOUNT)]
    await until_full(jobs, path)
    jobs.hold()
    synchronous = asyncio.create_task(served(partial(generate, jobs.client, jobs.key)))
    await jobs.asked()
    time_is_up.set()
    check_problem(await synchronous, 504, "response_timeout")
    assert [each.done() for each in waiting] == [False] * WAITING_CALLERS_PER_ACCOUNT
    time_is_up.clear()
    jobs.let_draw()
    assert [(await each).json()["status"] for each in waiting] == ["delivered"] * WAITING_CALLERS_PER_ACCOUNT


@pytest.mark.parametrize("query", ["?wait=60", "/events"])
async def test_who_hangs_up_waits_no_more(jobs: Jobs, query: str) -> None:
    jobs.hold()
    path = await jobs.accepted()
    await jobs.asked()
    async with AsyncExitStack() as stack:
        for _ in range(WAITING_CALLERS_PER_ACCOUNT):
            _, writer = await stack.enter_async_context(connected(jobs.client))
            writer.write(head("GET", f"{path}{query}", jobs.key.headers.items()))
            await served(partial(jobs.show, path))  # it has its slot, and goes on to wait
        await until_full(jobs, path)
    for _ in looks():
        if (await jobs.show(f"{path}?wait=1")).status_code == 200:
            return
    raise AssertionError("those who have hung up still wait")


async def test_who_waits_under_a_key_that_is_revoked_meanwhile_learns_nothing_more(jobs: Jobs) -> None:
    gate = jobs.hold()
    path, key = await jobs.accepted(), await jobs.account.create_key()
    await jobs.asked()
    async with jobs.client.stream("GET", f"{path}/events", headers=key.headers) as stream:
        events = events_of(stream)
        assert (await anext(events))["event"] == "status"
        show = partial(jobs.show, f"{path}?wait=60", key=key)
        waiting = [asyncio.create_task(served(show)) for _ in range(WAITING_CALLERS_PER_ACCOUNT - 1)]
        await until_full(jobs, path)
        await jobs.account.revoke_key(key)
        gate.set()
        assert [event async for event in events] == []
    for each in waiting:
        check_problem(await each, 401, "invalid_api_key")
    assert (await jobs.show(f"{path}?wait=60")).json()["status"] == "delivered", "other keys of the account go on"


async def test_events_tell_each_status_until_the_last(jobs: Jobs) -> None:
    await jobs.fill()
    path = await jobs.accepted()
    async with jobs.client.stream("GET", f"{path}/events", headers=jobs.key.headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = []
        async for event in events_of(answer):
            events.append(event)
            jobs.let_draw()
    told: list[JSON] = [json.loads(each["data"]) for each in events]
    assert [each["event"] for each in events] == ["status"] * len(events)
    assert (told[0]["status"], told[-1]["status"]) == ("queued", "delivered")
    assert [each["id"] for each in events] == sorted({each["id"] for each in events})
    assert told[-1] == (await jobs.show(path)).json()

    async def again(event: dict[str, str]) -> httpx2.Response:
        headers = {**jobs.key.headers, "Last-Event-ID": event["id"]}
        return await jobs.client.get(f"{path}/events", headers=headers)

    assert (await again(events[-1])).status_code == 204
    assert (await again(events[0])).text.count("event: status") == 1


async def test_who_waits_is_answered_when_the_process_stops(settings: Settings) -> None:
    named = {"image_provider": "openai", "openai_api_key": SecretStr("key"), "openai_base_url": "http://127.0.0.1:9/v1"}
    async with AsyncExitStack() as server:
        client = await server.enter_async_context(running(Settings(**{**settings.model_dump(), **named})))
        key = await (await sign_up(client)).create_key()
        async with httpx2.AsyncClient(base_url=client.base_url, timeout=30, headers=key.headers) as caller:
            path = (await caller.post(NATIVE, json=BODY, headers=ASYNC)).headers["location"]
            waiting = asyncio.create_task(caller.get(f"{path}?wait=60"))
            preferring = asyncio.create_task(caller.post(NATIVE, json=BODY, headers={"Prefer": "wait=60"}))
            async with caller.stream("GET", f"{path}/events") as stream:
                events = events_of(stream)
                assert (await anext(events))["event"] == "status"
                for _ in looks():
                    if len((await caller.get("/v1/generations?status=queued")).json()) > 1:
                        break
                await server.aclose()
                assert [event async for event in events] == []
            assert ((await waiting).status_code, (await waiting).json()["status"]) == (200, "queued")
            assert ((await preferring).status_code, (await preferring).json()["status"]) == (202, "queued")

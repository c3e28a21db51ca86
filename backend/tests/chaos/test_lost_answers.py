"""Connections that break around a commit: the caller is told the truth, or that nobody knows it."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Serve
from tests.chaos.ground import Ground
from tests.chaos.load import Call, Line
from tests.chaos.proxy import Ambush, Point, Proxy
from tests.chaos.schedule import times
from tests.chaos.verify import violations
from tests.harness import PATIENCE_SECONDS, Key, sign_up


@pytest.fixture
async def line(ground: Ground, journal: list[Call]) -> AsyncIterator[Line]:
    """A line to one of the workers."""
    line = Line(ground.fleet.port, journal)
    yield line
    line.close()


@pytest.fixture
async def key(ground: Ground, line: Line) -> Key:
    """A key that the line's worker knows."""
    [key] = await ground.keys(1)
    assert (await line.ask(key, "known")).outcome == "ok"
    return key


async def sprung(ambush: Ambush) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await ambush.sprung.wait()


async def rows(cluster: Cluster, prompt: str, key: Key) -> list[str]:
    connection = await cluster.connect()
    found = await connection.fetch("select id from generations where key_id = $1 and prompt = $2", key.id, prompt)
    await connection.close()
    return [row["id"] for row in found]


async def cut_once(fleet: Fleet, proxy: Proxy, cluster: Cluster, point: Point, journal: list[Call]) -> None:
    """One call, whose first connection is cut."""
    line = Line(fleet.port, journal)
    async with httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client:
        key = await (await sign_up(client)).create_key()
    ambush = proxy.ambush(point)
    asked = asyncio.create_task(line.ask(key, "cut"))
    await sprung(ambush)
    assert len(await rows(cluster, "cut", key)) == (1 if point == "answer" else 0)
    assert not asked.done(), "told before it was certain"
    ambush.cut.set()
    await asked
    line.close()


@pytest.mark.parametrize("point", ["request", "answer"])
async def test_a_connection_cut_around_the_commit_is_a_200_that_counts_once(
    ground: Ground, journal: list[Call], point: Point
) -> None:
    for _ in range(times(short=3, long=30)):
        await cut_once(ground.fleet, ground.proxy, ground.cluster, point, journal)
    assert {call.status for call in journal} == {200}
    assert await violations(ground.cluster, journal) == []


@pytest.mark.parametrize("mutant", ["lost-is-refused", "missing-is-revoked"])
async def test_a_writer_that_takes_doubt_for_a_refusal_is_caught(
    cluster: Cluster, proxy: Proxy, serve: Serve, journal: list[Call], mutant: str
) -> None:
    program = ("-m", "tests.chaos.mutants", mutant, "serve")
    async with serve(program=program, workers=1) as fleet:
        await cut_once(fleet, proxy, cluster, "answer", journal)
    assert any("a refused call is in the ledger" in each for each in await violations(cluster, journal))


@pytest.mark.parametrize("point", ["request", "answer"])
async def test_a_database_away_past_the_deadline_is_an_unknown_outcome_that_a_retry_settles(
    ground: Ground, line: Line, key: Key, journal: list[Call], point: Point
) -> None:
    ambush = ground.proxy.ambush(point)
    asked = asyncio.create_task(line.ask(key, "kept away", idempotency_key="kept-away"))
    await sprung(ambush)
    written = await rows(ground.cluster, "kept away", key)
    ground.proxy.refuse()
    ambush.cut.set()
    assert ((await asked).status, (await asked).code) == (503, "outcome_unknown")
    ground.proxy.open()
    retry = await line.ask(key, "kept away", idempotency_key="kept-away")
    assert (retry.status, retry.replayed) == (200, point == "answer")
    assert [retry.id] == await rows(ground.cluster, "kept away", key)
    assert point == "request" or written == [retry.id]
    assert await violations(ground.cluster, journal) == []


async def test_a_call_told_unavailable_before_it_was_sent_is_never_recorded(
    ground: Ground, line: Line, key: Key, journal: list[Call]
) -> None:
    before = ground.fleet.connections_to(ground.proxy.port)
    ground.proxy.stall()
    ground.proxy.cut()
    await ground.fleet.have_left(before)
    call = await line.ask(key, "never sent")
    assert (call.status, call.code) == (503, "unavailable")
    ground.proxy.open()
    assert (await line.ask(key, "behind it")).outcome == "ok"
    assert await violations(ground.cluster, journal) == []


async def test_a_worker_killed_between_commit_and_answer_costs_nothing_on_retry(
    ground: Ground, line: Line, key: Key, journal: list[Call]
) -> None:
    ambush = ground.proxy.ambush("answer")
    asked = asyncio.create_task(line.ask(key, "killed", idempotency_key="killed"))
    await sprung(ambush)
    ground.fleet.kill(ground.fleet.owner_of(ambush.client_port))
    ambush.cut.set()
    assert (await asked).outcome == "unknown"
    retry = await line.ask(key, "killed", idempotency_key="killed")
    assert (retry.status, retry.replayed) == (200, True)
    assert await violations(ground.cluster, journal) == []


async def test_a_revocation_between_commit_and_resend_does_not_unsay_a_picture(
    ground: Ground, line: Line, key: Key, journal: list[Call]
) -> None:
    ambush = ground.proxy.ambush("answer")
    asked = asyncio.create_task(line.ask(key, "before the revocation"))
    await sprung(ambush)
    await ground.account.revoke_key(key)
    ambush.cut.set()
    assert (await asked).status == 200
    assert (await line.ask(key, "after the revocation")).status == 401
    assert await violations(ground.cluster, journal) == []

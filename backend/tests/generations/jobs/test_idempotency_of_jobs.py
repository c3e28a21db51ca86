"""One Idempotency-Key, synchronous and asynchronous, in every order and at the same time: one generation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from app.core.db import connect_for_writing
from app.generations import accept, replay, service
from app.generations.errors import AcceptedBefore, IdempotencyKeyInUse
from app.generations.jobs.accept import accept_job
from app.generations.jobs.job import Accepted, JobTerms, options_of
from app.generations.ledger import Ledger
from app.generations.ledger.queue import (
    ImageEnd,
    Lease,
    PendingRecord,
    PendingSettlement,
    Queueing,
    Recorded,
)
from app.generations.ledger.writer import Writer
from app.generations.spec import Delivered, GenerationSpec
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.jobs.scene import Scene

ROUTE, ONCE = "/v1/generate", "once"
SPEC = GenerationSpec("A cute banana", "1024x1024", count=3)


_REQUESTS = "select distinct request_id from generations"


def new_request(scene: Scene, *, is_job: bool) -> PendingRecord:
    """The request, to be recorded with its Idempotency-Key."""
    claim = accept.claim_of(scene.caller, SPEC, route=ROUTE, idempotency_key=ONCE)
    plan = scene.generations.catalogue.plan(None, SPEC.size, "auto", "auto", "live")
    options = options_of(SPEC, may_pay_twice=False, claim=claim) if is_job else None
    now = scene.generations.clock()
    record = accept.new_record(scene.caller, SPEC, plan, claim=claim, now=now, price=0, options=options)
    if is_job:
        record.queueing = Queueing("now", 60)
    else:
        record.lease = Lease(uuid4(), 60)
    return record


async def end(scene: Scene, record: PendingRecord, state: str) -> None:
    """Brings the request, which was recorded, into this state."""
    settled = {"delivered": {}, "delivered in part": {record.ids[0]: FAILED}, "a day ago": {}}
    settled["failed"] = dict.fromkeys(record.ids, FAILED)
    if state in settled or state in {"processing", "lost"}:
        recorded = record if record.queueing is None else (await scene.take()).record
        if state in settled:
            await scene.generations.ledger.settle(PendingSettlement(recorded=recorded, ends=settled[state]))
    if state == "cancelled":
        await scene.generations.ledger.query("cancel_job", request_id=record.id, error="cancelled")
    if state in {"lost", "lapsed"}:
        await scene.database.execute("update generations set sent_at = now(), lease_until = now() - interval '1 s'")
    if state == "lost":
        await scene.generations.ledger.query("sweep_jobs", attempts_max=3)
    if state == "a day ago":
        await scene.database.execute("update claims set created_at = now() - interval '25 hours'")


FAILED = ImageEnd("provider_failed")
FREE, IN_USE, UNFINISHED, DELIVERED, IN_PART = "free", "in use", "unfinished", "delivered", "delivered in part"

TABLE: Mapping[tuple[bool, str], tuple[str, str]] = {
    (False, "processing"): (IN_USE, UNFINISHED),
    (False, "delivered"): (DELIVERED, DELIVERED),
    (False, "delivered in part"): (IN_PART, IN_PART),
    (False, "failed"): (FREE, FREE),
    (False, "lapsed"): (FREE, FREE),
    (False, "a day ago"): (FREE, FREE),
    (True, "queued"): (UNFINISHED, UNFINISHED),
    (True, "processing"): (UNFINISHED, UNFINISHED),
    (True, "lapsed"): (UNFINISHED, UNFINISHED),
    (True, "delivered"): (DELIVERED, DELIVERED),
    (True, "delivered in part"): (IN_PART, IN_PART),
    (True, "failed"): (FREE, FREE),
    (True, "lost"): (FREE, FREE),
    (True, "cancelled"): (FREE, FREE),
    (True, "a day ago"): (FREE, FREE),
}
"""Whether the first request was a job, and what became of it: what the two kinds of repetitions find."""


async def found(first: PendingRecord, look: Awaitable[Recorded | None]) -> str:
    """What a repetition of the first request finds, in the words of the table."""
    try:
        recorded = await look
    except IdempotencyKeyInUse:
        return IN_USE
    if recorded is None or not recorded.is_replay:
        return FREE
    if recorded.is_unfinished:
        assert recorded.ids == first.ids
        return UNFINISHED
    assert recorded.ids in (first.ids, first.ids[1:])
    return DELIVERED if recorded.ids == first.ids else IN_PART


@pytest.mark.parametrize("is_job", [False, True], ids=["asked synchronously", "asked asynchronously"])
async def test_a_repetition_finds_the_first_request_whichever_way_both_were_asked(
    scene: Scene, *, is_job: bool
) -> None:
    """Before it records, and by recording."""
    generations = scene.generations
    for (first_is_job, state), expected in TABLE.items():
        first = new_request(scene, is_job=first_is_job)
        await generations.ledger.record(first)
        await end(scene, first, state)
        second = new_request(scene, is_job=is_job)
        assert second.claim is not None
        look = replay.find(generations, second.claim, scene.caller, is_asynchronous=is_job)
        assert await found(first, look) == expected[is_job], (first_is_job, state)
        assert await found(first, generations.ledger.record(second)) == expected[is_job], (first_is_job, state)
        assert await wrong_lanes(scene.database) == []
        await scene.database.execute("truncate generations, claims, lanes, lane_keys")


@asynccontextmanager
async def another_process(scene: Scene, url: str) -> AsyncIterator[Scene]:
    """The same deployment, with a ledger of its own."""
    ledger = Ledger(Writer(partial(connect_for_writing, url)), queue_max=100, deadline_seconds=60)
    ledger.open()
    yield replace(scene, generations=replace(scene.generations, ledger=ledger))
    await ledger.close()


async def test_calls_of_both_kinds_at_the_same_time_make_one_generation(
    scene: Scene, own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one process and on two; each has looked for the other before it was there."""

    async def find_nothing(*_arguments: object, **_named: object) -> None:
        return None

    monkeypatch.setattr(replay, "find", find_nothing)
    async with another_process(scene, own_database_url) as other:
        made: set[str] = set()
        for number in range(8):
            first, second = scene.generations, (other if number % 2 else scene).generations
            keyed: dict[str, Any] = {"caller": scene.caller, "spec": replace(SPEC, count=1), "route": ROUTE}
            keyed["idempotency_key"] = f"once {number}"
            calls: list[Awaitable[Delivered | Accepted]] = [
                service.generate(first, **keyed),
                accept_job(second, **keyed, terms=JobTerms("now", 60 + number)),
                accept_job(first, **keyed, terms=JobTerms("batch", 90)),
            ]
            results = await asyncio.gather(*calls[number % 3 :], *calls[: number % 3], return_exceptions=True)
            ids = {named_by(each) for each in results}
            assert len(ids) == 1
            made.update(ids)
        assert {request_id for (request_id,) in await scene.database.fetch(_REQUESTS)} == made
    assert await wrong_lanes(scene.database) == []


def named_by(result: object) -> str:
    """The generation that a caller was given."""
    if isinstance(result, Delivered):
        return result.ids[0]
    if isinstance(result, AcceptedBefore):
        return result.generation_id
    assert isinstance(result, Accepted), result
    return result.id

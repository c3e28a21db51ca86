"""A worker is given what was asked for, and settles what was recorded."""

import json
from dataclasses import replace

import asyncpg
import pytest
from app.generations.jobs.job import options_of
from app.generations.ledger.queue import IdempotencyClaim, PendingRecord
from app.generations.spec import GenerationSpec
from tests.generations.races import rows
from tests.harness import Key

CLAIM = IdempotencyClaim(bytes(range(32)), [bytes(32), bytes([1] * 32)])


@pytest.mark.parametrize("claim", [None, CLAIM], ids=["without a claim", "with a claim"])
@pytest.mark.parametrize(
    "spec",
    [
        GenerationSpec("A cute banana", "64x64", model="nano-banana"),
        GenerationSpec(
            "A 'cute' banana\n☃",
            "64x64",
            format="webp",
            count=3,
            model="nano-banana",
            quality="high",
            background="transparent",
            compression=0,
            images=["upl_a", "gen_b"],
            mask="upl_c",
            first_frame=True,
        ),
    ],
    ids=["the least", "everything"],
)
async def test_what_is_taken_is_what_was_recorded(
    database: asyncpg.Connection, key: Key, spec: GenerationSpec, claim: IdempotencyClaim | None
) -> None:
    record = record_of(key, spec, claim)
    await rows.recorded(database, record)
    [job] = await rows.taken(database)
    assert replace(job.spec, images=tuple(job.spec.images)) == replace(spec, images=tuple(spec.images))
    assert (job.id, job.ids, job.key_id, job.job_class, job.attempts) == (record.id, record.ids, key.id, "now", 1)
    assert job.record.scope == record.scope
    assert job.record.queueing is not None
    assert job.record.lease == job.lease
    await rows.settle(job).run(database)
    claimed = await database.fetch("select scope, generation_id, other_ids, fingerprint from claims")
    expected = [(CLAIM.scope, job.id, list(job.ids[1:]) or None, CLAIM.fingerprints[0])] if claim else []
    assert [tuple(each) for each in claimed] == expected


def record_of(key: Key, spec: GenerationSpec, claim: IdempotencyClaim | None) -> PendingRecord:
    """What is recorded of this request."""
    record = rows.new_claimed_job(key, images=spec.count)
    inputs = [{"id": each, "sha256": ""} for each in spec.images]
    if spec.mask is not None:
        inputs.append({"id": str(spec.mask), "sha256": "", "role": "mask"})
    options = {"job": 1, **options_of(spec, may_pay_twice=True, claim=claim)}
    record.extra = json.dumps({"options": options} | ({"inputs": inputs} if inputs else {}))
    record.prompt, record.format, record.quality, record.claim = spec.prompt, spec.format, spec.quality, claim
    return record

"""Accepting a job: once it is on disk it is delivered, or its caller is told why not."""

from functools import partial

from app.core.bell import JOBS
from app.generations import accept, inputs, replay, run
from app.generations.collaborators import Generations
from app.generations.errors import OutcomeUnknown
from app.generations.inputs import NO_INPUTS, Inputs
from app.generations.jobs.job import Accepted, JobTerms, Queued, options_of
from app.generations.ledger.queue import OnHeld, PendingRecord, Queueing, Recorded
from app.generations.rehearsal import rehearsed
from app.generations.service import delivered_now, find_plan, plan_with_images
from app.generations.spec import Caller, GenerationSpec, input_ids


async def accept_job(
    generations: Generations,
    *,
    caller: Caller,
    spec: GenerationSpec,
    route: str,
    terms: JobTerms,
    idempotency_key: str | None = None,
    on_held: OnHeld | None = None,
) -> Accepted:
    """The request, on disk, to be drawn by a worker. What the stub draws for nothing is delivered with that. Any other
    holds its price, which calls `on_held`, until it has ended.

    The images that go in are kept until it has ended, unless their account deletes them. With an idempotency key that
    was used for the same request before: that one, finished or not, whichever way it was asked for.

    Raises QueueFull where the account has as many images waiting as it may have, and besides what
    `generations.service.generate` raises until a provider is asked.
    """
    claim = accept.claim_of(caller, spec, route=route, idempotency_key=idempotency_key)
    if claim is not None and (earlier := await replay.find(generations, claim, caller, is_asynchronous=True)):
        return Accepted(earlier.ids[0], is_replay=True)
    sources = NO_INPUTS
    if spec.images:
        spec, plan, sources, _ = await plan_with_images(generations, caller, spec)
    else:
        plan = find_plan(generations, caller, spec)
    if caller.environment == "test":
        plan = rehearsed(generations, plan, spec.prompt)
    now, price = generations.clock(), generations.price_of(plan)
    new_record = partial(accept.new_record, caller, spec, plan, claim=claim, now=now, price=price)
    if plan.is_free and price == 0:
        record = new_record(inputs=sources.recorded)
        made = await run.record_delivered(generations, plan, record, spec, as_bytes=False)
        made_now = None if made.recorded.is_replay else delivered_now(generations, spec, plan, made, sources)
        return Accepted(made.recorded.ids[0], made.recorded.is_replay, made_now)
    sources = await inputs.keep_until(generations, caller, sources, seconds=terms.expires_seconds)
    options = options_of(spec, may_pay_twice=plan.model.may_pay_twice, claim=claim)
    record = new_record(inputs=sources.recorded, options=options)
    return await _queue(generations, record, sources, terms, on_held)


async def _queue(
    generations: Generations, record: PendingRecord, sources: Inputs, terms: JobTerms, on_held: OnHeld | None
) -> Accepted:
    """Records the request as one that waits for a worker, and wakes the workers."""
    record.queueing = Queueing(terms.job_class, terms.expires_seconds)
    recorded = await _record(generations, record, sources)
    if recorded.left is not None and on_held is not None:
        on_held(recorded.left)
    generations.bell.ring(JOBS)
    queued = Queued(record, terms, recorded.created_at, input_ids(sources.recorded))
    return Accepted(recorded.ids[0], recorded.is_replay, queued=None if recorded.is_replay else queued)


async def _record(generations: Generations, record: PendingRecord, sources: Inputs) -> Recorded:
    """What `Ledger.record` says. What was kept for the request is deleted where it certainly was not recorded."""
    try:
        recorded = await generations.ledger.record(record)
    except OutcomeUnknown:
        raise
    except Exception:
        await inputs.delete_kept(generations, sources.recorded)
        raise
    if recorded.is_replay:
        await inputs.delete_kept(generations, sources.recorded)
    return recorded

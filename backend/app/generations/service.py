"""The call that makes images, from acceptance to delivery."""

import asyncio
from dataclasses import replace
from typing import NamedTuple

from app.catalogue.opened import REFUSALS
from app.catalogue.routing import Plan
from app.generations import accept, replay, run
from app.generations.collaborators import Generations
from app.generations.inputs import NO_INPUTS, Inputs, resolve
from app.generations.ledger.queue import IdempotencyClaim, OnHeld
from app.generations.rehearsal import rehearsed
from app.generations.spec import Caller, Delivered, GenerationSpec
from app.providers import DrawRequest, OnPartial, Size


class Watch(NamedTuple):
    """A caller who wants to see up to `partials` sketches of an image while it is drawn."""

    partials: int
    on_partial: OnPartial


async def generate(
    generations: Generations,
    *,
    caller: Caller,
    spec: GenerationSpec,
    route: str,
    idempotency_key: str | None = None,
    watch: Watch | None = None,
    on_held: OnHeld | None = None,
) -> Delivered:
    """Delivered images, recorded and counted, both on disk before this returns. Where some of several images fail, the
    others are delivered, and `errors` has the codes; where all fail, the first error is raised.

    What the stub draws is a function of what is recorded, and is drawn for each client that looks at it. Any other
    provider draws now: the key is checked in the database before, the images are kept before they are delivered, and no
    connection is held meanwhile. What has a price is held before anything is drawn, which calls `on_held`, and charged
    for the images that are delivered.

    With an idempotency key that the account used within a day for the same request on the same `route` in the same
    environment: the images that were delivered then, the errors of the others, and nothing is counted; also where the
    catalogue has changed since, or what went in is gone. Raises what `OpenCatalogue.plan` raises, for images that go in
    what `inputs.resolve` raises, ImageDeleted for a replay whose image was deleted, and what `Ledger.record` and
    `Provider.draw` raise.
    """
    claim = accept.claim_of(caller, spec, route=route, idempotency_key=idempotency_key)
    inputs, deadline = NO_INPUTS, None
    if spec.images:
        # Looked up first: what goes in may be gone when the request is repeated.
        if (replayed := await _find_replay(generations, claim, caller, spec)) is not None:
            return replayed
        spec, plan, inputs, deadline = await plan_with_images(generations, caller, spec)
    else:
        try:
            plan = find_plan(generations, caller, spec)
        except REFUSALS:
            if (replayed := await _find_replay(generations, claim, caller, spec)) is None:
                raise
            return replayed
    if caller.environment == "test":
        plan = rehearsed(generations, plan, spec.prompt)
    now, price = generations.clock(), generations.price_of(plan)
    record = accept.new_record(caller, spec, plan, claim=claim, now=now, price=price, inputs=inputs.recorded)
    if plan.is_free and price == 0:
        made = await run.record_delivered(generations, plan, record, spec, as_bytes=spec.as_bytes or watch is not None)
    else:
        plan = plan.in_turn(record.id if claim is None else claim.scope.hex())
        request = draw_request(spec, plan, watch, inputs)
        made = await run.record_and_draw(
            generations, plan, record, spec, request, account_id=caller.account_id, deadline=deadline, on_held=on_held
        )
    if made.recorded.is_replay:
        return await replay.delivered(generations, spec, made.recorded)
    return delivered_now(generations, spec, plan, made, inputs)


async def _find_replay(
    generations: Generations, claim: IdempotencyClaim | None, caller: Caller, spec: GenerationSpec
) -> Delivered | None:
    """What the same request delivered before; None without a claim, or where nothing has it."""
    recorded = claim and await replay.find(generations, claim, caller)
    return recorded and await replay.delivered(generations, spec, recorded)


class PlanWithImages(NamedTuple):
    """What a request with images comes to."""

    spec: GenerationSpec
    """The request, with the plan's size."""
    plan: Plan
    inputs: Inputs
    deadline: float
    """When it must be drawn, by the event loop's clock: reading its images takes a part of the time."""


async def plan_with_images(generations: Generations, caller: Caller, spec: GenerationSpec) -> PlanWithImages:
    """What the request comes to, and its images. What no route can draw is refused before an image is read; then the
    first image may decide about the size.
    """
    deadline = asyncio.get_running_loop().time() + generations.lifetime.drawing_seconds
    find_plan(generations, caller, spec)
    inputs = await resolve(generations, caller=caller, spec=spec, deadline=deadline)
    plan = find_plan(generations, caller, spec, shape=inputs.images[0].size)
    return PlanWithImages(replace(spec, size=str(plan.size)), plan, inputs, deadline)


def find_plan(generations: Generations, caller: Caller, spec: GenerationSpec, *, shape: Size | None = None) -> Plan:
    """What the request comes to for this caller, where the first image that goes in has this shape. Raises what
    `OpenCatalogue.plan` raises.
    """
    return generations.catalogue.plan(
        spec.model,
        spec.size,
        spec.quality,
        spec.background,
        caller.environment,
        among=caller.models,
        references=len(spec.images),
        has_mask=spec.mask is not None,
        shape=shape,
    )


def draw_request(spec: GenerationSpec, plan: Plan, watch: Watch | None, inputs: Inputs) -> DrawRequest:
    return DrawRequest(
        spec.prompt,
        plan.size,
        plan.quality,
        background=spec.background,
        format=spec.format,
        compression=spec.compression,
        model=plan.model.name,
        on_partial=watch.on_partial if watch else None,
        partials=watch.partials if watch else 0,
        images=inputs.images,
        mask=inputs.mask,
    )


def delivered_now(
    generations: Generations, spec: GenerationSpec, plan: Plan, made: run.Made, inputs: Inputs
) -> Delivered:
    """What the caller of a request is given that is no replay."""
    recorded, contents, errors = made
    urls = [generations.url(each, spec.format) for each in recorded.ids]
    return Delivered(
        recorded.ids,
        urls,
        spec.format,
        spec.prompt,
        plan.model.name,
        spec.size,
        plan.quality,
        plan.list_price,
        recorded.created_at,
        recorded.is_replay,
        contents,
        errors,
        inputs.ids,
    )

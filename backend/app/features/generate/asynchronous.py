"""Generations whose callers do not wait for them in the request, or no longer than they say."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import Request, Response

from app.core.errors import InternalError, Overloaded
from app.features.admission import Admission
from app.features.dependencies import generations_with_urls_of, services_of
from app.features.generate.schemas import GenerationShown
from app.features.keys.dependencies import fetch_caller
from app.features.terms import Terms
from app.generations import replay
from app.generations.collaborators import Generations
from app.generations.jobs import state
from app.generations.jobs.job import Accepted
from app.generations.jobs.state import GenerationState
from app.generations.jobs.waiting import WaitingCaller
from app.generations.ledger.queue import Recorded
from app.generations.spec import Caller, Delivered, GenerationSpec
from app.web.disconnect import cancelled_on_disconnect
from app.web.fast_route import PreparedJSON
from app.web.headers import add_response_headers
from app.web.state import request_state

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": GenerationShown, "description": "The request is on disk, and is drawn later."}
}
"""The response of an asynchronous request, for OpenAPI."""


async def generate_asynchronously(
    request: Request, admission: Admission, spec: GenerationSpec, *, route: str, terms: Terms
) -> Delivered | Response:
    """A 202 with the request, which is on disk; or what was delivered, where its caller waits and it ends in that time.

    Raises what `Admission.accept` raises, OutcomeUnknown where the database is away once it is on disk, and the
    error of one that ends in time without an image.
    """
    admission.leave_slots()
    accepted = await admission.accept(spec, route=route, terms=terms.job)
    if accepted.delivered is not None:
        found = state.of_delivered(services_of(request).generations, admission.caller, accepted.delivered)
    else:
        with admission.looked_up():
            found = await _looked_up(request, admission.caller, accepted, terms.wait_seconds)
    request_state(request.scope)["model"] = found.model
    if terms.wait_seconds is None or not found.has_ended:
        return _accepted(found)
    add_response_headers(request, {b"preference-applied": f"wait={terms.wait_seconds}".encode()})
    return accepted.delivered or await _delivered(generations_with_urls_of(request), spec, found)


async def accepted_response(request: Request, caller: Caller, generation_id: str) -> Response:
    """The 202 of a request that is on disk."""
    found = await find(request, caller, generation_id)
    request_state(request.scope)["model"] = found.model
    return _accepted(found)


async def _looked_up(request: Request, caller: Caller, accepted: Accepted, wait_seconds: int | None) -> GenerationState:
    """The request as it was recorded; for a caller who waits, as it is once it has ended, or after so many seconds."""
    if accepted.queued is not None and wait_seconds is None:
        return await state.of_queued(generations_with_urls_of(request), caller, accepted.queued)
    found = await find(request, caller, accepted.id)  # a worker may have taken it meanwhile
    return found if wait_seconds is None else await _until_ended(request, caller, found, seconds=wait_seconds)


async def find(request: Request, caller: Caller, generation_id: str) -> GenerationState:
    """One generation of the caller's account and environment. Raises GenerationNotFound."""
    return await state.find(
        generations_with_urls_of(request),
        account_id=caller.account_id,
        environment=caller.environment,
        generation_id=generation_id,
    )


async def find_changed(request: Request, caller: Caller, generation_id: str, *, wait_seconds: int) -> GenerationState:
    """The same, once its status changes, and after so many seconds at the latest. Raises Overloaded where too many
    wait, and GenerationNotFound.
    """
    found = await find(request, caller, generation_id)
    if found.has_ended:
        return found
    until = asyncio.get_running_loop().time() + wait_seconds
    async with cancelled_on_disconnect(request):
        with waiting(request, caller) as waiter:
            return await next_state(request, caller, found, waiter, until=until)


@contextmanager
def waiting(request: Request, caller: Caller) -> Iterator[WaitingCaller]:
    """A caller who may wait within the block. From here on the request holds no slot of the OverloadGuard, and within
    the block its response may be late.

    Raises Overloaded where too many wait.
    """
    with services_of(request).waiting_callers.enter(caller.account_id) as waiter:
        of_request = request_state(request.scope)
        of_request["overload_guard"].hand_over(of_request)()
        of_request["stop_waiting"] = waiter.stop
        if of_request.get("is_stopping"):
            waiter.stop()
        try:
            yield waiter
        finally:
            del of_request["stop_waiting"]


async def next_state(
    request: Request, caller: Caller, seen: GenerationState, waiter: WaitingCaller, *, until: float
) -> GenerationState:
    """The generation once its status is another than it was `seen` with, at once where that was the last one. The same
    at the time `until` of the event loop, or when the process stops. Raises InvalidApiKey once the caller's key is not
    active any more.
    """
    found, clock = seen, asyncio.get_running_loop().time
    while found.status == seen.status and not (found.has_ended or waiter.is_stopped or clock() >= until):
        await waiter.until_changed(seen.id, seen=seen.status, seconds=until - clock())
        await fetch_caller(request)  # whose key may have been revoked meanwhile
        found = await find(request, caller, seen.id)
    return found


async def _until_ended(request: Request, caller: Caller, found: GenerationState, *, seconds: float) -> GenerationState:
    """The generation once it has ended; as it is after so many seconds, when the process stops, or where too many wait
    already: it is accepted all the same.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    with suppress(Overloaded):
        async with cancelled_on_disconnect(request):
            with waiting(request, caller) as waiter:
                while not (found.has_ended or waiter.is_stopped or clock() >= until):
                    found = await next_state(request, caller, found, waiter, until=until)
    return found


def _accepted(found: GenerationState) -> Response:
    location = (b"location", f"/v1/generations/{found.id}".encode())
    headers = (location, (b"preference-applied", b"respond-async"))
    return PreparedJSON(GenerationShown.write(found), status=202, headers=headers)


async def _delivered(generations: Generations, spec: GenerationSpec, found: GenerationState) -> Delivered:
    """The images that were delivered. Raises the error of one for which none was."""
    if not found.delivered_ids:
        error = found.error or InternalError()
        error.may_have_been_paid = found.started_at is not None
        raise error
    return await replay.delivered(generations, spec, Recorded(found.delivered_ids, found.created_at, is_replay=True))

"""Admission of a generation, once for every dialect: which caller, within which limits, with which Idempotency-Key.

The order is the contract's: a malformed Idempotency-Key (400), the key (401), its limits (429); only then the body.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Annotated, Self, TypeVar

from fastapi import Depends, Request

from app.catalogue.model import ModelNotFound
from app.catalogue.opened import REFUSALS
from app.catalogue.routing import Plan
from app.core.errors import Invalid, Unavailable, as_api_error
from app.features.charged import left_headers
from app.features.dependencies import generations_of, generations_with_urls_of, services_of
from app.features.idempotency import read_idempotency_key
from app.features.input_images import NamedInput, read_input
from app.features.keys.dependencies import cached_caller, fetch_caller, name_caller
from app.features.preferences import read_preference
from app.features.rate_limits import answer_taken, slot_of, takes_of
from app.features.terms import Preference
from app.generations import service
from app.generations.collaborators import Generations
from app.generations.errors import CallerChangedError, OutcomeUnknown
from app.generations.jobs.accept import accept_job
from app.generations.jobs.job import Accepted, JobTerms
from app.generations.ledger.queue import Left
from app.generations.service import Watch
from app.generations.spec import Caller, Delivered, GenerationSpec, SentImage
from app.web.headers import add_response_headers
from app.web.state import RequestState

_TRIES = 3

Made = TypeVar("Made", Delivered, Accepted)

FindCaller = Callable[[], Awaitable[Caller]]
"""Finds the caller anew, as the database has it now."""


class Admission:
    """A request of a caller. Within the `async with`, for each of its images a unit of its limits is taken, and a slot
    among its running generations; the limits stand in the response's headers.

    Entering raises RateLimited and ConcurrencyLimited.
    """

    pointers: Mapping[str, str] = MappingProxyType({})
    """Where the dialect has what errors know as `#/images/0`, `#/mask` or `#/size`."""
    _is_kept = False
    _left: Left | None = None
    _slots_held = 0

    def __init__(
        self,
        request: Request,
        caller: Caller,
        *,
        idempotency_key: str | None,
        find_again: FindCaller,
        preference: Preference | None = None,
    ) -> None:
        self._request = request
        self._services = services_of(request)
        self._caller = caller
        self._idempotency_key = idempotency_key
        self._find_again = find_again
        self.preference = preference
        self._takes_slots = preference is None
        self._slots = [slot_of(self._services, caller)] if self._takes_slots else []
        name_caller(request, caller)

    async def __aenter__(self) -> Self:
        services, caller = self._services, self._caller
        try:
            slot = self._slots[0] if self._takes_slots else None
            taken = await services.limiter.take(takes_of(services.policies, caller), group=caller.account_id, slot=slot)
            if taken.allowed and slot is not None:
                self._slots_held += 1
                services.metrics.limits.slots_used += 1
            answer_taken(self._request, taken, mode=services.policies.generate_mode)
        except BaseException:
            self.release()
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if not self._is_kept:
            self.release()

    def keep_slots(self) -> None:
        """Keeps the slots beyond the end of the block, for work that goes on: until `release`."""
        self._is_kept = True

    def leave_slots(self) -> None:
        """Frees the slots, and takes none for further images: the generation is asynchronous."""
        self.release()
        self._takes_slots = False

    def release(self) -> None:
        """Frees the slots before the end of the block. Has no effect a second time."""
        for slot in self._slots:
            self._services.limiter.release(slot, group=self._caller.account_id)
        self._services.metrics.limits.slots_used -= self._slots_held
        self._slots_held = 0

    @property
    def caller(self) -> Caller:
        return self._caller

    @property
    def currency(self) -> str | None:
        """Of all prices; None where there are none."""
        return self._services.generations.catalogue.catalogue.currency

    def plan(self, spec: GenerationSpec) -> Plan | None:
        """What the request comes to for this caller; None for what cannot be drawn, and is refused, or replayed from a
        time when it could.
        """
        try:
            return service.find_plan(self._services.generations, self._caller, spec)
        except REFUSALS:
            return None

    async def read_inputs(
        self, generations: Generations, inputs: Sequence[NamedInput], **places: str
    ) -> Sequence[SentImage]:
        """The images that go in, in order. From here on errors name their places in the request, and `places`: those of
        `images`, which is all of them together, and of other fields of a spec. Raises what `read_input` raises.
        """
        self.pointers = {
            **{f"#/{field}": place for field, place in places.items()},
            **{f"#/images/{index}": each.pointer for index, each in enumerate(inputs)},
        }
        return [await read_input(generations, each) for each in inputs]

    async def take_further(self, images: int) -> None:
        """Takes the units and slots of further images of the request. Raises Invalid for more than the limits ever let
        through at once, and RateLimited or ConcurrencyLimited where they do not now; then the request's first unit is
        given back.
        """
        if images == 0:
            return
        services, caller = self._services, self._caller
        takes = takes_of(services.policies, caller, images)
        slot = slot_of(services, caller, number=images) if self._takes_slots else None
        is_enforced = services.policies.generate_mode == "enforce"
        most = min(slot.slots if slot else math.inf, *(take.limit.count for take in takes))
        if images + 1 > most and is_enforced:
            error = Invalid([{"pointer": "#/n", "detail": f"The limits let {most} through at once"}])
            raise error.moved(self.pointers)
        self._slots += [slot] if slot else []
        taken = await services.limiter.take(takes, group=caller.account_id, slot=slot)
        if taken.allowed and slot is not None:
            self._slots_held += images
            services.metrics.limits.slots_used += images
        if not taken.allowed and is_enforced:
            await services.limiter.give_back(takes_of(services.policies, caller), group=caller.account_id)
        answer_taken(self._request, taken, mode=services.policies.generate_mode)

    async def give_back(self) -> None:
        """Gives back what entering has taken, for a request that makes no image."""
        if self._slots_held:
            await self._services.limiter.give_back(
                takes_of(self._services.policies, self._caller), group=self._caller.account_id
            )
        self.release()

    def generate(self, spec: GenerationSpec, *, route: str, watch: Watch | None = None) -> Awaitable[Delivered]:
        """The delivered images; the response says whether they were delivered to an earlier call, and what is left of
        the account's money. Raises what `generations.service.generate` raises, and Unavailable as `_recorded`.
        """
        # Only where the response is to hold bytes is anything drawn that a client who leaves need not wait for. One who
        # watches has another listener for its leaving.
        waits_for_bytes = spec.as_bytes and watch is None
        generations = (generations_of if waits_for_bytes else generations_with_urls_of)(self._request)
        return self._recorded(partial(service.generate, generations, spec=spec, route=route, watch=watch))

    def accept(self, spec: GenerationSpec, *, route: str, terms: JobTerms) -> Awaitable[Accepted]:
        """The request, which is on disk, to be drawn later; the response says whether it was before, and what is left
        of the account's money. Raises what `accept_job` raises, and Unavailable as `_recorded`.
        """
        generations = generations_with_urls_of(self._request)
        return self._recorded(partial(accept_job, generations, spec=spec, route=route, terms=terms))

    async def _recorded(self, make: Callable[..., Awaitable[Made]]) -> Made:
        """What `make` returns for the caller. Where what the key may do has changed since it was looked up, the caller
        is looked up again: what holds is what the database says when the generation is recorded.

        Raises what `make` raises, and Unavailable where the caller changes again and again.
        """
        key = self._idempotency_key
        state: RequestState = self._request.scope["state"]
        state["goes_on"] = True  # once it is recorded it counts, and may be paid for
        for _ in range(_TRIES):
            try:
                made = await make(caller=self._caller, idempotency_key=key, on_held=self._note_left)
            except CallerChangedError:
                self._caller = await self._find_again()
                continue
            except ModelNotFound:
                if not await self._has_other_models():
                    raise
                continue
            except Invalid as error:
                raise error.moved(self.pointers) from None
            except OutcomeUnknown as error:
                error.is_worth_repeating = key is not None  # without a key, a repeat could be a second generation
                raise
            if isinstance(made, Delivered):
                state["model"] = made.model
            if made.is_replay:
                add_response_headers(self._request, {b"idempotent-replayed": b"true"})
            self.show_left()
            return made
        raise Unavailable

    async def _has_other_models(self) -> bool:
        """Whether the account's plan has other models than when the caller was looked up, which it is once more. What
        it has no more needs no look: the ledger finds it.
        """
        models = self._caller.models
        if models is None:
            return False
        self._caller = await self._find_again()
        return self._caller.models != models

    def _note_left(self, left: Left) -> None:
        self._left = left

    def show_left(self) -> None:
        """Has the response say what is left of the account's money, if a price is held by now."""
        if self._left is not None:
            add_response_headers(self._request, left_headers(self._left))

    @contextmanager
    def looked_up(self) -> Iterator[None]:
        """Raises OutcomeUnknown in place of what says that the database is away: the request is on disk by now."""
        try:
            yield
        except Exception as raised:
            if not isinstance(as_api_error(raised), Unavailable):
                raise
            error = OutcomeUnknown()
            error.is_worth_repeating = self._idempotency_key is not None
            raise error from raised


async def admit(request: Request, *, preference: Preference | None = None) -> Admission:
    """The admission of the caller whose API key came with the request; one that prefers not to wait takes no slots.
    Raises InvalidRequest for a malformed Idempotency-Key, and what `cached_caller` raises.
    """
    key, caller = read_idempotency_key(request), await cached_caller(request)
    find_again = partial(fetch_caller, request)
    return Admission(request, caller, idempotency_key=key, find_again=find_again, preference=preference)


async def _current_admission(request: Request) -> AsyncIterator[Admission]:
    async with await admit(request) as admission:
        yield admission


async def _preferred_admission(request: Request) -> AsyncIterator[Admission]:
    async with await admit(request, preference=read_preference(request)) as admission:
        yield admission


CurrentAdmission = Annotated[Admission, Depends(_current_admission, scope="request")]
"""An admission that is entered before the body is read, and left once the response was sent: a client that does not
read its response keeps its slot.
"""
PreferredAdmission = Annotated[Admission, Depends(_preferred_admission, scope="request")]
"""The same of a route that obeys `Prefer`."""

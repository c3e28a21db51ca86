"""Callers who mix synchronous calls and jobs, repeat them, cancel some, and lose their keys."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from app.core.errors import ApiError, Unavailable
from app.generations.errors import IdempotencyKeyInUse
from app.generations.jobs.job import JobTerms
from tests.chaos.jobs.acceptor import Acceptor
from tests.chaos.jobs.provider import LAVISH, PLAIN
from tests.chaos.jobs.yard import LOOK_SECONDS, Yard
from tests.chaos.load import Line, Order
from tests.chaos.schedule import Schedule
from tests.harness import Account, Key

_RETRY_SECONDS, _RETRIES_SECONDS = 0.1, 30
_UNFINISHED_MAX = 40
_CANCELLED_WITHIN_SECONDS = 1


@dataclass(frozen=True)
class Kind:
    """A way to ask: as a job, as a call, or as both at once under one Idempotency-Key."""

    is_job: bool = True
    is_call: bool = False
    images: int = 1
    model: str = PLAIN
    is_repeated: bool = False
    """With an Idempotency-Key, until it is accepted."""
    is_cancelled: bool = False
    terms: JobTerms = JobTerms()


KINDS = [
    Kind(),
    Kind(images=3, is_repeated=True),
    Kind(model=LAVISH),
    Kind(is_cancelled=True),
    Kind(is_job=False, is_call=True),
    Kind(is_call=True, is_repeated=True),
    Kind(model=LAVISH, images=2, is_repeated=True, terms=JobTerms("batch")),
    Kind(is_job=False, is_call=True, is_repeated=True),
]


@dataclass
class Asked:
    """What the callers of one prompt, which nobody else has, were told."""

    prompt: str
    kind: Kind
    key: Key
    ids: set[str] = field(default_factory=set)
    """Of what was accepted or delivered."""
    is_certain: bool = True
    """Whether nothing else of it can have been recorded."""


@dataclass
class JobCallers:
    """So many callers without pause, as long as few images are unfinished."""

    yard: Yard
    accepting: Acceptor
    account: Account
    schedule: Schedule
    journal: list[Asked] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    """All that they had."""
    revoked: list[Key] = field(default_factory=list)
    _is_calling: bool = True
    _may_ask: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def calling(self, count: int) -> AsyncIterator[None]:
        """At the end every caller has brought its last call to an end."""
        holding_back = asyncio.create_task(self._hold_back())
        callers = [asyncio.create_task(self._call_on(n)) for n in range(count)]
        try:
            yield
        finally:
            self._is_calling = False
            self._may_ask.set()
            await asyncio.gather(*callers)
            holding_back.cancel()

    async def revoke_a_key(self) -> None:
        """Its caller gets another one."""
        key = self.schedule.pick(sorted(set(self.keys) - set(self.revoked), key=lambda each: each.id))
        await self.account.revoke_key(key)
        self.revoked.append(key)

    async def _hold_back(self) -> None:
        while self._is_calling:
            may_ask = await self.yard.unfinished() < _UNFINISHED_MAX
            (self._may_ask.set if may_ask else self._may_ask.clear)()
            await asyncio.sleep(LOOK_SECONDS)

    async def _call_on(self, caller: int) -> None:
        line, number = Line(self.yard.fleet.port, []), 0
        key = await self._new_key()
        while self._is_calling:
            if key in self.revoked:
                key = await self._new_key()
            number += 1
            kind = KINDS[(caller + number) % len(KINDS)]
            asked = Asked(f"{key.id} {caller} {number}", kind, key)
            self.journal.append(asked)
            ways = [
                *([self._accept(asked)] if kind.is_job else ()),
                *([self._call(line, asked)] if kind.is_call else ()),
            ]
            await asyncio.gather(*ways)
            await self._may_ask.wait()
        line.close()

    async def _new_key(self) -> Key:
        key = await self.account.create_key()
        self.keys.append(key)
        return key

    async def _accept(self, asked: Asked) -> None:
        kind, name = asked.kind, _name(asked)
        end = time.monotonic() + _RETRIES_SECONDS
        while time.monotonic() < end:
            try:
                accepted = await self.accepting.accept(
                    *(self.account, asked.key, asked.prompt),
                    model=kind.model,
                    images=kind.images,
                    idempotency_key=name,
                    terms=kind.terms,
                )
            except (Unavailable, IdempotencyKeyInUse):
                asked.is_certain = False
                if name is None:
                    return
                await asyncio.sleep(_RETRY_SECONDS)
            except ApiError:
                return  # its key is revoked
            else:
                asked.ids.add(accepted)
                break
        if kind.is_cancelled:
            await asyncio.sleep(self.schedule.between(0, _CANCELLED_WITHIN_SECONDS))
            with suppress(ApiError):
                await self.accepting.cancel(accepted)

    async def _call(self, line: Line, asked: Asked) -> None:
        kind, name = asked.kind, _name(asked)
        end = time.monotonic() + _RETRIES_SECONDS
        while time.monotonic() < end:
            order = Order(kind.model)
            call = await line.ask(asked.key, asked.prompt, order=order, idempotency_key=name)
            asked.ids.update(call.ids)
            asked.is_certain &= call.outcome != "unknown"
            if name is None or call.outcome == "ok" or call.status in {202, 401}:
                return
            await asyncio.sleep(_RETRY_SECONDS)


def _name(asked: Asked) -> str | None:
    """Its Idempotency-Key."""
    return asked.prompt.replace(" ", "-") if asked.kind.is_repeated else None

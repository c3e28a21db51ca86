"""Callers who mix synchronous calls and jobs, repeat them, cancel some, and lose their keys."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import httpx2
from tests.chaos.jobs.provider import LAVISH, PLAIN
from tests.chaos.jobs.yard import LOOK_SECONDS, Yard
from tests.chaos.load import Call, Line, Order
from tests.chaos.schedule import Schedule
from tests.harness import Account, Key, looks

_RETRY_SECONDS = 0.1
_UNFINISHED_MAX = 40
_CANCELLED_WITHIN_SECONDS = 1
_FINAL = {"invalid_api_key", "insufficient_credit", "budget_exceeded"}
"""Refusals that a retry would only get again for now."""


class Kind(NamedTuple):
    """What is asked for at the same time: with `is_repeated` under one Idempotency-Key, until it is accepted."""

    orders: Sequence[Order]
    is_repeated: bool = False
    is_cancelled: bool = False


_CALL, _JOB, _LAVISH_JOB = Order(PLAIN), Order(PLAIN, job_class="now"), Order(LAVISH, job_class="now")
KINDS = [
    Kind([_JOB]),
    Kind([Order(PLAIN, images=3, job_class="now")], is_repeated=True),
    Kind([_LAVISH_JOB]),
    Kind([_JOB], is_cancelled=True),
    Kind([_CALL]),
    Kind([_CALL, _JOB], is_repeated=True),
    Kind([Order(LAVISH, images=2, job_class="batch")], is_repeated=True),
    Kind([_CALL], is_repeated=True),
]


@dataclass
class Asked:
    """What the callers of one prompt, which nobody else has, were told."""

    prompt: str
    kind: Kind
    key: Key
    ids: set[str] = field(default_factory=set)
    """Of what was accepted or delivered."""
    codes: set[str] = field(default_factory=set)
    """Of the refusals."""
    is_certain: bool = True
    """Whether nothing else of it can have been recorded."""


@dataclass
class JobCallers:
    """So many callers without pause, as long as few images are unfinished."""

    yard: Yard
    account: Account
    schedule: Schedule
    kinds: Sequence[Kind] = tuple(KINDS)
    """What each asks for in turn."""
    journal: list[Asked] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    """Each answer."""
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
        for _ in looks():
            with suppress(httpx2.TransportError):
                answer = await self.yard.client.delete(f"/v1/keys/{key.id}", headers=self.account.headers)
                if answer.status_code in {204, 404}:  # the second where the answer to the first was lost
                    self.revoked.append(key)
                    return
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError("the key is not revoked")

    async def _hold_back(self) -> None:
        while self._is_calling:
            may_ask = await self.yard.unfinished() < _UNFINISHED_MAX
            (self._may_ask.set if may_ask else self._may_ask.clear)()
            await asyncio.sleep(LOOK_SECONDS)

    async def _call_on(self, caller: int) -> None:
        lines, number = [Line(self.yard.fleet.port, self.calls) for _ in range(2)], 0
        key = await self._new_key()
        while self._is_calling:
            if key in self.revoked:
                key = await self._new_key()
            number += 1
            kind = self.kinds[(caller + number) % len(self.kinds)]
            asked = Asked(f"{key.id} {caller} {number}", kind, key)
            self.journal.append(asked)
            await asyncio.gather(*map(partial(self.ask, asked), lines, kind.orders))
            await self._may_ask.wait()
        for line in lines:
            line.close()

    async def _new_key(self) -> Key:
        """Asks for one until the server is there to make it."""
        for _ in looks():
            with suppress(httpx2.TransportError, AssertionError):
                key = await self.account.create_key()
                self.keys.append(key)
                return key
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError("no key is made")

    async def ask(self, asked: Asked, line: Line, order: Order) -> None:
        """Asks, and where it is repeated goes on until that is answered for good."""
        name = asked.prompt.replace(" ", "-") if asked.kind.is_repeated else None
        for _ in looks():
            call = await line.ask(asked.key, asked.prompt, order=order, idempotency_key=name)
            asked.ids.update(call.ids)
            asked.codes.update({call.code} - {""})
            asked.is_certain &= call.outcome != "unknown"
            if not call.ids:
                await asyncio.sleep(_RETRY_SECONDS)
            if name is None or call.ids or call.code in _FINAL:
                break
        if asked.kind.is_cancelled and call.id is not None:
            await asyncio.sleep(self.schedule.between(0, _CANCELLED_WITHIN_SECONDS))
            with suppress(httpx2.TransportError):
                await self.yard.client.post(f"/v1/generations/{call.id}/cancel", headers=asked.key.headers)

"""Credit, caps, plans and accounts that change while their callers call."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx2
from app.billing import subscriptions
from app.billing.entries import post
from app.billing.expiry import expire
from app.catalogue.offers import PlanOffer
from app.catalogue.prices import format_amount, read_amount
from app.core.db import DATABASE_ERRORS, SessionMaker
from app.features.auth.administration import set_account_active
from app.models import EntryKind, SubscriptionStatus
from sqlalchemy.exc import IntegrityError
from tests.chaos.jobs.callers import JobCallers
from tests.chaos.schedule import Schedule
from tests.harness import Account, looks

PRICE = 50_000
"""Of each image, in millionths."""
AT_ONCE = 10
"""How often each entry is made at the same time."""
_RETRY_SECONDS = 0.2
_PAUSE_SECONDS_MAX = 0.4
_PLANS = [
    None,
    PlanOffer(name="small", title="Small", allowance=4 * PRICE),
    PlanOffer(name="large", title="Large", allowance=40 * PRICE, cap=60 * PRICE),
    PlanOffer(name="afterwards", title="Afterwards", allowance=10 * PRICE, is_postpaid=True, cap=80 * PRICE),
]


@dataclass
class Treasury:
    """Makes each change until it is certain that it was made."""

    sessions: SessionMaker
    schedule: Schedule
    entered: dict[str, int] = field(default_factory=dict)
    """The amounts of the entries, by reference."""
    wrong: list[str] = field(default_factory=list)
    """Why a change could not be made: it is the last one then."""
    _is_working: bool = True

    @asynccontextmanager
    async def working(self, payers: Sequence[tuple[JobCallers, Sequence["Change"]]]) -> AsyncIterator[None]:
        """Changes one of these accounts after the other, each in one of its ways."""
        work = asyncio.create_task(self._work([(payer, each) for payer, ways in payers for each in ways]))
        try:
            yield
        finally:
            self._is_working = False
            await work

    async def _work(self, ways: Sequence[tuple[JobCallers, "Change"]]) -> None:
        while self._is_working:
            payer, change = self.schedule.pick(ways)
            try:
                await change(self, payer)
            except NotDoneError as error:
                self.wrong.append(str(error))
                return
            await asyncio.sleep(self.schedule.between(0, _PAUSE_SECONDS_MAX))

    async def enter(
        self, account: Account, kind: EntryKind, amount: int, *, by: str, expires_at: datetime | None = None
    ) -> str:
        """The id of an entry that was made so many times at once. Its reference begins with `by`."""
        account_id, reference = account.account_id, f"{by}:{secrets.token_hex(6)}"
        self.entered[reference] = amount

        async def once() -> str:
            async with self.sessions.begin() as session:
                posted = await post(
                    session,
                    account_id=account_id,
                    kind=kind,
                    amount=amount,
                    reference=reference,
                    expires_at=expires_at,
                )
                return posted.entry_id

        ids = await asyncio.gather(*(until_done(once) for _ in range(AT_ONCE)))
        assert len(set(ids)) == 1, "one reference has several entries"
        return ids[0]


class NotDoneError(Exception):
    """A change that the database does not take."""


Change = Callable[[Treasury, JobCallers], Awaitable[None]]


async def until_done(change: Callable[[], Awaitable[str | int | bool]]) -> str:
    """Tries until the database says that it is done. Raises NotDoneError where it refuses that."""
    for _ in looks():
        try:
            return str(await change())
        except IntegrityError as error:
            raise NotDoneError(str(error.orig)) from None
        except (*DATABASE_ERRORS, OSError):
            await asyncio.sleep(_RETRY_SECONDS)
    raise NotDoneError("the database does not come back")


async def top_up(treasury: Treasury, payer: JobCallers) -> None:
    """By a few images, so that the credit ends again and again."""
    await treasury.enter(payer.account, "top_up", treasury.schedule.pick([1, 2, 3, 8]) * PRICE, by="stripe")


async def give_and_expire(treasury: Treasury, payer: JobCallers) -> None:
    """A grant that expires at once. Three take it back at the same time."""
    account_id, ended = payer.account.account_id, datetime.now(UTC) - timedelta(seconds=1)
    grant_id = await treasury.enter(payer.account, "grant", 2 * PRICE, by="grant", expires_at=ended)

    async def take_back() -> bool:
        async with treasury.sessions.begin() as session:
            return await expire(session, grant_id=grant_id, account_id=account_id)

    await asyncio.gather(*(until_done(take_back) for _ in range(3)))


async def dispute(treasury: Treasury, payer: JobCallers) -> None:
    """Takes credit that may be spent already."""
    await treasury.enter(payer.account, "adjustment", -PRICE, by="stripe")


async def set_cap(treasury: Treasury, payer: JobCallers) -> None:
    """The account's, over HTTP: to what is spent or a little more, or to none."""
    await _set_cap(treasury, payer, "/v1/billing/cap")


async def set_key_cap(treasury: Treasury, payer: JobCallers) -> None:
    """The newest key's, over HTTP."""
    await _set_cap(
        treasury, payer, f"/v1/keys/{payer.keys[-1].id}/cap", period=treasury.schedule.pick(["day", "month", "total"])
    )


async def _set_cap(treasury: Treasury, payer: JobCallers, path: str, **more: str) -> None:
    client, headers = payer.yard.client, payer.account.headers
    images = treasury.schedule.pick([None, 0, 2, 5, 10])
    with suppress(httpx2.TransportError):
        found = await client.get("/v1/billing", headers=headers)
        if found.status_code == 200:
            spent = read_amount(found.json()["spent"])
            amount = None if images is None else format_amount(spent + images * PRICE)
            await client.put(path, json={"amount": amount, **more}, headers=headers)


async def change_plan(treasury: Treasury, payer: JobCallers) -> None:
    plan, day = treasury.schedule.pick(_PLANS), treasury.schedule.pick([1, 2])

    async def once() -> int:
        async with treasury.sessions.begin() as session:
            status: SubscriptionStatus = "active" if plan else "cancelled"
            return await subscriptions.apply(
                session, account_id=payer.account.account_id, plan=plan, anchor_day=day, status=status
            )

    await until_done(once)
    await until_done(lambda: _finish_pending(treasury))


async def _finish_pending(treasury: Treasury) -> bool:
    await subscriptions.finish_pending(treasury.sessions)
    return True


async def disable(treasury: Treasury, payer: JobCallers) -> None:
    """For a moment: what waits is cancelled, and what is held for it is free."""

    async def set_active(*, active: bool) -> bool:
        async with treasury.sessions.begin() as session:
            return await set_account_active(session, owner=payer.account.email, active=active)

    for active in (False, True):
        await until_done(partial(set_active, active=active))
        await asyncio.sleep(treasury.schedule.between(0.1, 0.5))

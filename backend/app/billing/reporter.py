"""Reports to Stripe what accounts are to be billed: one meter event for each account and closed hour, counted once.

Stripe takes the identifier of an event once within 24 hours, and may forget it after that. So `charges.tried_at` is
committed before the first call. For 23 hours the same event can be sent again, whatever became of the calls before;
after that the meter is read first, which has the customer's total of exactly that hour. A process that is killed at any
point leaves a row from which the next turn goes on.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import asyncpg

from app.billing.hours import close_hours
from app.core.db import Connect
from app.core.logs import logger
from app.core.metrics.billing import BillingMetrics
from app.core.schemas import format_time
from app.payments import NotSynced, StripeRefused, StripeUnavailable

_ADVISORY_LOCK = 4_120_938_557_201_346_911  # any number that nothing else locks
_LET_GO_OF_THE_DEAD = "set idle_session_timeout = '5min'"  # longer than a call takes: of a machine that is gone, too
_AT_A_TIME = 8
"""Events that are under way at once."""
_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC), ""

_DUE = """
select c.account_id, c.hour, s.customer_id, p.ends_at from charges c
left join stripe_customers s using (account_id) left join subscriptions p using (account_id)
where c.billed > 0 and c.reported_at is null and c.closed_at is not null and (c.hour, c.account_id) > ($1, $2)
order by c.hour, c.account_id limit $3
"""
_WRITE = """
update charges set {change} where account_id = $1 and hour = $2 and reported_at is null and closed_at is not null
returning billed, tried_at > clock_timestamp() - interval '23 hours' as is_remembered
"""
_TRY = _WRITE.format(change="tried_at = coalesce(tried_at, clock_timestamp())")
_TRY_ANEW = _WRITE.format(change="tried_at = clock_timestamp()")
_CONFIRM = _WRITE.format(change="reported_at = clock_timestamp()")


class Meter(Protocol):
    """What the reporter asks Stripe for. Both raise StripeUnavailable, StripeRefused and NotSynced."""

    async def send_meter_event(
        self, *, customer_id: str, identifier: str, value: int, at: datetime, ends_at: datetime | None
    ) -> None:
        """Returns once the event was taken, by this call or by an earlier one with the same identifier."""

    async def meter_total(self, customer_id: str, hour: datetime) -> int:
        """What the meter has counted for the customer in this hour."""


class Due(NamedTuple):
    """A charge of a closed hour that Stripe has not confirmed."""

    account_id: str
    hour: datetime
    customer_id: str | None
    ends_at: datetime | None
    """When the account's subscription ends or has ended; None while it goes on."""

    @property
    def identifier(self) -> str:
        """The meter event's."""
        return f"{self.account_id}:{self.hour:%Y-%m-%dT%H}"


@dataclass
class Reporter:
    """Safe in any number of processes on any machines: one of them reports at a time. It holds a lock of the connection
    on which it writes, so that a process that has lost the lock sends nothing any more.
    """

    connect: Connect
    """To the database without a pooler in transaction mode."""
    meter: Meter
    metrics: BillingMetrics
    _named: set[str] = field(default_factory=set, init=False)
    """Accounts without a customer that the log has named."""

    async def report(self) -> None:
        """Closes the hours that are over, and reports all that are closed, the oldest first, unless another process
        does so.
        """
        connection = await self.connect()
        try:
            await connection.execute(_LET_GO_OF_THE_DEAD)
            if await connection.fetchval("select pg_try_advisory_lock($1)", _ADVISORY_LOCK):
                await close_hours(connection)
                await _Turn(connection, self.meter, self.metrics, self._named).report_all()
        finally:
            await connection.close()


@dataclass
class _Turn:
    connection: asyncpg.Connection
    meter: Meter
    metrics: BillingMetrics
    named: set[str]
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _refused: set[str] = field(default_factory=set, init=False)
    """Customers of whom Stripe has refused an event: their others wait for the next turn."""

    async def report_all(self) -> None:
        """Ends early where Stripe is not available."""
        after = _BEFORE_ALL
        while rows := await self.connection.fetch(_DUE, *after, _AT_A_TIME):
            page = [Due(*row) for row in rows]
            after = page[-1].hour, page[-1].account_id
            async with asyncio.TaskGroup() as group:
                reports = [group.create_task(self._report(due)) for due in page]
            if not all(each.result() for each in reports):
                return

    async def _report(self, due: Due) -> bool:
        """Whether Stripe was available."""
        if due.customer_id is None:
            self._name_account(due.account_id)
        elif due.customer_id not in self._refused:
            try:
                await self._report_to(due.customer_id, due)
            except StripeRefused as error:
                self._refused.add(due.customer_id)
                self._count_failure("refused", due, str(error))
                if error.is_customer_missing:
                    self._name_account(due.account_id)
            except (StripeUnavailable, NotSynced) as error:
                self._count_failure("unavailable", due, str(error))
                return False
        return True

    async def _report_to(self, customer_id: str, due: Due) -> None:
        tried = await self._write(_TRY, due)
        if tried is None:
            return  # it was reported meanwhile
        billed, total = tried["billed"], 0
        if not tried["is_remembered"]:
            total = await self.meter.meter_total(customer_id, due.hour)
            if total not in {0, billed}:
                logger.error("meter_contradicts", account=due.account_id, hour=format_time(due.hour), counted=total)
                self.metrics.meter_failures.add("contradiction")
                return
            if total == 0:
                await self._write(_TRY_ANEW, due)
        if total == 0:
            await self.meter.send_meter_event(
                customer_id=customer_id, identifier=due.identifier, value=billed, at=due.hour, ends_at=due.ends_at
            )
        await self._write(_CONFIRM, due)
        self.metrics.meter_events.add()

    async def _write(self, statement: str, due: Due) -> asyncpg.Record | None:
        """The row of one statement, once it is committed; None where the charge has been reported."""
        async with self._writing:
            rows = await self.connection.fetch(statement, due.account_id, due.hour)
        return rows[0] if rows else None

    def _count_failure(self, reason: str, due: Due, sentence: str) -> None:
        logger.warning("hour_not_reported", account=due.account_id, hour=format_time(due.hour), reason=sentence)
        self.metrics.meter_failures.add(reason)

    def _name_account(self, account_id: str) -> None:
        if account_id not in self.named:
            self.named.add(account_id)
            logger.error("customer_missing", account=account_id)

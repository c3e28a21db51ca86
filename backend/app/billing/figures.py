"""What operators are shown of money, in metrics and in the log."""

from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import text

from app.billing.hours import OVER
from app.core.db import SessionMaker
from app.core.logs import logger
from app.core.metrics.billing import BillingMetrics

_LATE = tuple(each.total_seconds() for each in (timedelta(hours=1), timedelta(hours=20), timedelta(days=30)))
"""Ages of the oldest unreported hour from which on the log says so. Stripe refuses events that are older than 35 days,
and may count one twice that is sent again after a day.
"""

_CHARGED_TODAY = """
select coalesce(sum(from_allowance), 0)::bigint, coalesce(sum(from_credit), 0)::bigint, coalesce(sum(billed), 0)::bigint
from charges where hour >= date_trunc('day', now(), 'UTC')
"""
_UNREPORTED = """
select count(*) as hours, count(distinct account_id) filter (where customer_id is null) as accounts_without_customer,
  coalesce(extract(epoch from now() - interval '65 minutes' - min(hour)), 0)::bigint as oldest_seconds
from charges left join stripe_customers using (account_id)
where billed > 0 and reported_at is null and {over}
"""


@dataclass
class Figures:
    """Reads the figures of the whole deployment."""

    sessions: SessionMaker
    metrics: BillingMetrics
    _times_late: int = field(default=0, init=False)

    async def show_charged(self) -> None:
        """What accounts have been charged today."""
        async with self.sessions.begin() as session:
            amounts = (await session.execute(text(_CHARGED_TODAY))).one()
        self.metrics.show_charged_today(*amounts)

    async def show_unreported(self) -> None:
        """Which hours Stripe has not confirmed; the log says so when the oldest becomes late."""
        async with self.sessions.begin() as session:
            found = (await session.execute(text(_UNREPORTED.format(over=OVER)))).one()
        self.metrics.hours_unreported.set(found.hours)
        self.metrics.oldest_unreported_seconds.set(found.oldest_seconds)
        self.metrics.accounts_without_customer.set(found.accounts_without_customer)
        before, self._times_late = self._times_late, sum(found.oldest_seconds > each for each in _LATE)
        if self._times_late > before:
            logger.error("hours_unreported", hours=found.hours, oldest_seconds=found.oldest_seconds)

"""Makes up for what no webhook has brought: lost events, days of grace that are over, and customers who are gone."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import ARRAY, Text, any_, delete, exists, func, literal, select

from app.billing.plan_purchases import follow_customer, is_deleted, stop_overdue
from app.billing.purchases import Purchases
from app.billing.stripe_events import handle
from app.core.db import Connect
from app.core.logs import logger
from app.models import StripeCustomer, Subscription
from app.models import StripeEvent as EventRow
from app.payments import EVENTS, StripeEvent

_ADVISORY_LOCK = 2_718_240_915_563_308_147  # any number that nothing else locks
_LOOKS_BACK = timedelta(days=3)
"""For as long Stripe repeats an event by itself; it is given up then."""
_OVERLAP = timedelta(hours=1)
_KEPT = timedelta(days=60)
"""How long events are remembered: twice as long as Stripe keeps them."""
_AT_A_TIME = 1000


@dataclass
class PurchaseSweeper:
    """Asks Stripe for the events of the last days, and handles those that were not. Stops plans that are not paid, and
    cancels the subscriptions of deleted accounts.

    Safe in any number of processes on any machines: one of them sweeps at a time.
    """

    purchases: Purchases
    connect: Connect
    """To the database without a pooler in transaction mode."""
    _handled_until: datetime | None = field(default=None, init=False)

    async def sweep(self) -> bool:
        """One turn; False where another process is at it. An event that fails is logged, and tried again by the next
        turn. Raises StripeUnavailable and StripeRefused.
        """
        connection = await self.connect()
        try:
            if not await connection.fetchval("select pg_try_advisory_lock($1)", _ADVISORY_LOCK):
                return False
            await stop_overdue(self.purchases)
            await self._handle_missed()
            await self._cancel_of_deleted()
            await self._forget_old()
            return True
        finally:
            connection.terminate()

    async def _handle_missed(self) -> None:
        now = datetime.now(UTC)
        since = max(now - _LOOKS_BACK, (self._handled_until or now - _LOOKS_BACK) - _OVERLAP)
        events = await self.purchases.stripe.events_since(since, types=EVENTS)
        ids = [each.id for each in events]
        async with self.purchases.sessions.begin() as session:
            is_listed = EventRow.id == any_(literal(ids, ARRAY(Text)))
            known = select(EventRow.id).where(is_listed, EventRow.handled_at.is_not(None))
            handled = set(await session.scalars(known))
        outcomes = [await self._handle(event) for event in events if event.id not in handled]
        if all(outcomes):
            self._handled_until = now

    async def _handle(self, event: StripeEvent) -> bool:
        try:
            await handle(self.purchases, event)
        except Exception:
            logger.warning("stripe_event_failed", event_id=event.id, event_type=event.type, exc_info=True)
            return False
        return True

    async def _cancel_of_deleted(self) -> None:
        running = Subscription.status != "cancelled", Subscription.stripe_id.is_not(None)
        of_account = Subscription.account_id == StripeCustomer.account_id
        gone = exists().where(of_account, *running) & is_deleted(StripeCustomer.account_id)
        async with self.purchases.sessions.begin() as session:
            customer_ids = (await session.scalars(select(StripeCustomer.customer_id).where(gone))).all()
        for customer_id in customer_ids:
            try:
                await follow_customer(self.purchases, customer_id)
            except Exception:
                logger.warning("stripe_customer_failed", object=customer_id, exc_info=True)

    async def _forget_old(self) -> None:
        old = select(EventRow.id).where(EventRow.received_at < func.now() - _KEPT).limit(_AT_A_TIME)
        async with self.purchases.sessions.begin() as session:
            await session.execute(delete(EventRow).where(EventRow.id.in_(old)))

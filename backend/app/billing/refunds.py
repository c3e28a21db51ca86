"""Money back for an image that was delivered, by the operator's decision."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.entries import Posted, post
from app.catalogue.prices import format_amount
from app.models import Generation


class NothingToRefund(Exception):
    """The generation was not delivered for a price, or not for as much."""


async def refund(session: AsyncSession, *, generation_id: str, amount: int | None = None) -> tuple[str, int, Posted]:
    """Gives `amount` millionths of what was charged for a generation back as credit, by default all: its account, the
    amount and the entry. Done once, however often it is asked for.

    Raises NothingToRefund, and EntryMismatch where another amount was given back before.
    """
    charged = select(Generation.account_id, Generation.price).where(Generation.id == generation_id)
    found = (await session.execute(charged.where(Generation.status == "delivered"))).one_or_none()
    if found is None or not found.price:
        raise NothingToRefund("Nothing was charged for that generation, or there is none with that id")
    amount = found.price if amount is None else amount
    if not 0 < amount <= found.price:
        raise NothingToRefund(f"At most its price, {format_amount(found.price)}, can be given back")
    reference = f"refund:{generation_id}"
    entry = await post(session, account_id=found.account_id, kind="refund", amount=amount, reference=reference)
    return found.account_id, amount, entry

"""Notices on the pages before money ends: which there are, in the words of a person."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from app.console.session import ConsoleSession
from app.core.currencies import show_amount
from app.features.billing.situation import CapUse, MoneySituation, find_situation
from app.features.dependencies import services_of

_NEARLY = 10
"""A cap is nearly reached when it leaves less than one part in so many."""


async def find_notices(session: ConsoleSession) -> Sequence[str]:
    """Those of the session's account; none where nothing is charged."""
    if not session.has_balance:
        return ()
    catalogue = services_of(session.request).generations.catalogue.catalogue
    async with session.transaction() as database:
        situation = await find_situation(
            database, account_id=session.user.account_id, balance=session.balance, catalogue=catalogue
        )
    return notices(situation, currency=catalogue.currency)


def notices(situation: MoneySituation, *, currency: str | None) -> Sequence[str]:
    """The notices that an account in this situation needs, the most urgent first."""
    return [
        *_of_payment(situation),
        *_of_credit(situation, currency),
        *(sentence for cap in situation.caps for sentence in _of_cap(cap, situation.image, currency)),
    ]


def _of_payment(situation: MoneySituation) -> Iterator[str]:
    if situation.subscription == "past_due":
        yield "A payment for your plan has failed. The plan goes on for some days: please pay the open invoice."
    elif situation.subscription == "stopped":
        yield "Your plan has stopped, because a payment for it is missing. It goes on once the invoice is paid."


def _of_credit(situation: MoneySituation, currency: str | None) -> Iterator[str]:
    available = situation.available
    if available is None or not situation.image:
        return
    if available <= 0:
        yield "You have no credit left."
    elif available < situation.image:
        yield f"What you have left, {show_amount(available, currency)}, does not pay for another image."
    elif available < situation.spent_a_day:
        yield f"What you have left, {show_amount(available, currency)}, lasts for less than a day of your recent use."


def _of_cap(cap: CapUse, image: int, currency: str | None) -> Iterator[str]:
    name = "The cap of your account" if cap.key_name is None else f"The cap of your key “{cap.key_name}”"
    amount = show_amount(cap.amount, currency)
    if cap.left < max(image, 1):
        end = f"until {_day(cap.ends_at)}" if cap.ends_at else "until you raise it"
        yield f"{name}, {amount}, is reached: nothing more is drawn {end}."
    elif cap.left * _NEARLY < cap.amount:
        end = f" until {_day(cap.ends_at)}" if cap.ends_at else ""
        yield f"{name}, {amount}, is nearly reached: {show_amount(cap.left, currency)} is left{end}."


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%-d %B, %H:%M} UTC"

"""What was delivered in a time, by account, key, model or day, for an operator: with list prices, charges and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Literal

from sqlalchemy import BigInteger, Select, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.models import Account, ApiKey, Deployment, Usage, User

ReportBy = Literal["account", "key", "model", "day"]

_ACCOUNTS_AT_A_TIME, _KEYS_AT_A_TIME = 100, 500


@dataclass(frozen=True)
class Totals:
    """Delivered images, those of test keys among them, and the sums of their list prices, of what was charged for them
    and of what the calls for them may have cost, in millionths.
    """

    images: int = 0
    test_images: int = 0
    list_amount: int = 0
    amount: int = 0
    cost: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


Group = tuple[object, ...]
"""What a line of the report is about, in the order of `COLUMNS`."""

COLUMNS = {
    "account": ("account_id", "email"),
    "key": ("key_id", "name", "environment", "account_id", "email"),
    "model": ("model",),
    "day": ("day",),
}


@dataclass(frozen=True)
class Page:
    """The totals of some accounts or keys, by group; `last` is where the next page begins, None at the end. Models and
    days may come again on further pages.
    """

    totals: Sequence[tuple[Group, Totals]]
    last: str | None


async def find_page(session: AsyncSession, *, by: ReportBy, first: date, last: date, after: str) -> Page:
    """The next page of the days from `first` to `last`, both included. A short statement, however much was used."""
    owner, at_once = (Account.id, _ACCOUNTS_AT_A_TIME) if by == "account" else (ApiKey.id, _KEYS_AT_A_TIME)
    ids = (await session.scalars(select(owner).where(owner > after).order_by(owner).limit(at_once))).all()
    if not ids:
        return Page((), None)
    among = (ApiKey.account_id if by == "account" else Usage.key_id).in_(ids)
    found = _totals(by).where(among, Usage.day.between(first, last))
    rows: Sequence[Any] = (await session.execute(found)).all()
    amounts = len(fields(Totals))
    return Page([(tuple(row[:-amounts]), Totals(*row[-amounts:])) for row in rows], ids[-1])


async def find_use(session: AsyncSession, *, account_id: str) -> Mapping[str, int]:
    """How many images the account got today and in this month, in UTC by the database's clock."""
    today, month = func.current_date(), func.date_trunc("month", func.current_date())
    images = func.sum(Usage.pictures)
    statement = (
        select(cast(images.filter(Usage.day == today), BigInteger), cast(images, BigInteger))
        .join(ApiKey, ApiKey.id == Usage.key_id)
        .where(ApiKey.account_id == account_id, Usage.day.between(month, today))
    )
    of_today, of_month = (await session.execute(statement)).one()
    return {"images_today": of_today or 0, "images_this_month": of_month or 0}


async def find_currency(session: AsyncSession) -> str | None:
    """The currency of all amounts; None where no model has had a price."""
    return await session.scalar(select(Deployment.currency))


def _totals(by: ReportBy) -> Select[Any]:
    """Of the columns of `COLUMNS`, then those of Totals."""
    groups: dict[ReportBy, Sequence[InstrumentedAttribute[Any]]] = {
        "account": (ApiKey.account_id, User.email),
        "key": (ApiKey.id, ApiKey.name, ApiKey.environment, ApiKey.account_id, User.email),
        "model": (Usage.model,),
        "day": (Usage.day,),
    }
    of_test_keys = func.coalesce(func.sum(Usage.pictures).filter(ApiKey.environment == "test"), 0)
    amounts = (func.sum(each) for each in (Usage.list_amount, Usage.amount, Usage.cost))
    sums = func.sum(Usage.pictures), of_test_keys, *amounts
    return (
        select(*groups[by], *(cast(each, BigInteger) for each in sums))
        .select_from(Usage)
        .join(ApiKey, ApiKey.id == Usage.key_id)
        .outerjoin(User, User.id == ApiKey.user_id)
        .group_by(*groups[by])
        .order_by(groups[by][0])
    )

"""The wire types of billing. An amount is a decimal in the deployment's currency, as text."""

from typing import Annotated, Self

from pydantic import Field

from app.billing.balance import BalanceState, Mode
from app.catalogue.prices import AmountText, format_amount
from app.core.schemas import Answer, Body, Day, QueryInt, Time
from app.features.billing.service import ChargeRow, ChargesBy
from app.models import CreditEntry, EntryKind
from app.web.pagination import PAGE_SIZE_MAX, PageQuery

Currency = Annotated[
    str | None, Field(description="Of all amounts; null where no model has a price.", examples=["USD"])
]


class BillingPublic(Answer):
    """What an account may spend and has spent."""

    currency: Currency
    mode: Mode = Field(description="Whether the account pays in advance, or afterwards.")
    credit: str = Field(description="The sum of the account's entries.", examples=["20"])
    held: str = Field(description="The prices of generations that are queued or processing.", examples=["0.05"])
    charged: str = Field(description="What was taken from the credit so far.", examples=["7.45"])
    available: str | None = Field(
        description="`credit - charged - held`, and what is left of the allowance; null for an account that pays "
        "afterwards.",
        examples=["12.5"],
    )
    allowance: str = Field(description="How much of each period's spending the plan pays.", examples=["0"])
    spent: str = Field(description="The prices of what was delivered in this period.", examples=["7.45"])
    cap: str | None = Field(description="The most that may be spent in a period; null for no cap.", examples=["50"])
    period_start: Time
    period_end: Time
    plan: str | None = Field(examples=["starter"])

    @classmethod
    def of(cls, state: BalanceState, *, currency: str | None) -> Self:
        """The balance as its owner sees it."""
        return cls(
            currency=currency,
            mode=state.mode,
            credit=format_amount(state.credit),
            held=format_amount(state.held),
            charged=format_amount(state.charged),
            available=None if state.available is None else format_amount(state.available),
            allowance=format_amount(state.allowance),
            spent=format_amount(state.spent),
            cap=None if state.cap is None else format_amount(state.cap),
            period_start=state.period_start,
            period_end=state.period_end,
            plan=state.plan,
        )


class CapChange(Body):
    """The new cap of the account."""

    amount: AmountText | None = Field(
        description="The most that may be spent in a period; null for no cap but the plan's."
    )


class EntryPublic(Answer):
    """One change of the account's credit."""

    id: str = Field(examples=["ent_01kb0a6p9t28fm63cjp43w44255s68"])
    kind: EntryKind
    amount: str = Field(description="Negative where credit was taken away.", examples=["20"])
    currency: Currency
    reference: str = Field(description="What it is for; no two entries have the same.", examples=["stripe:pi_3NXq"])
    expires_at: Time | None = Field(description="From when on what is left of it is taken back.")
    created_at: Time

    @classmethod
    def of(cls, entry: CreditEntry, *, currency: str | None) -> Self:
        """The entry as the account's owner sees it."""
        return cls(
            id=entry.id,
            kind=entry.kind,
            amount=format_amount(entry.amount),
            currency=currency,
            reference=entry.reference,
            expires_at=entry.expires_at,
            created_at=entry.created_at,
        )


class ChargesQuery(PageQuery):
    """The charges to list."""

    limit: QueryInt = Field(default=PAGE_SIZE_MAX, ge=1, le=PAGE_SIZE_MAX, description="Rows on a page.")
    first: Day | None = Field(default=None, alias="from", description="The first day, UTC. By default all.")
    last: Day | None = Field(default=None, alias="to", description="The last day, UTC. By default all.")
    group_by: ChargesBy = Field(default="hour", description="One row for each hour, or for each UTC day.")


class ChargePublic(Answer):
    """What was delivered in an hour or on a day, and what has paid for it."""

    start: Time = Field(description="When the hour or the day began, in UTC.")
    amount: str = Field(description="The sum of the next three.", examples=["1.25"])
    from_allowance: str = Field(description="Paid by the plan.", examples=["0"])
    from_credit: str = Field(examples=["1.25"])
    billed: str = Field(description="To be paid by an invoice.", examples=["0"])
    currency: Currency

    @classmethod
    def of(cls, row: ChargeRow, *, currency: str | None) -> Self:
        """The row as the account's owner sees it."""
        return cls(
            start=row.start,
            amount=format_amount(row.amount),
            from_allowance=format_amount(row.from_allowance),
            from_credit=format_amount(row.from_credit),
            billed=format_amount(row.billed),
            currency=currency,
        )

"""The wire types of what is bought. An amount is a decimal in the deployment's currency, as text."""

from typing import Annotated, Literal, Self

from pydantic import Field

from app.catalogue.prices import AmountText, format_amount, read_amount
from app.core.schemas import Answer, Body, Storable, Time
from app.payments import Invoice, StripeSubscription


class TopUpCreate(Body):
    """Credit to be bought."""

    amount: AmountText = Field(
        description="One of the amounts that are offered, before taxes; an error lists them.", examples=["20"]
    )

    @property
    def millionths(self) -> int:
        """The amount."""
        return read_amount(self.amount)


class CheckoutOpened(Answer):
    """A page to pay on."""

    url: str = Field(
        description="A page at Stripe, open for a day.", examples=["https://checkout.stripe.com/c/pay/cs_1"]
    )


class PlanChoice(Body):
    """The plan to have."""

    plan: Annotated[str, Field(max_length=100), Storable] = Field(
        description="Its name; an error lists them.", examples=["starter"]
    )


class PlanChosen(Answer):
    """What is left to do for the plan."""

    plan: str = Field(examples=["starter"])
    url: str | None = Field(
        description="A page at Stripe that pays for it, open for a day; null where it holds now.",
        examples=["https://checkout.stripe.com/c/pay/cs_1"],
    )


class EndingPlan(Answer):
    """A subscription that was cancelled."""

    plan: str | None = Field(examples=["starter"])
    ends_at: Time | None = Field(description="Until then the plan goes on.")

    @classmethod
    def of(cls, ending: StripeSubscription) -> Self:
        """The subscription as its owner sees it."""
        return cls(plan=ending.plan, ends_at=ending.cancel_at)


class PortalOpened(Answer):
    """A page to look after payments."""

    url: str = Field(
        description="A page at Stripe, open for some minutes.", examples=["https://billing.stripe.com/p/session/1"]
    )


class InvoicePublic(Answer):
    """An invoice at Stripe."""

    id: str = Field(examples=["in_1MtHbELkdIwHu7ixl4OzzPMv"])
    number: str | None = Field(description="Null for a draft.", examples=["8A2F-0001"])
    status: Literal["draft", "open", "paid", "uncollectible", "void"]
    total: str = Field(description="With taxes.", examples=["12.1"])
    paid: str = Field(examples=["12.1"])
    currency: str = Field(examples=["USD"])
    created_at: Time
    period_start: Time
    period_end: Time
    url: str | None = Field(description="Where it can be seen, and paid if it is open.")
    pdf_url: str | None

    @classmethod
    def of(cls, invoice: Invoice) -> Self:
        """The invoice as its owner sees it."""
        return cls(
            id=invoice.id,
            number=invoice.number,
            status=invoice.status,
            total=format_amount(invoice.total),
            paid=format_amount(invoice.paid),
            currency=invoice.currency,
            created_at=invoice.created_at,
            period_start=invoice.period_start,
            period_end=invoice.period_end,
            url=invoice.url,
            pdf_url=invoice.pdf_url,
        )

"""The wire types of what can be bought."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field

from app.catalogue.offers import PlanOffer, TopUps
from app.catalogue.prices import format_amount
from app.core.schemas import Answer
from app.features.billing.schemas import Currency


class PlanPublic(Answer):
    """A plan. Where a limit is null, the deployment's holds."""

    name: str = Field(examples=["starter"])
    title: str = Field(examples=["Starter"])
    price: str = Field(description="Of each month.", examples=["20"])
    allowance: str = Field(description="The prices of images that each month includes.", examples=["25"])
    pays: Literal["in_advance", "afterwards"] = Field(
        description="What goes beyond the allowance is taken from the credit, or billed afterwards."
    )
    cap: str | None = Field(description="Of a month, unless the account sets another one.", examples=["100"])
    limit: str | None = Field(description="Images of all keys together.", examples=["600/minute"])
    limit_per_key: str | None = Field(examples=["60/minute"])
    concurrency_per_key: int | None = Field(examples=[5])
    models: Sequence[str] | None = Field(description="Null for all.", examples=[["nano-banana"]])
    weight: int = Field(description="Its share when asynchronous generations wait.", examples=[4])

    @classmethod
    def of(cls, plan: PlanOffer) -> Self:
        """The plan as customers see it."""
        return cls(
            name=plan.name,
            title=plan.title,
            price=format_amount(plan.price),
            allowance=format_amount(plan.allowance),
            pays="afterwards" if plan.is_postpaid else "in_advance",
            cap=None if plan.cap is None else format_amount(plan.cap),
            limit=plan.limit,
            limit_per_key=plan.limit_per_key,
            concurrency_per_key=plan.concurrency_per_key,
            models=plan.models,
            weight=plan.weight,
        )


class TopUpsPublic(Answer):
    """Which amounts of credit can be bought: these, and any between the bounds where there are some."""

    amounts: Sequence[str] = Field(examples=[["5", "10", "50"]])
    least: str | None = Field(examples=["5"])
    most: str | None = Field(examples=["1000"])

    @classmethod
    def of(cls, top_ups: TopUps) -> Self:
        """The top-ups as customers see them."""
        return cls(
            amounts=[format_amount(each) for each in top_ups.amounts],
            least=None if top_ups.least is None else format_amount(top_ups.least),
            most=None if top_ups.most is None else format_amount(top_ups.most),
        )


class PlanList(Answer):
    """What can be bought."""

    currency: Currency
    plans: Sequence[PlanPublic]
    top_ups: TopUpsPublic | None = Field(description="Null where no credit can be bought.")

    @classmethod
    def of(cls, plans: Mapping[str, PlanOffer], top_ups: TopUps | None, *, currency: str | None) -> Self:
        """In the order of the file of models."""
        return cls(
            currency=currency,
            plans=[PlanPublic.of(each) for each in plans.values()],
            top_ups=None if top_ups is None else TopUpsPublic.of(top_ups),
        )

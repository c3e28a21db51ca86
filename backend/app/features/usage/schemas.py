"""The wire types of usage."""

from datetime import date
from typing import Self

from pydantic import Field

from app.catalogue.prices import format_amount
from app.core.schemas import Answer, Day, QueryInt
from app.core.security import KeyEnvironment
from app.features.usage.service import GroupBy, UsageRow
from app.web.pagination import PAGE_SIZE_MAX, PageQuery


class UsageQuery(PageQuery):
    """The days and the key to list."""

    limit: QueryInt = Field(default=PAGE_SIZE_MAX, ge=1, le=PAGE_SIZE_MAX, description="Rows on a page.")
    first: Day | None = Field(default=None, alias="from", description="The first day, UTC. By default 29 before `to`.")
    last: Day | None = Field(default=None, alias="to", description="The last day, UTC. By default today.")
    key_id: str | None = Field(default=None, description="Only this key.")
    group_by: GroupBy | None = Field(
        default=None, description="One row for each day, key or model. By default one for each day and key."
    )


class UsagePublic(Answer):
    """How many images were delivered; what the rows are not divided by is null."""

    date: date | None
    key_id: str | None = Field(examples=["key_28fm63cjp43w44255s68"])
    environment: KeyEnvironment | None
    model: str | None = Field(examples=["nano-banana"])
    images: int
    list_amount: str = Field(description="The sum of the images' prices by the models' list.", examples=["1.25"])
    amount: str = Field(description="What was charged for them.", examples=["1.25"])
    currency: str | None = Field(description="Of the sums; null where no model has a price.", examples=["USD"])

    @classmethod
    def of(cls, row: UsageRow, *, currency: str | None) -> Self:
        """The row as callers see it: nothing of costs."""
        return cls(
            date=row.date,
            key_id=row.key_id,
            environment=row.environment,
            model=row.model,
            images=row.images,
            list_amount=format_amount(row.list_amount),
            amount=format_amount(row.amount),
            currency=currency,
        )

"""The wire types of usage."""

import re
from datetime import date
from typing import Annotated

from pydantic import BeforeValidator, Field

from app.core.schemas import Answer, QueryInt
from app.core.security import KeyEnvironment
from app.web.pagination import PAGE_SIZE_MAX, PageQuery

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def _iso_day(value: object) -> object:
    # Pydantic reads a number as seconds since 1970.
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("must be a day such as 2026-11-23")
    return value


Day = Annotated[date, BeforeValidator(_iso_day)]


class UsageQuery(PageQuery):
    """The days and the key to list."""

    limit: QueryInt = Field(default=PAGE_SIZE_MAX, ge=1, le=PAGE_SIZE_MAX, description="Rows on a page.")
    first: Day | None = Field(default=None, alias="from", description="The first day, UTC. By default 29 before `to`.")
    last: Day | None = Field(default=None, alias="to", description="The last day, UTC. By default today.")
    key_id: str | None = Field(default=None, description="Only this key.")


class UsagePublic(Answer):
    """How many pictures a key delivered on one UTC day."""

    date: date
    key_id: str = Field(examples=["key_28fm63cjp43w44255s68"])
    environment: KeyEnvironment
    images: int

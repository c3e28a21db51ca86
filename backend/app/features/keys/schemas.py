"""The wire types of API keys."""

import unicodedata
from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from app.billing.caps import KeyCap, KeyCapPeriod, cap_of
from app.catalogue.prices import AmountText, format_amount
from app.core.schemas import Answer, Body, QueryBool, Storable, Time
from app.core.security import KeyEnvironment
from app.models import ApiKey
from app.web.pagination import PageQuery

_LINE_BREAKING = {"Cc", "Zl", "Zp"}  # Unicode's control characters, line and paragraph separators


def _one_visible_line(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(character) in _LINE_BREAKING for character in name):
        raise ValueError("must not contain control characters")
    return name


KeyName = Annotated[
    str, Field(min_length=1, max_length=100, examples=["my first key"]), Storable, AfterValidator(_one_visible_line)
]


class KeyCreate(Body):
    """A key to be made."""

    name: KeyName
    environment: KeyEnvironment = Field(
        default="live", description="`test` keys run the whole contract on the stub, for free."
    )


class KeyCapChange(Body):
    """The new cap of a key."""

    amount: AmountText | None = Field(
        description="The most that may be spent with it in a period, in the deployment's currency; null for no cap."
    )
    period: KeyCapPeriod = Field(default="month", description="A day or month in UTC, or the key's whole life.")


class KeyCapPublic(Answer):
    """The cap of a key, and what counts against it, in the deployment's currency."""

    amount: str = Field(examples=["12.5"])
    period: KeyCapPeriod
    spent: str = Field(description="The prices of what was delivered in this period.", examples=["7.45"])
    held: str = Field(description="The prices of generations that are queued or processing.", examples=["0.05"])
    ends_at: Time | None = Field(description="When the period ends; null for the key's whole life.")

    @classmethod
    def of(cls, cap: KeyCap) -> Self:
        """The cap as the key's owner sees it."""
        return cls(
            amount=format_amount(cap.amount),
            period=cap.period,
            spent=format_amount(cap.spent),
            held=format_amount(cap.held),
            ends_at=cap.ends_at,
        )


class KeyPublic(Answer):
    """A key as its owner sees it from then on: the first 16 characters, never the whole."""

    id: str = Field(examples=["key_28fm63cjp43w44255s68"])
    name: str
    environment: KeyEnvironment
    prefix: str = Field(examples=["nb_live_12345678"])
    created_at: Time
    last_used_at: Time | None
    revoked_at: Time | None
    cap: KeyCapPublic | None = Field(description="The most that may be spent with it; null for no cap.")

    @classmethod
    def of(cls, key: ApiKey, *, now: datetime) -> Self:
        """The key as its owner sees it, with what was spent in the period that `now` belongs to."""
        cap = cap_of(key, now=now)
        shown = {name: getattr(key, name) for name in cls.model_fields if name != "cap"}
        return cls(**shown, cap=None if cap is None else KeyCapPublic.of(cap))


class KeyCreated(KeyPublic):
    """The only answer that ever holds the raw key. What is stored is a hash of it."""

    key: str = Field(examples=["nb_live_1234567890abcdef1234567890abcdef"])


class KeyListQuery(PageQuery):
    """The page of keys to list."""

    include_revoked: QueryBool = Field(default=False, description="Show revoked keys too.")

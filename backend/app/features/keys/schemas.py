"""The wire types of API keys."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

from app.core.schemas import Answer, Body, QueryBool, Storable, Time
from app.core.security import KeyEnvironment
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


class KeyPublic(Answer):
    """A key as its owner sees it from then on: the first 16 characters, never the whole."""

    id: str = Field(examples=["key_28fm63cjp43w44255s68"])
    name: str
    environment: KeyEnvironment
    prefix: str = Field(examples=["nb_live_12345678"])
    created_at: Time
    last_used_at: Time | None
    revoked_at: Time | None


class KeyCreated(KeyPublic):
    """The only answer that ever holds the raw key. What is stored is a hash of it."""

    key: str = Field(examples=["nb_live_1234567890abcdef1234567890abcdef"])


class KeyListQuery(PageQuery):
    """The page of keys to list."""

    include_revoked: QueryBool = Field(default=False, description="Show revoked keys too.")

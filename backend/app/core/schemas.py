"""The base classes of all wire schemas, and the field types that several schemas share."""

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer


class Body(BaseModel):
    """A request body. Unknown fields are refused, and no value is coerced to another type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """A response body, built from an object's attributes of the same names."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


_QUERY_DIGITS_MAX = 9
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def storable(text: str) -> str:
    """The text. Raises ValueError for one that PostgreSQL cannot store or UTF-8 cannot encode."""
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


def matches(pattern: re.Pattern[str], sentence: str) -> AfterValidator:
    """The check of a string: the pattern matches all of it. The error is the sentence: `Field(pattern=...)` would show
    people the pattern.
    """

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _whole_number(value: object) -> object:
    # int() also takes signs, blanks, underscores and digits of other scripts; only ASCII digits are a number here.
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()) or len(value) > _QUERY_DIGITS_MAX:
            raise ValueError("must be a whole number")
        return int(value)
    return value


def _boolean(value: object) -> object:
    if isinstance(value, str):
        if value not in {"true", "false"}:
            raise ValueError("must be true or false")
        return value == "true"
    return value


def _iso_day(value: object) -> object:
    # Pydantic reads a number as seconds since 1970.
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("must be a day such as 2026-11-23")
    return value


Storable = AfterValidator(storable)
"""The check that makes a string a Text. A bound on the length stands before it: behind a check of ours, pydantic would
test the length in Python, and its sentence would call characters items.
"""

Text = Annotated[str, Storable]
"""Text that PostgreSQL can store and UTF-8 can encode. Every string of a request body has this type."""

QueryInt = Annotated[int, BeforeValidator(_whole_number)]
QueryBool = Annotated[bool, BeforeValidator(_boolean)]
Day = Annotated[date, BeforeValidator(_iso_day)]


@lru_cache(maxsize=128)  # all generations of one commit have the same time
def format_time(at: datetime) -> str:
    """RFC 3339 in UTC, ending in `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str)]
"""RFC 3339 in UTC, ending in `Z`."""

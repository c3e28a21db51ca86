"""The strict base of every wire schema, and the types of field that several of them share."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer


class Body(BaseModel):
    """What a caller sends. Unknown fields are refused and nothing is coerced."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """What a caller gets. Built from attributes of the same names."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


_QUERY_DIGITS_MAX = 9


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without lone surrogates") from None
    return text


def _whole_number(value: object) -> object:
    # int() takes signs, blanks, underscores and other scripts' digits; a query string is plain digits or wrong.
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()) or len(value) > _QUERY_DIGITS_MAX:
            raise ValueError("must be a whole number")
        return int(value)
    return value


def _true_or_false(value: object) -> object:
    if isinstance(value, str):
        if value not in {"true", "false"}:
            raise ValueError("must be true or false")
        return value == "true"
    return value


Text = Annotated[str, AfterValidator(_storable)]
"""Text that PostgreSQL can keep and UTF-8 can carry. Every string of a body is one."""

QueryInt = Annotated[int, BeforeValidator(_whole_number)]
QueryBool = Annotated[bool, BeforeValidator(_true_or_false)]


@lru_cache(maxsize=128)  # all that one commit records was recorded at the same time
def format_time(at: datetime) -> str:
    """RFC 3339 in UTC, ending in `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str)]
"""RFC 3339 in UTC, ending in `Z`."""

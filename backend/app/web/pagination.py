"""Lists that are read a page at a time: newest first, from a cursor that no insert and no delete can shift."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Protocol, Self, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.core.schemas import QueryInt
from app.core.settings import Settings
from app.web.middleware import add_answer_headers

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 100


class Listed(Protocol):
    """A row that a list can be ordered by."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> datetime: ...


Row = TypeVar("Row", bound=Listed)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place behind a row: its time and, among rows of one time, its id."""

    created_at: datetime
    id: str

    @classmethod
    def read(cls, text: str) -> Self:
        """The cursor that `str` wrote. Raises ValueError for anything else."""
        try:
            created_at, row_id = json.loads(urlsafe_b64decode(text.encode("ascii")))
            cursor = cls(datetime.fromisoformat(created_at), row_id)
            sound = str(cursor) == text and cursor.created_at.utcoffset() == timedelta() and row_id.isascii()
        except (ValueError, TypeError, AttributeError, RecursionError):
            sound = False
        if not sound or "\0" in cursor.id:
            raise ValueError("must be one that a Link header gave")
        return cursor

    def __str__(self) -> str:
        return urlsafe_b64encode(json.dumps([self.created_at.isoformat(), self.id]).encode()).decode()


def _readable(text: str) -> str:
    Cursor.read(text)
    return text


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    limit: QueryInt = Field(default=PAGE_SIZE_DEFAULT, ge=1, le=PAGE_SIZE_MAX, description="Rows on a page.")
    cursor: Annotated[str, AfterValidator(_readable)] | None = Field(
        default=None, description="Where the page begins: taken from the `Link` header of the page before."
    )

    @property
    def after(self) -> Cursor | None:
        return Cursor.read(self.cursor) if self.cursor else None


def one_page(request: Request, rows: Sequence[Row], *, query: PageQuery) -> Sequence[Row]:
    """The first `limit` of up to `limit + 1` rows; where there is one more, with a `Link` to the page it begins."""
    page, further = split_page(rows, query=query)
    if further is not None:
        settings: Settings = request.app.state.settings
        url = f"{settings.public_url}{request.url.path}?{further}"
        add_answer_headers(request, {b"link": f'<{url}>; rel="next"'.encode("latin-1")})
    return page


def split_page(rows: Sequence[Row], *, query: PageQuery) -> tuple[Sequence[Row], str | None]:
    """The first `limit` of up to `limit + 1` rows; and where there is one more, the query of the page it begins."""
    page = rows[: query.limit]
    if len(rows) <= query.limit:
        return page, None
    given = query.model_dump(mode="json", by_alias=True, exclude_unset=True)
    parameters = {name: value if isinstance(value, str) else str(value).lower() for name, value in given.items()}
    return page, urlencode({**parameters, "cursor": str(Cursor(page[-1].created_at, page[-1].id))})

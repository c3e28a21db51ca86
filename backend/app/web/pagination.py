"""Lists that clients read a page at a time, newest rows first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Protocol, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.core.cursor import Cursor
from app.core.schemas import QueryInt
from app.web.headers import add_response_headers
from app.web.public_url import public_url_of

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 100


class Listed(Protocol):
    """A row that a list can be ordered by."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> datetime: ...


Row = TypeVar("Row", bound=Listed)


def _readable(text: str) -> str:
    Cursor.read(text)
    return text


class PageQuery(BaseModel):
    """The parameters that choose a page of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    limit: QueryInt = Field(default=PAGE_SIZE_DEFAULT, ge=1, le=PAGE_SIZE_MAX, description="Rows on a page.")
    cursor: Annotated[str, AfterValidator(_readable)] | None = Field(
        default=None, description="Where the page begins: taken from the `Link` header of the page before."
    )

    @property
    def after(self) -> Cursor | None:
        return Cursor.read(self.cursor) if self.cursor else None


def one_page(request: Request, rows: Sequence[Row], *, query: PageQuery) -> Sequence[Row]:
    """The first `limit` of up to `limit + 1` rows. If there is one more, the response has a `Link` to the next page."""
    page, next_query = split_page(rows, query=query)
    if next_query is not None:
        url = f"{public_url_of(request)}{request.url.path}?{next_query}"
        add_response_headers(request, {b"link": f'<{url}>; rel="next"'.encode("latin-1")})
    return page


def split_page(rows: Sequence[Row], *, query: PageQuery) -> tuple[Sequence[Row], str | None]:
    """The first `limit` of up to `limit + 1` rows, and the query string of the next page; None if there is none."""
    page = rows[: query.limit]
    if len(rows) <= query.limit:
        return page, None
    given = query.model_dump(mode="json", by_alias=True, exclude_unset=True)
    parameters = {name: value if isinstance(value, str) else str(value).lower() for name, value in given.items()}
    return page, urlencode({**parameters, "cursor": str(Cursor(page[-1].created_at, page[-1].id))})

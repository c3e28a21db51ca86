"""Usage: how much, by day and key, as a chart, as a table and as a file."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict

from app.console.charts import draw_chart
from app.console.site import Page
from app.console.visits import Owner, Visitor
from app.core.cursor import Cursor
from app.features.auth.dependencies import CurrentAccounts
from app.features.usage import service
from app.web.database import Session

router = APIRouter(include_in_schema=False)

SPANS = (7, 30, 90)
KEYS_SHOWN = 5
_ROWS_AT_A_TIME = 1000


class Span(BaseModel):
    """How many days, today included."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    days: Annotated[Literal["7", "30", "90"], BeforeValidator(str)] = "30"

    def ending(self, last: date) -> tuple[date, date]:
        return last - timedelta(days=int(self.days) - 1), last


@router.get("/usage")
async def show_usage(
    visitor: Owner, span: Annotated[Span, Query()], accounts: CurrentAccounts, session: Session
) -> Page:
    """What the account's keys delivered, day by day."""
    first, last = span.ending(_today(accounts))
    shares = await service.find_shares(session, user_id=visitor.account.id, first=first, last=last, keys_max=KEYS_SHOWN)
    return visitor.page("usage.html", chart=draw_chart(shares, first=first, last=last), spans=SPANS, span=span)


@router.get("/usage.csv")
async def download_usage(visitor: Owner, span: Annotated[Span, Query()], accounts: CurrentAccounts) -> Response:
    """The same, a line for each key and day."""
    first, last = span.ending(_today(accounts))
    headers = {"Content-Disposition": f'attachment; filename="usage-{first}-{last}.csv"'}
    return StreamingResponse(_lines(visitor, first, last), media_type="text/csv; charset=utf-8", headers=headers)


def _today(accounts: CurrentAccounts) -> date:
    return datetime.fromtimestamp(accounts.clock(), UTC).date()


async def _lines(visitor: Visitor, first: date, last: date) -> AsyncIterator[str]:
    yield "date,key_id,key_name,environment,images\r\n"
    after: Cursor | None = None
    days: Mapping[str, Any] = {"first": first, "last": last, "today": last, "key_id": None}
    while True:
        async with visitor.transaction() as session:
            rows = await service.find_usage(
                session, user_id=visitor.account.id, after=after, limit=_ROWS_AT_A_TIME, **days
            )
        yield "".join(
            f"{row.date},{row.key_id},{_cell(row.key_name)},{row.environment},{row.images}\r\n" for row in rows
        )
        if len(rows) < _ROWS_AT_A_TIME:
            return
        after = Cursor(rows[-1].created_at, rows[-1].id)


def _cell(text: str) -> str:
    """Quoted; and what a spreadsheet would take for a formula begins with an apostrophe, so that it is text there."""
    harmless = f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
    return '"' + harmless.replace('"', '""') + '"'

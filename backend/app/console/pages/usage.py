"""Usage: delivered images by day and key, as a chart, as a table and as a CSV file."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Annotated, Literal

from fastapi import Response
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict

from app.console.charts import draw_chart
from app.console.csv_lines import csv_lines
from app.console.dependencies import LoggedInSession
from app.console.notices import find_notices
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.core.cursor import Cursor
from app.features.dependencies import CurrentServices
from app.features.usage import service
from app.web.query import query_of

page = Page("/usage", template="usage.html", label="Usage")

PERIODS = (7, 30, 90)  # in days
KEYS_SHOWN = 5
_ROWS_AT_A_TIME = 1000


class UsagePeriod(BaseModel):
    """The last so many days, today included."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    days: Annotated[Literal["7", "30", "90"], BeforeValidator(str)] = "30"

    def ending(self, last: date) -> tuple[date, date]:
        """The first and the last day of the period that ends on this day."""
        return last - timedelta(days=int(self.days) - 1), last


@page.router.get(page.path)
async def show_usage(
    session: LoggedInSession,
    period: Annotated[UsagePeriod, query_of(UsagePeriod)],
    services: CurrentServices,
) -> HTMLResponse:
    """Show how many images each of the account's keys delivered on each day."""
    account_id = session.user.account_id
    first, last = period.ending(services.now.date())
    async with session.transaction() as database:
        shares = await service.find_shares(database, account_id=account_id, first=first, last=last, keys_max=KEYS_SHOWN)
        models = await service.find_usage(
            database, account_id=account_id, first=first, last=last, limit=_ROWS_AT_A_TIME, group_by="model"
        )
    return session.render(
        page.template,
        notices=await find_notices(session),
        chart=draw_chart(shares, first=first, last=last),
        models=sorted(models, key=lambda row: (-row.images, row.model or "")),
        currency=services.generations.catalogue.catalogue.currency,
        charges=services.settings.charges,
        periods=PERIODS,
        days=int(period.days),
    )


@page.router.get(f"{page.path}.csv")
async def download_usage(
    session: LoggedInSession, period: Annotated[UsagePeriod, query_of(UsagePeriod)], services: CurrentServices
) -> Response:
    """Download the same numbers, with a line for each key and day."""
    first, last = period.ending(services.now.date())
    headers = {"Content-Disposition": f'attachment; filename="usage-{first}-{last}.csv"'}
    return StreamingResponse(_lines(session, first, last), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(session: ConsoleSession, first: date, last: date) -> AsyncIterator[str]:
    yield csv_lines([("date", "key_id", "key_name", "environment", "images")])
    account_id = session.user.account_id
    after: Cursor | None = None
    while True:
        async with session.transaction() as database:
            rows = await service.find_usage(
                database, account_id=account_id, first=first, last=last, after=after, limit=_ROWS_AT_A_TIME
            )
        yield csv_lines((row.date, row.key_id, row.key_name, row.environment, row.images) for row in rows)
        if len(rows) < _ROWS_AT_A_TIME:
            return
        after = Cursor(rows[-1].created_at, rows[-1].id)

"""History: the generations of the account."""

from typing import Annotated

from fastapi.responses import HTMLResponse
from pydantic import Field

from app.console.dependencies import LoggedInSession
from app.console.rendering import Page
from app.core.schemas import QueryInt
from app.features.dependencies import CurrentGenerations, Session
from app.generations import records
from app.web.pagination import PAGE_SIZE_MAX, PageQuery, split_page
from app.web.query import query_of

page = Page("/history", template="history.html", label="History")

_GENERATIONS = 24  # fills the last row of the grid, whether it has two, three or four columns


class HistoryQuery(PageQuery):
    """Which part of the history."""

    limit: QueryInt = Field(default=_GENERATIONS, ge=1, le=PAGE_SIZE_MAX)


@page.router.get(page.path)
async def show_history(
    session: LoggedInSession,
    query: Annotated[HistoryQuery, query_of(HistoryQuery)],
    generations: CurrentGenerations,
    database: Session,
) -> HTMLResponse:
    """Show the generations of all the account's keys, newest first."""
    found = await records.find_all(
        generations,
        database,
        account_id=session.user.account_id,
        environments=["live", "test"],
        before_id=query.after.id if query.after else None,
        limit=query.limit + 1,
    )
    newest, older = split_page(found, query=query)
    return session.render(page.template, generations=newest, older=older)

"""History: the generations of the account."""

from typing import Annotated

from fastapi import Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from app.console.dependencies import LoggedInSession
from app.console.rendering import Page
from app.core.db import Session
from app.core.schemas import QueryInt
from app.core.web.pages import PAGE_SIZE_MAX, PageQuery, split_page
from app.features.generate import service
from app.features.generate.dependencies import CurrentStudio

page = Page("/history", template="history.html", label="History")

_GENERATIONS = 24  # fills the last row of the grid, whether it has two, three or four columns


class HistoryQuery(PageQuery):
    """Which part of the history."""

    limit: QueryInt = Field(default=_GENERATIONS, ge=1, le=PAGE_SIZE_MAX)


@page.router.get(page.path)
async def show_history(
    session: LoggedInSession, query: Annotated[HistoryQuery, Query()], studio: CurrentStudio, database: Session
) -> HTMLResponse:
    """Show the generations of all the account's keys, newest first."""
    found = await service.find_all(
        studio, database, user_id=session.user.id, environment=None, after=query.after, limit=query.limit + 1
    )
    generations, older = split_page(found, query=query)
    return session.render(page.template, generations=generations, older=older)

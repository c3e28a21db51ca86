"""What the account made."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.console.site import Page
from app.console.visits import Owner
from app.core.schemas import QueryInt
from app.features.generate import service
from app.features.generate.dependencies import CurrentStudio
from app.web.database import Session
from app.web.pagination import PAGE_SIZE_MAX, PageQuery, split_page

router = APIRouter(include_in_schema=False)

_PICTURES = 24


class HistoryQuery(PageQuery):
    """Which page of the pictures: whole rows of two, three and four."""

    limit: QueryInt = Field(default=_PICTURES, ge=1, le=PAGE_SIZE_MAX)


@router.get("/history")
async def show_history(
    visitor: Owner, query: Annotated[HistoryQuery, Query()], studio: CurrentStudio, session: Session
) -> Page:
    """The account's pictures with all its keys, newest first."""
    found = await service.find_all(
        studio, session, user_id=visitor.account.id, environment=None, after=query.after, limit=query.limit + 1
    )
    pictures, further = split_page(found, query=query)
    return visitor.page("history.html", pictures=pictures, further=further, query=query)

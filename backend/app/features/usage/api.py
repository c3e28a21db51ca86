"""Usage over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.errors import Invalid
from app.features.auth.dependencies import CurrentUser
from app.features.auth.service import InvalidToken
from app.features.dependencies import CurrentServices, Session
from app.features.keys.service import KeyNotFound
from app.features.usage import service
from app.features.usage.schemas import UsagePublic, UsageQuery
from app.web.openapi import problems
from app.web.pagination import one_page
from app.web.query import query_of

router = APIRouter(prefix="/v1", tags=["Usage"])


@router.get("/usage", responses=problems(InvalidToken, KeyNotFound, Invalid))
async def list_usage(
    request: Request,
    user: CurrentUser,
    services: CurrentServices,
    query: Annotated[UsageQuery, query_of(UsageQuery)],
    session: Session,
) -> list[UsagePublic]:
    """List how many images each key delivered on each UTC day, newest first; `from` and `to` are both included.
    With `group_by`, one row for each day, key or model instead.

    Test keys count too, marked by their environment, and never cost.
    """
    rows = await service.find_usage(
        session,
        account_id=user.account_id,
        first=query.first,
        last=query.last or services.now.date(),
        key_id=query.key_id,
        after=query.after,
        limit=query.limit + 1,
        group_by=query.group_by,
    )
    currency = services.generations.catalogue.catalogue.currency
    return [UsagePublic.of(row, currency=currency) for row in one_page(request, rows, query=query)]

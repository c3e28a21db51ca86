"""Usage over HTTP."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.core.db import Session
from app.core.errors import Invalid
from app.core.web.openapi import problems
from app.core.web.pages import one_page
from app.features.auth.dependencies import CurrentAccounts, CurrentUser
from app.features.auth.service import InvalidToken
from app.features.keys.service import KeyNotFound
from app.features.usage import service
from app.features.usage.schemas import UsagePublic, UsageQuery

router = APIRouter(prefix="/v1", tags=["Usage"])


@router.get("/usage", responses=problems(InvalidToken, KeyNotFound, Invalid))
async def list_usage(
    request: Request,
    user: CurrentUser,
    accounts: CurrentAccounts,
    query: Annotated[UsageQuery, Query()],
    session: Session,
) -> list[UsagePublic]:
    """List how many images each key delivered on each UTC day, newest first; `from` and `to` are both included.

    Images of test keys are counted too, under the environment `test`, and are free.
    """
    rows = await service.find_usage(
        session,
        user_id=user.id,
        first=query.first,
        last=query.last,
        key_id=query.key_id,
        after=query.after,
        limit=query.limit + 1,
        today=datetime.fromtimestamp(accounts.clock(), UTC).date(),
    )
    return [UsagePublic.model_validate(row) for row in one_page(request, rows, query=query)]

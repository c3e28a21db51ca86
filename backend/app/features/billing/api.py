"""Money over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Request

from app.billing import balance, caps
from app.catalogue.prices import read_amount
from app.core.errors import Invalid, RateLimited
from app.features.auth.dependencies import CurrentUser, WaitingUser
from app.features.auth.service import InvalidToken
from app.features.billing import service
from app.features.billing.dependencies import Currency
from app.features.billing.schemas import BillingPublic, CapChange, ChargePublic, ChargesQuery, EntryPublic
from app.features.dependencies import Session
from app.features.keys.dependencies import AccountId
from app.generations.errors import InvalidApiKey
from app.web.body import json_body
from app.web.openapi import BODY_PROBLEMS, problems
from app.web.pagination import PageQuery, one_page
from app.web.query import query_of

router = APIRouter(prefix="/v1/billing", tags=["Billing"])


@router.get("", responses=problems(InvalidToken, InvalidApiKey, RateLimited))
async def get_billing(account_id: AccountId, session: Session, currency: Currency) -> BillingPublic:
    """Show what the account may spend and has spent, by login token or by any of its API keys."""
    return BillingPublic.of(await balance.find(session, account_id=account_id), currency=currency)


@router.put("/cap", responses=problems(InvalidToken, *BODY_PROBLEMS))
async def set_account_cap(
    user: WaitingUser, change: Annotated[CapChange, json_body(CapChange)], session: Session, currency: Currency
) -> BillingPublic:
    """Set the most that the account may spend in each of its periods, or remove that cap.

    It is at most the cap of the account's plan, which holds again where the account's own is removed. It may be less
    than what is spent already: then nothing more is drawn until the period ends.
    """
    amount = None if change.amount is None else read_amount(change.amount)
    await caps.set_own_cap(session, account_id=user.account_id, amount=amount)
    return BillingPublic.of(await balance.find(session, account_id=user.account_id), currency=currency)


@router.get("/entries", responses=problems(InvalidToken, Invalid))
async def list_entries(
    request: Request,
    user: CurrentUser,
    query: Annotated[PageQuery, query_of(PageQuery)],
    session: Session,
    currency: Currency,
) -> list[EntryPublic]:
    """List what has changed the account's credit, newest first: top-ups, grants, refunds, adjustments and expiries.

    The `Link` header leads to the next page.
    """
    found = await service.find_entries(session, account_id=user.account_id, after=query.after, limit=query.limit + 1)
    return [EntryPublic.of(each, currency=currency) for each in one_page(request, found, query=query)]


@router.get("/charges", responses=problems(InvalidToken, Invalid))
async def list_charges(
    request: Request,
    user: CurrentUser,
    query: Annotated[ChargesQuery, query_of(ChargesQuery)],
    session: Session,
    currency: Currency,
) -> list[ChargePublic]:
    """List what the account was charged in each hour, or with `group_by=day` on each UTC day, newest first; `from` and
    `to` are both included. What it was charged for is in `GET /v1/usage`.

    The `Link` header leads to the next page.
    """
    found = await service.find_charges(
        session,
        account_id=user.account_id,
        first=query.first,
        last=query.last,
        group_by=query.group_by,
        after=query.after,
        limit=query.limit + 1,
    )
    return [ChargePublic.of(each, currency=currency) for each in one_page(request, found, query=query)]

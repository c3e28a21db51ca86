"""Buying over HTTP: pages at Stripe that pay for credit and plans, and what has been paid there."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.billing import checkouts
from app.billing.checkouts import (
    NoSubscription,
    PaymentMissing,
    PaymentRefused,
    PaymentsOff,
    PlanChanging,
    PlanNotSold,
)
from app.billing.purchases import Purchases
from app.core.errors import RateLimited
from app.features.auth.dependencies import WaitingUser
from app.features.auth.service import InvalidToken
from app.features.billing.checkout_schemas import (
    CheckoutOpened,
    EndingPlan,
    InvoicePublic,
    PlanChoice,
    PlanChosen,
    PortalOpened,
    TopUpCreate,
)
from app.features.billing.dependencies import limit_checkouts
from app.features.dependencies import CurrentServices, services_of
from app.models import User
from app.payments import StripeRefused
from app.web.body import json_body
from app.web.openapi import BODY_PROBLEMS, problems
from app.web.public_url import public_url_of

router = APIRouter(prefix="/v1/billing", tags=["Billing"])

_PROBLEMS = (InvalidToken, RateLimited, PaymentsOff, StripeRefused)


async def _buyer(request: Request, user: WaitingUser) -> User:
    await limit_checkouts(request, account_id=user.account_id)
    return user


Buyer = Annotated[User, Depends(_buyer)]
"""WaitingUser, whose account may have Stripe asked again now. Raises RateLimited."""


def purchases_of(request: Request) -> Purchases:
    """Raises PaymentsOff where no payments are taken."""
    purchases = services_of(request).purchases
    if purchases is None:
        raise PaymentsOff
    return purchases


CurrentPurchases = Annotated[Purchases, Depends(purchases_of)]


def urls_of(request: Request) -> checkouts.ReturnUrls:
    """The console's page about money."""
    now = int(services_of(request).generations.clock())
    return checkouts.ReturnUrls(f"{public_url_of(request)}/billing", opened_at=now)


ReturnUrls = Annotated[checkouts.ReturnUrls, Depends(urls_of)]


@router.post("/top-ups", status_code=201, responses=problems(*_PROBLEMS, *BODY_PROBLEMS))
async def create_top_up(
    user: Buyer, new: Annotated[TopUpCreate, json_body(TopUpCreate)], purchases: CurrentPurchases, urls: ReturnUrls
) -> CheckoutOpened:
    """Open a page at Stripe that pays for credit.

    Taxes come on top of the amount. The credit is there once the payment has arrived, which for some payment methods
    takes days.
    """
    checkout = await checkouts.open_top_up(purchases, user=user, amount=new.millionths, urls=urls)
    return CheckoutOpened(url=checkout.url)


@router.post(
    "/subscription",
    status_code=201,
    responses=problems(*_PROBLEMS, PlanNotSold, PlanChanging, PaymentMissing, PaymentRefused, *BODY_PROBLEMS),
)
async def choose_plan(
    user: Buyer,
    choice: Annotated[PlanChoice, json_body(PlanChoice)],
    purchases: CurrentPurchases,
    urls: ReturnUrls,
    services: CurrentServices,
) -> PlanChosen:
    """Subscribe to a plan, or change the plan of the subscription that runs.

    Without a subscription, `url` is a page at Stripe that pays for the plan. With one, the plan holds at once: a dearer
    plan is paid in full, and its first month begins now; any other is paid from the next month on. For what is left of
    a month nothing is given back. Where the bank wants the payment to be confirmed, `url` is a page for that, and the
    plan holds once it is done.
    """
    checkout = await checkouts.choose_plan(purchases, user=user, name=choice.plan, urls=urls, now=services.now)
    return PlanChosen(plan=choice.plan, url=checkout and checkout.url)


@router.delete("/subscription", responses=problems(*_PROBLEMS, NoSubscription))
async def end_plan(user: Buyer, purchases: CurrentPurchases) -> EndingPlan:
    """Cancel the subscription. The plan goes on until the month that is paid ends; choosing a plan takes it back."""
    return EndingPlan.of(await checkouts.end_plan(purchases, account_id=user.account_id))


@router.post("/portal", status_code=201, responses=problems(*_PROBLEMS))
async def open_portal(user: Buyer, purchases: CurrentPurchases, urls: ReturnUrls) -> PortalOpened:
    """Open a page at Stripe with the account's invoices, payment methods and billing address."""
    return PortalOpened(url=await checkouts.open_portal(purchases, user=user, return_url=urls.page))


@router.get("/invoices", responses=problems(*_PROBLEMS))
async def list_invoices(user: Buyer, purchases: CurrentPurchases) -> list[InvoicePublic]:
    """List the account's last 24 invoices, newest first, with links to them at Stripe."""
    invoices = await checkouts.find_invoices(purchases, account_id=user.account_id)
    return [InvoicePublic.of(each) for each in invoices]

"""What Stripe reports over HTTP. Its documentation is Stripe's: the route is not one of the API."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.billing import stripe_events
from app.core.errors import InvalidRequest
from app.features.billing.checkout import CurrentPurchases, purchases_of
from app.payments import WEBHOOK_PATH, EventRefused, StripeEvent
from app.web.body import read_blob
from app.web.headers import header_values

router = APIRouter(include_in_schema=False)


class EventNotAccepted(InvalidRequest):
    code, detail = "event_refused", "This is no event of Stripe's for this deployment"


async def _signed_event(request: Request) -> StripeEvent:
    """Raises PaymentsOff and EventNotAccepted."""
    purchases = purchases_of(request)
    body = await (await read_blob(request)).read()
    signature = "".join(header_values(request, b"stripe-signature"))
    try:
        return purchases.stripe.event(body, signature)
    except EventRefused as error:
        raise EventNotAccepted(str(error)) from None


@router.post(WEBHOOK_PATH, status_code=200)
async def take_stripe_event(
    event: Annotated[StripeEvent, Depends(_signed_event)], purchases: CurrentPurchases
) -> dict[str, str]:
    """Returns once everything that follows from the event is committed. Stripe repeats what was answered otherwise."""
    await stripe_events.handle(purchases, event)
    return {"id": event.id}

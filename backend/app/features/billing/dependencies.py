"""What the routes of billing are given besides the services."""

from typing import Annotated

from fastapi import Depends, Request

from app.features.dependencies import CurrentServices, services_of
from app.features.rate_limits import raise_if_refused, set_rate_limit_headers
from app.ratelimit import Take


def _currency(services: CurrentServices) -> str | None:
    return services.generations.catalogue.catalogue.currency


Currency = Annotated[str | None, Depends(_currency)]
"""The currency of all amounts; None where no model has a price."""


async def limit_checkouts(request: Request, *, account_id: str) -> None:
    """Takes one call to Stripe from the account's limit. Raises RateLimited."""
    services = services_of(request)
    taken = await services.limiter.take(
        [Take("checkout", account_id, services.policies.checkout_per_account)], group=account_id
    )
    set_rate_limit_headers(request, taken.decisions)
    raise_if_refused(request, taken)

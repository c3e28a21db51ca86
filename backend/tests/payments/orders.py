"""What the tests of payments buy."""

import secrets

from app.payments import Checkout
from app.payments.stripe import Stripe

_DONE, _CANCELLED = "https://here.example/?done={CHECKOUT_SESSION_ID}", "https://here.example/"


def new_account_id() -> str:
    return f"acc_{secrets.token_hex(8)}"


async def new_customer(stripe: Stripe, account_id: str = "") -> str:
    account_id = account_id or new_account_id()
    return await stripe.find_or_create_customer(account_id, f"{account_id}@example.com")


async def top_up(
    stripe: Stripe,
    customer_id: str,
    *,
    amount: int = 25_000_000,
    currency: str = "USD",
    account_id: str = "acc_1",
    key: str = "",
) -> Checkout:
    """A checkout, which a browser has not seen yet; without a key it is a new one."""
    return await stripe.checkout_for_top_up(
        customer_id=customer_id,
        amount=amount,
        currency=currency,
        account_id=account_id,
        idempotency_key=key or secrets.token_hex(8),
        success_url=_DONE,
        cancel_url=_CANCELLED,
    )


async def subscribe(stripe: Stripe, customer_id: str, *, has_overage: bool = False) -> Checkout:
    return await stripe.checkout_for_plan(
        customer_id=customer_id,
        account_id="acc_1",
        plan="starter",
        has_overage=has_overage,
        idempotency_key=secrets.token_hex(8),
        success_url=_DONE,
        cancel_url=_CANCELLED,
    )

"""Customers at Stripe, which stand for accounts. One may be deleted there at any time, and its subscriptions too."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from app.billing import subscriptions
from app.billing.purchases import Purchases
from app.core.logs import logger
from app.models import StripeCustomer, User
from app.payments import StripeRefused

Result = TypeVar("Result")


class CustomerGone(Exception):
    """The customer was deleted at Stripe. The account has none any more, and no plan that it paid."""


async def find_customer(purchases: Purchases, account_id: str) -> str | None:
    """The id of the account's customer at Stripe; None before it has bought anything."""
    of_account = select(StripeCustomer.customer_id).where(StripeCustomer.account_id == account_id)
    async with purchases.sessions.begin() as session:
        return await session.scalar(of_account)


async def for_customer(purchases: Purchases, user: User, ask: Callable[[str], Awaitable[Result]]) -> Result:
    """What `ask` returns for the customer of the user's account. One is made where there is none; where it was deleted,
    a new one is, for which `ask` is called once more.
    """
    customer_id = await _find_or_create(purchases, user)
    try:
        async with noticed_if_gone(purchases, account_id=user.account_id, customer_id=customer_id):
            return await ask(customer_id)
    except CustomerGone:
        return await ask(await _find_or_create(purchases, user))


@asynccontextmanager
async def noticed_if_gone(purchases: Purchases, *, account_id: str, customer_id: str) -> AsyncIterator[None]:
    """Around calls about a customer. Raises CustomerGone where it was deleted, once that is written. With a key of
    another account of Stripe's no customer is known: that is StripeRefused, and no account loses its plan by it.
    """
    try:
        yield
    except StripeRefused as error:
        if not (error.is_customer_missing and await purchases.stripe.is_deleted(customer_id)):
            raise
        await _forget(purchases, account_id, customer_id)
        raise CustomerGone from error


async def _find_or_create(purchases: Purchases, user: User) -> str:
    """It is stored before anything is bought: events find the account by it."""
    customer_id = await find_customer(purchases, user.account_id)
    if customer_id is not None:
        return customer_id
    made = await purchases.stripe.find_or_create_customer(user.account_id, user.email)
    new = insert_or_skip(StripeCustomer).values(account_id=user.account_id, customer_id=made).on_conflict_do_nothing()
    async with purchases.sessions.begin() as session:
        await session.execute(new)
    return await find_customer(purchases, user.account_id) or made


async def _forget(purchases: Purchases, account_id: str, customer_id: str) -> None:
    """Does nothing where another process has done so: the account may have a new customer and plan by then."""
    this = delete(StripeCustomer).where(StripeCustomer.customer_id == customer_id)
    async with purchases.sessions.begin() as session:
        found = await subscriptions.find_locked(session, account_id=account_id)
        if await session.scalar(this.returning(StripeCustomer.account_id)) is None:
            return
        if found is not None and found.stripe_id is not None:
            await subscriptions.change_status(session, found, "cancelled")
    logger.warning("stripe_customer_gone", account=account_id, object=customer_id)

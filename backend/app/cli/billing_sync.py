"""`nanobanana billing sync`: what plans and payments need at Stripe is made there."""

import asyncio
import sys

import click

from app.catalogue.configured import catalogue_of
from app.cli.errors import errors_as_sentences
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from app.payments import WEBHOOK_PATH, PlanPrice, StripeRefused, StripeUnavailable, Synced
from app.payments.opened import open_stripe

_DONE = {"create": "Created", "update": "Changed"}


@click.command()
@click.option("--check", "is_check", is_flag=True, help="Change nothing, and end with 1 where something would be.")
def sync(*, is_check: bool) -> None:
    """Make at Stripe what plans and payments need, and change what differs: run it after each change of the plans.

    That is a product and a price for each plan, the meter and its price, the customer portal, and where PUBLIC_URL is
    an https URL the webhook endpoint, whose secret is printed once. Subscriptions keep the price that they began with.
    """
    with errors_as_sentences():
        settings = load_settings()
        synced = asyncio.run(_sync(settings, is_check=is_check))
        for change in synced.changes:
            done = f"Would {change.action}" if is_check else _DONE[change.action]
            click.echo(f"{done}: {change.thing}")
        if not synced.changes:
            click.echo("Nothing differs.")
        if synced.webhook_secret is not None:
            click.echo(f"Set this, which Stripe says only once: STRIPE_WEBHOOK_SECRET={synced.webhook_secret}")
        if _webhook_url(settings) is None:
            click.echo("PUBLIC_URL is no https URL: Stripe cannot send events to it.", err=True)
        if is_check and synced.changes:
            sys.exit(1)


async def _sync(settings: Settings, *, is_check: bool) -> Synced:
    """Raises ConfigurationError, with a sentence, for whatever keeps it from being done."""
    catalogue = catalogue_of(settings)
    if catalogue.currency is None:
        raise ConfigurationError("MODELS_FILE names no currency: write one to it.")
    sold = [each for each in catalogue.plans.values() if each.price and each.stripe_price is None]
    plans = [PlanPrice(each.name, each.title, each.price) for each in sold]
    async with open_stripe(settings) as stripe:
        if stripe is None:
            raise ConfigurationError("STRIPE_SECRET_KEY is not set.")
        try:
            url = _webhook_url(settings)
            return await stripe.sync(plans, catalogue.currency, webhook_url=url, is_check=is_check)
        except StripeUnavailable:
            raise ConfigurationError("Stripe cannot be reached: run the command again, and it goes on.") from None
        except StripeRefused as error:
            raise ConfigurationError(f"{error}.") from None


def _webhook_url(settings: Settings) -> str | None:
    return settings.public_url + WEBHOOK_PATH if settings.public_url.startswith("https://") else None

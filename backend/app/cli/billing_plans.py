"""`nanobanana billing plan`: an operator gives an account a plan without Stripe, or takes it away."""

from datetime import UTC, datetime
from functools import partial

import click
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.subscriptions import ANCHOR_DAY_MAX, IN_FORCE, anchor_day_of, apply
from app.catalogue.configured import catalogue_of
from app.catalogue.offers import PlanOffer
from app.cli.accounts import OWNER, find_account
from app.cli.database import run_on_database
from app.cli.errors import errors_as_sentences
from app.core.currencies import show_amount
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.models import Subscription

_NONE = "none"


@click.command()
@click.argument("owner", metavar=OWNER)
@click.argument("name", metavar="PLAN|none")
@click.option(
    "--day",
    type=click.IntRange(1, ANCHOR_DAY_MAX),
    help="On which day of the month its periods begin, in UTC; by default the plan's before, or else today.",
)
@click.option("--force", is_flag=True, help="Also where it has a plan by Stripe, which goes on costing there.")
def plan(owner: str, name: str, *, day: int | None, force: bool) -> None:
    """Give an account a plan of MODELS_FILE without Stripe; none takes its plan away."""
    with errors_as_sentences():
        catalogue = catalogue_of(load_settings())
        offer = catalogue.plans.get(name)
        if offer is None and name != _NONE:
            known = f"name one of {', '.join(catalogue.plans)}" if catalogue.plans else "it has no plans"
            raise ConfigurationError(f"MODELS_FILE has no plan {name}: {known}.")
        account_id = find_account(owner).account_id
        kept = run_on_database(partial(_set_plan, account_id=account_id, plan=offer, day=day, is_forced=force))
        click.echo(f"{account_id} has {f'the plan {name}' if offer else 'no plan'} now.")
        if kept:
            amount = show_amount(kept, catalogue.currency)
            click.echo(f"{amount} more of its earlier allowance stay until images that hold them have ended.")


async def _set_plan(
    session: AsyncSession, *, account_id: str, plan: PlanOffer | None, day: int | None, is_forced: bool
) -> int:
    found = await session.scalar(select(Subscription).where(Subscription.account_id == account_id))
    before = found if found and found.status in IN_FORCE else None
    if before and before.stripe_id and not is_forced:
        raise ConfigurationError(
            f"The account has the plan {before.plan} by a subscription at Stripe ({before.stripe_id}): change it "
            "there, or its customer goes on paying. With --force it is changed here alone, until Stripe's next event."
        )
    return await apply(
        session,
        account_id=account_id,
        plan=plan,
        anchor_day=day or (before.anchor_day if before else anchor_day_of(datetime.now(UTC))),
        status="active" if plan else "cancelled",
    )

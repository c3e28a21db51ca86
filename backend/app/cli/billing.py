"""`nanobanana billing`: an operator gives and takes credit, sets caps, and looks at an account's money."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import get_args

import click
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import balance, caps, plan_purchases
from app.billing.balance import BalanceState
from app.billing.caps import KeyCap, KeyCapPeriod
from app.billing.entries import EntryMismatch, Posted, TooLittleCredit, post
from app.billing.refunds import NothingToRefund, refund
from app.catalogue.prices import format_amount, read_amount
from app.cli.accounts import OWNER, find_account
from app.cli.billing_plans import plan
from app.cli.billing_reports import reconcile, revenue
from app.cli.billing_sync import sync
from app.cli.database import Result, run_on_database
from app.cli.days import DAY
from app.cli.errors import errors_as_sentences
from app.cli.output import print_facts, print_rows
from app.core.security import new_id
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.features.billing.service import find_entries
from app.features.keys.administration import find_page, key_named
from app.features.usage.report import find_currency
from app.models import CreditEntry

_ENTRIES = 10
_WIDTHS = {"created_at": 27, "kind": 10, "amount": 12, "expires_at": 27, "reference": 9}
_AMOUNTS = {"credit", "held", "charged", "available", "allowance", "spent", "cap"}


@click.group()
def billing() -> None:
    """Give and take credit, set caps, and look at an account's money."""


for each in (plan, reconcile, revenue, sync):
    billing.add_command(each)

_reference = click.option("--reference", help="What it is for: of several with one reference only the first is made.")


@billing.command()
@click.argument("owner", metavar=OWNER)
@click.argument("amount")
@_reference
@click.option("--expires", "expires_at", type=DAY, help="When this day begins, in UTC, the rest is taken.")
def grant(owner: str, amount: str, reference: str | None, expires_at: datetime | None) -> None:
    """Give an account credit that it has not paid for."""
    if expires_at and expires_at <= datetime.now(UTC):
        raise click.BadParameter("has begun already", param_hint="--expires")
    entry = partial(post, kind="grant", reference=_reference_of("grant", reference), expires_at=expires_at)
    _post(owner, _amount(amount), entry)


@billing.command(context_settings={"ignore_unknown_options": True})  # a negative amount looks like one
@click.argument("owner", metavar=OWNER)
@click.argument("amount")
@_reference
def adjust(owner: str, amount: str, reference: str | None) -> None:
    """Correct an account's credit by AMOUNT, which may be negative; what is charged or held cannot be taken."""
    _post(
        owner,
        _amount(amount.removeprefix("-")) * (-1 if amount.startswith("-") else 1),
        partial(post, kind="adjustment", reference=_reference_of("adjust", reference)),
    )


@billing.command("refund")
@click.argument("generation_id")
@click.option("--amount", help="How much of its price; by default all.")
def give_back(generation_id: str, amount: str | None) -> None:
    """Give what was charged for a delivered image back as credit, once."""
    wanted = None if amount is None else _amount(amount)
    with errors_as_sentences():
        account_id, given, posted = _run(partial(refund, generation_id=generation_id, amount=wanted))
        _print_posted(account_id, given, posted)


@billing.command("cap")
@click.argument("owner", metavar=f"KEY_ID|{OWNER}")
@click.argument("amount", metavar="AMOUNT|none")
@click.option(
    "--period",
    type=click.Choice(get_args(KeyCapPeriod)),
    default="month",
    help="Of a key: a day or month in UTC, or its whole life. An account's is a month, from the day of its plan on.",
)
def set_cap(owner: str, amount: str, period: KeyCapPeriod) -> None:
    """Set the most that an account, or one key, may spend in a period; none removes the cap."""
    most = None if amount == "none" else _amount(amount, least=0)
    with errors_as_sentences():
        if owner.startswith(("key_", "nb_")):
            _set_key_cap(owner, most, period)
        elif period == "month":
            _run(partial(caps.set_account_cap, account_id=find_account(owner).account_id, amount=most))
        else:
            raise click.UsageError("An account's cap is for a month; only a key's has another period.")
        click.echo("The cap is removed." if most is None else f"The cap is {_money(most)}.")
        _warn_if_off()


@billing.command()
@click.argument("owner", metavar=OWNER)
def show(owner: str) -> None:
    """Print an account's balance, the caps of its keys, and its newest entries."""
    with errors_as_sentences():
        found = find_account(owner)
        state, of_keys, entries = _run(partial(_find, account_id=found.account_id))
        print_facts({"account_id": found.account_id, "email": found.email, "currency": _run(find_currency)})
        print_facts({name: _shown(name, value) for name, value in asdict(state).items()})
        print_facts(_run(partial(plan_purchases.find_facts, account_id=found.account_id)))
        for key_id, cap in of_keys.items():
            print_facts({f"cap of {key_id}": _cap_sentence(cap)})
        if entries:
            click.echo()
            rows = (
                {**{name: getattr(each, name) for name in _WIDTHS}, "amount": format_amount(each.amount)}
                for each in entries
            )
            print_rows(rows, _WIDTHS, form="table")
        _warn_if_off()


async def _find(
    session: AsyncSession, *, account_id: str
) -> tuple[BalanceState, Mapping[str, KeyCap], Sequence[CreditEntry]]:
    state = await balance.find(session, account_id=account_id)
    entries = await find_entries(session, account_id=account_id, after=None, limit=_ENTRIES)
    return state, await caps.find_key_caps(session, account_id=account_id), entries


def _post(owner: str, amount: int, entry: Callable[..., Awaitable[Posted]]) -> None:
    with errors_as_sentences():
        account_id = find_account(owner).account_id
        _print_posted(account_id, amount, _run(partial(entry, account_id=account_id, amount=amount)))


def _print_posted(account_id: str, amount: int, posted: Posted) -> None:
    done = f"The credit of {account_id} is changed by {_money(amount)}: it is {_money(posted.credit)}."
    click.echo(done if posted.is_new else f"That was done before, and changes nothing: {posted.entry_id}.")
    _warn_if_off()


def _set_key_cap(key_id: str, amount: int | None, period: KeyCapPeriod) -> None:
    found = _run(partial(find_page, which=key_named(key_id, is_exact=True), after="", limit=1))
    if not found or not _run(
        partial(caps.set_key_cap, account_id=found[0].account_id, key_id=key_id, amount=amount, period=period)
    ):
        raise ConfigurationError("There is no such key, or it is revoked.")


def _run(action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    try:
        return run_on_database(action)
    except (EntryMismatch, NothingToRefund) as error:
        raise ConfigurationError(f"{error}.") from None
    except TooLittleCredit as error:
        raise ConfigurationError(f"{error}: at most {_money(error.free)} can be taken.") from None


def _amount(text: str, *, least: int = 1) -> int:
    try:
        amount = read_amount(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="AMOUNT") from None
    if amount < least:
        raise click.BadParameter("must not be 0", param_hint="AMOUNT")
    return amount


def _reference_of(kind: str, named: str | None) -> str:
    if named is not None and not named.strip():
        raise click.BadParameter("must not be empty; without it each call is another", param_hint="--reference")
    return f"{kind}:{named or new_id('op')}"


def _money(amount: int) -> str:
    currency = run_on_database(find_currency)
    return f"{format_amount(amount)} {currency}" if currency else format_amount(amount)


def _shown(name: str, value: object) -> object:
    return format_amount(value) if name in _AMOUNTS and isinstance(value, int) else value


def _cap_sentence(cap: KeyCap) -> str:
    length = "in all" if cap.period == "total" else f"a {cap.period}"
    return f"{format_amount(cap.amount)} {length}, spent {format_amount(cap.spent)}, held {format_amount(cap.held)}"


def _warn_if_off() -> None:
    if load_settings().billing == "off":
        click.echo("BILLING is off here: nothing is charged yet.", err=True)

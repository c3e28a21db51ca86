"""The plans and top-ups of a file of models: what is wrong among their fields, and what they offer."""

from collections.abc import Iterator, Mapping

from app.catalogue.grammar import FileTable, PlanTable, TopUpsTable
from app.catalogue.offers import PlanOffer, TopUps
from app.catalogue.places import Path
from app.core.currencies import to_minor_units

Mistakes = Iterator[tuple[Path, str]]


def mistakes_of_offers(file: FileTable) -> Mistakes:
    """Those of a file whose fields are well formed."""
    if (file.plans or file.top_ups) and file.currency is None:
        yield ("currency",), "is missing, and there are plans or top-ups"
        return
    currency, owners = file.currency or "", dict[str, str]()
    for name, plan in file.plans.items():
        path = "plans", name
        yield from _mistakes_of_charge((*path, "price"), plan.price, currency)
        if unknown := [each for each in plan.models or [] if each not in file.models]:
            yield (*path, "models"), f"names {unknown[0]}, which is no model; there are {', '.join(file.models)}"
        if plan.stripe_price and not plan.price:
            yield (*path, "price"), "must be what its stripe_price costs in a month"
        if plan.stripe_price and (owner := owners.setdefault(plan.stripe_price, name)) != name:
            yield (*path, "stripe_price"), f"is the price of {owner} too"
    if file.top_ups:
        yield from _mistakes_of_top_ups(file.top_ups, currency)


def plans_of(file: FileTable) -> Mapping[str, PlanOffer]:
    """Its plans by name, in its order."""
    return {name: _plan(name, plan) for name, plan in file.plans.items()}


def top_ups_of(file: FileTable) -> TopUps | None:
    """What it says about top-ups; None for nothing."""
    table = file.top_ups
    return None if table is None else TopUps(amounts=table.amounts, least=table.least, most=table.most)


def _mistakes_of_top_ups(top_ups: TopUpsTable, currency: str) -> Mistakes:
    for number, amount in enumerate(top_ups.amounts):
        path = "top_ups", "amounts", number
        yield from _mistakes_of_charge(path, amount, currency)
        if amount in top_ups.amounts[:number]:
            yield path, "is there already"
    for field, bound in (("least", top_ups.least), ("most", top_ups.most)):
        yield from _mistakes_of_charge(("top_ups", field), bound or 0, currency)
    if top_ups.least and top_ups.most and top_ups.least > top_ups.most:
        yield ("top_ups", "least"), "is more than most"


def _mistakes_of_charge(path: Path, amount: int, currency: str) -> Mistakes:
    try:
        to_minor_units(amount, currency)
    except ValueError as error:
        yield path, str(error)


def _plan(name: str, plan: PlanTable) -> PlanOffer:
    return PlanOffer(
        name=name,
        title=plan.title or name,
        price=plan.price,
        allowance=plan.allowance,
        is_postpaid=plan.pays == "afterwards",
        cap=plan.cap,
        limit=plan.limit,
        limit_per_key=plan.limit_per_key,
        concurrency_per_key=plan.concurrency_per_key,
        models=plan.models,
        weight=plan.weight,
        stripe_price=plan.stripe_price,
    )

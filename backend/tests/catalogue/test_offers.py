"""Plans and top-ups in the file of models: what they may say, and the sentence about each mistake."""

import pytest
from app.catalogue.file import FileMistakes, read_catalogue
from app.catalogue.model import Catalogue
from app.catalogue.offers import PlanOffer, TopUps
from app.core.currencies import digits_of, from_minor_units, show_amount, smallest_charge, to_minor_units
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

MODELS = """
[models.banana]
[[models.banana.routes]]
provider = "stub"
"""
PLANS = """
[plans.starter]
title = "Starter"
price = "20"
allowance = "25.000001"
pays = "afterwards"
cap = "100"
limit = "600/minute"
limit_per_key = "60/minute"
concurrency_per_key = 5
models = ["banana"]
weight = 4
stripe_price = "price_1Abc"

[plans.free]

[top_ups]
amounts = ["50", "5"]
least = "10"
most = "1000"
"""


def read(offers: str, *, currency: str = "USD") -> Catalogue:
    named = f'currency = "{currency}"\n' if currency else ""
    return read_catalogue(f"{named}{MODELS}{offers}", find_secret=SecretStr, calls_max=1)


def test_plans_and_top_ups_are_read_as_they_say() -> None:
    catalogue = read(PLANS)
    assert list(catalogue.plans.values()) == [
        PlanOffer(
            name="starter",
            title="Starter",
            price=20_000_000,
            allowance=25_000_001,
            is_postpaid=True,
            cap=100_000_000,
            limit="600/minute",
            limit_per_key="60/minute",
            concurrency_per_key=5,
            models=["banana"],
            weight=4,
            stripe_price="price_1Abc",
        ),
        PlanOffer(name="free", title="free"),
    ]
    assert catalogue.top_ups == TopUps(amounts=[50_000_000, 5_000_000], least=10_000_000, most=1_000_000_000)
    assert (read("").plans, read("").top_ups) == ({}, None)


MISTAKES = {
    "a plan called none": ("[plans.none]", "plans.none must have another name: none means no plan"),
    "an unknown field": ("[plans.a]\ncolour = 1", "plans.a.colour is not a known field"),
    "a price that is a number": ("[plans.a]\nprice = 5.0", "plans.a.price must be a decimal in quotes"),
    "a negative allowance": ('[plans.a]\nallowance = "-1"', "plans.a.allowance must be a decimal"),
    "a price below a cent": (
        '[plans.a]\nprice = "5.001"',
        "plans.a.price cannot be charged: an amount of USD has at most 2 digits after the point",
    ),
    "a model that there is not": (
        '[plans.a]\nmodels = ["apple"]',
        "plans.a.models names apple, which is no model; there are banana",
    ),
    "no models": ("[plans.a]\nmodels = []", "plans.a.models must not be empty"),
    "a limit that is none": ('[plans.a]\nlimit = "5/week"', "plans.a.limit must look like 600/minute"),
    "a limit of keys that is none": ('[plans.a]\nlimit_per_key = "5"', "plans.a.limit_per_key must look like 600"),
    "no generation at a time": ("[plans.a]\nconcurrency_per_key = 0", "plans.a.concurrency_per_key must be greater"),
    "a weight of nothing": ("[plans.a]\nweight = 0", "plans.a.weight must be greater than or equal to 1"),
    "a weight of too much": ("[plans.a]\nweight = 1001", "plans.a.weight must be less than or equal to 1000"),
    "another way to pay": ('[plans.a]\npays = "later"', "plans.a.pays must be 'in_advance' or 'afterwards'"),
    "the id of a product": ('[plans.a]\nstripe_price = "prod_1"', "plans.a.stripe_price must be the id of a price"),
    "one price for two": (
        '[plans.a]\nprice = "5"\nstripe_price = "price_1"\n[plans.b]\nprice = "5"\nstripe_price = "price_1"',
        "plans.b.stripe_price is the price of a too",
    ),
    "a price at Stripe of which nobody knows what it costs": (
        '[plans.a]\nstripe_price = "price_1"',
        "plans.a.price must be what its stripe_price costs in a month",
    ),
    "a price at Stripe for nothing": (
        '[plans.a]\nprice = "0"\nstripe_price = "price_1"',
        "plans.a.price must be what its stripe_price costs in a month",
    ),
    "top-ups of nothing": ("[top_ups]", "top_ups needs amounts, or least and most"),
    "one bound": ('[top_ups]\nleast = "5"', "top_ups needs both least and most, or neither"),
    "bounds the wrong way round": ('[top_ups]\nleast = "5"\nmost = "4"', "top_ups.least is more than most"),
    "a bound below a cent": ('[top_ups]\nleast = "0.001"\nmost = "4"', "top_ups.least cannot be charged"),
    "a top-up of 0": ('[top_ups]\namounts = ["0"]', "top_ups.amounts.1 must be more than 0"),
    "a top-up twice": ('[top_ups]\namounts = ["5", "5.00"]', "top_ups.amounts.2 is there already"),
    "a top-up below a cent": ('[top_ups]\namounts = ["5", "5.001"]', "top_ups.amounts.2 cannot be charged"),
    "a top-up that is a number": ("[top_ups]\namounts = [5]", "top_ups.amounts.1 must be a decimal in quotes"),
}


@pytest.mark.parametrize(("offers", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_sentence_with_its_line_and_field(offers: str, sentence: str) -> None:
    with pytest.raises(FileMistakes) as raised:
        read(offers)
    [found] = raised.value.sentences
    line = MODELS.count("\n") + 2
    assert sentence in found
    assert int(found.removeprefix("line ").partition(":")[0]) in range(line, line + offers.count("\n") + 1)


@pytest.mark.parametrize("offers", ["[plans.a]", '[top_ups]\namounts = ["5"]'])
def test_what_is_sold_needs_a_currency(offers: str) -> None:
    with pytest.raises(FileMistakes, match="line 1: currency is missing, and there are plans or top-ups"):
        read(offers, currency="")


@pytest.mark.parametrize(
    ("currency", "amount", "units", "shown", "refused"),
    [
        ("USD", "5.25", 525, "5.25 USD", "5.255"),
        ("EUR", "5", 500, "5.00 EUR", "5.001"),
        ("JPY", "500", 500, "500 JPY", "500.5"),
        ("UGX", "500", 50_000, "500 UGX", "500.5"),
        ("KWD", "5.12", 5120, "5.120 KWD", "5.124"),
    ],
)
def test_a_currency_has_its_digits_and_what_it_can_be_charged_in(
    currency: str, amount: str, units: int, shown: str, refused: str
) -> None:
    plan = read(f'[plans.a]\nprice = "{amount}"', currency=currency).plans["a"]
    assert to_minor_units(plan.price, currency) == units
    assert from_minor_units(units, currency) == plan.price
    assert show_amount(plan.price, currency) == shown
    with pytest.raises(FileMistakes, match=f"cannot be charged: an amount of {currency} has"):
        read(f'[plans.a]\nprice = "{refused}"', currency=currency)


@given(amount=st.integers(-(10**15), 10**15), currency=st.sampled_from(["USD", "JPY", "ISK", "BHD"]))
def test_no_amount_loses_a_millionth_when_it_is_shown(amount: int, currency: str) -> None:
    number = show_amount(amount, currency).removesuffix(f" {currency}")
    whole, _, fraction = number.removeprefix("-").partition(".")
    assert int(whole + fraction.ljust(6, "0")) == abs(amount)
    assert digits_of(currency) <= len(fraction) <= 6
    assert number.startswith("-") == (amount < 0)


def test_fixed_amounts_can_be_bought_and_others_within_the_bounds() -> None:
    top_ups = TopUps(amounts=[5_000_000], least=10_000_000, most=20_000_000)
    cent = smallest_charge("USD")
    bought = [5_000_000, 10_000_000, 10_000_000 + cent, 20_000_000]
    refused = [0, -5_000_000, 5_000_000 + cent, 10_000_000 - cent, 10_000_001, 20_000_000 + cent]
    assert [each for each in bought + refused if top_ups.takes(each, currency="USD")] == bought
    assert not TopUps(amounts=[5_000_000]).takes(10_000_000, currency="USD")

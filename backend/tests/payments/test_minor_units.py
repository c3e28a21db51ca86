"""Amounts at Stripe: exact in every currency, or refused."""

import pytest
from app.payments.minor_units import NotPayable, to_millionths, to_minor_units
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        (10_000, "USD", 1),
        (25_000_000, "usd", 2500),
        (99_999_999_990_000, "EUR", 9_999_999_999),
        (1_000_000, "JPY", 1),
        (500_000_000, "krw", 500),
        (10_000, "KWD", 10),
        (5_000_000, "ISK", 500),
        (5_000_000, "UGX", 500),
        (-30_000, "USD", -3),
        (0, "USD", 0),
    ],
)
def test_whole_amounts_are_converted_exactly(amount: int, currency: str, units: int) -> None:
    assert to_minor_units(amount, currency) == units
    assert to_millionths(units, currency) == amount


@pytest.mark.parametrize(
    ("amount", "currency"),
    [(1, "USD"), (9_999, "USD"), (10_001, "EUR"), (1_500_000, "JPY"), (1_000, "KWD"), (5_010_000, "ISK"), (1, "JPY")],
)
def test_what_cannot_be_paid_is_never_rounded(amount: int, currency: str) -> None:
    with pytest.raises(NotPayable):
        to_minor_units(amount, currency)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["USD", "JPY", "KWD", "ISK", "UGX", "CLP", "TND"]))
def test_what_stripe_says_is_what_it_was_asked(amount: int, currency: str) -> None:
    try:
        units = to_minor_units(amount, currency)
    except NotPayable:
        return
    assert to_millionths(units, currency) == amount

"""Amounts as Stripe has them: in minor units of a currency, whose code is in lower case there."""

from app.core import currencies


class NotPayable(ValueError):
    """The amount cannot be paid in this currency. Its text is the end of a sentence."""


def to_minor_units(amount: int, currency: str) -> int:
    """The amount, which is in millionths, for a call to Stripe. Raises NotPayable rather than round it."""
    try:
        return currencies.to_minor_units(amount, currency.upper())
    except ValueError as error:
        raise NotPayable(str(error)) from None


def to_millionths(units: int, currency: str) -> int:
    """An amount of Stripe's in millionths."""
    return currencies.from_minor_units(units, currency.upper())

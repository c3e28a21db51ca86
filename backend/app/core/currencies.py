"""Currencies: with how many digits an amount is shown, and what of it a payment provider can charge.

Amounts are integers, in millionths of the currency; a provider is sent them in minor units, such as cents.
"""

MILLION = 1_000_000

_WITHOUT_DIGITS = "BIF CLP DJF GNF ISK JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF"
_WITH_THREE = "BHD IQD JOD KWD LYD OMR TND"
_DIGITS = dict.fromkeys(_WITHOUT_DIGITS.split(), 0) | dict.fromkeys(_WITH_THREE.split(), 3)
"""Of the currencies that have not two."""
_SENT_WITH_TWO_DIGITS = frozenset({"ISK", "UGX"})
"""Of those without digits: Stripe takes 100 for 1 ISK, as in the time when it had a hundredth."""
_CHARGED_DIGITS_MAX = 2
"""Stripe takes currencies of three digits with a last digit of 0 alone."""


def digits_of(currency: str) -> int:
    """How many digits after the point an amount of this currency is written with: ISO 4217, as Stripe applies it."""
    return _DIGITS.get(currency, 2)


def smallest_charge(currency: str) -> int:
    """What can be charged is a multiple of this, in millionths."""
    return _power(6 - min(digits_of(currency), _CHARGED_DIGITS_MAX))


def to_minor_units(amount: int, currency: str) -> int:
    """The amount as Stripe is sent it. Raises ValueError, with the end of a sentence, for what cannot be charged."""
    if amount % smallest_charge(currency):
        digits = min(digits_of(currency), _CHARGED_DIGITS_MAX)
        allowed = f"at most {digits} digits after the point" if digits else "no digits after the point"
        raise ValueError(f"cannot be charged: an amount of {currency} has {allowed}")
    return amount // _of_a_minor_unit(currency)


def from_minor_units(units: int, currency: str) -> int:
    """The same amount in millionths."""
    return units * _of_a_minor_unit(currency)


def show_amount(amount: int, currency: str | None) -> str:
    """The amount for people, with the digits of its currency and with further ones where it needs them: `5.00 USD`,
    `0.042 USD`, `500 JPY`.
    """
    number = show_number(amount, currency)
    return f"{number} {currency}" if currency else number


def show_number(amount: int, currency: str | None) -> str:
    """The same without the currency, as for a column whose head names it."""
    whole, fraction = divmod(abs(amount), MILLION)
    digits = f"{fraction:06d}".rstrip("0").ljust(digits_of(currency or ""), "0")
    return f"{'-' if amount < 0 else ''}{whole}{f'.{digits}' if digits else ''}"


def _of_a_minor_unit(currency: str) -> int:
    """One minor unit, in millionths."""
    return _power(4 if currency in _SENT_WITH_TWO_DIGITS else 6 - digits_of(currency))


def _power(exponent: int) -> int:
    result: int = 10**exponent
    return result

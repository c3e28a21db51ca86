"""Amounts as Stripe has them: whole numbers of a currency's minor unit."""

MILLION = 1_000_000

_ZERO_DECIMALS = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf")
)
_THREE_DECIMALS = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))
_STEPS = dict.fromkeys(("isk", "ugx"), 100) | dict.fromkeys(_THREE_DECIMALS, 10)
"""Minor units that an amount must be a multiple of: Stripe charges no hundredths of these two, and no thousandths."""


class NotPayable(ValueError):
    """The amount cannot be paid in this currency: it is no whole number of the smallest units that Stripe charges."""


def millionths_of_minor_unit(currency: str) -> int:
    """How many millionths the currency's minor unit is: 10,000 for a cent, 1,000,000 for a yen."""
    code = currency.lower()
    return MILLION // 10 ** (0 if code in _ZERO_DECIMALS else 3 if code in _THREE_DECIMALS else 2)


def to_minor_units(amount: int, currency: str) -> int:
    """The amount, which is in millionths, for a call to Stripe. Raises NotPayable rather than round it."""
    units, rest = divmod(amount, millionths_of_minor_unit(currency))
    if rest or units % _STEPS.get(currency.lower(), 1):
        raise NotPayable(f"is no amount that can be paid in {currency.upper()}")
    return units


def to_millionths(units: int, currency: str) -> int:
    """An amount of Stripe's in millionths."""
    return units * millionths_of_minor_unit(currency)

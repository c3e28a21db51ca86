"""What is left of an account's money, in the headers of an answer that was charged."""

from collections.abc import Mapping

from app.catalogue.prices import format_amount
from app.generations.ledger.queue import Left


def left_headers(left: Left) -> Mapping[bytes, bytes]:
    """The credit and allowance that are left, unless the account pays afterwards, and the least that a cap leaves, if
    there is one: decimals in the deployment's currency.
    """
    named = {b"x-credit-remaining": left.credit, b"x-budget-remaining": left.cap}
    return {name: format_amount(amount).encode() for name, amount in named.items() if amount is not None}

"""What is left of an account's money, in the headers of an answer that was charged."""

from collections.abc import Mapping
from typing import Any

from app.catalogue.prices import format_amount
from app.generations.ledger.queue import Left


def left_headers(left: Left) -> Mapping[bytes, bytes]:
    """The credit and allowance that are left, unless the account pays afterwards, and the least that a cap leaves, if
    there is one: decimals in the deployment's currency.
    """
    named = {b"x-credit-remaining": left.credit, b"x-budget-remaining": left.cap}
    return {name: format_amount(amount).encode() for name, amount in named.items() if amount is not None}


_LEFT = {
    "X-Credit-Remaining": "What is left of the credit and the allowance, unless the account pays afterwards.",
    "X-Budget-Remaining": "What the account's and the key's cap leave, where there is one.",
}
_SUCCESSES: tuple[int | str, ...] = (200, 202)


def charged(responses: Mapping[int | str, Mapping[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that makes images, with these headers in those that are charged or hold a price."""
    schema = {"type": "string", "examples": ["12.45"]}
    headers = {name: {"description": text, "schema": schema} for name, text in _LEFT.items()}
    every: dict[int | str, Mapping[str, Any]] = {200: {}, **responses}
    more = {status: {"headers": headers} for status in _SUCCESSES}
    return {status: {**each, **more.get(status, {})} for status, each in every.items()}

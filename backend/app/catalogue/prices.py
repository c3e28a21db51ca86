"""Amounts of money for an image: of one size class and quality, in millionths of the deployment's currency."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from app.core.currencies import MILLION
from app.core.schemas import matches
from app.providers import Size

SizeClass = Literal["1K", "2K", "4K"]
SIZE_CLASSES: Sequence[SizeClass] = ("1K", "2K", "4K")
QUALITIES = ("low", "medium", "high", "xhigh", "max")
"""From the cheapest to the dearest. `auto` is none of them: it asks for no quality."""

_AMOUNT = re.compile(r"^([0-9]{1,9})(?:\.([0-9]{1,6}))?$")
_PIXELS_1K, _PIXELS_2K = 1_600_000, 5_000_000
_ANY = ""

AmountText = Annotated[
    str,
    matches(_AMOUNT, "must be an amount such as 12.50, with a point and at most 6 digits after it"),
    Field(json_schema_extra={"pattern": _AMOUNT.pattern}, examples=["12.5"]),
]
"""In a body: what `read_amount` reads."""

Amounts = str | Mapping[str, str]
"""As it is written: one amount, or amounts by `1K`, by `low`, or by both as `1K/low`."""


def size_class(size: Size) -> SizeClass:
    """1K up to 1.6 million pixels (1536x1024), 2K up to 5 million (2048x2048), and 4K above."""
    pixels = size.width * size.height
    return "1K" if pixels <= _PIXELS_1K else "2K" if pixels <= _PIXELS_2K else "4K"


@dataclass(frozen=True)
class Prices:
    """Amounts by size class and quality, in millionths. `written` is the same in the form in which it was written, each
    amount with as few digits as it needs.
    """

    written: Amounts
    amounts: Mapping[tuple[str, str], int]

    @property
    def is_free(self) -> bool:
        """Whether every amount is 0."""
        return not any(self.amounts.values())

    @property
    def qualities(self) -> Sequence[str]:
        """Those that have an amount of their own, in the order in which they were written; none if quality does not
        matter.
        """
        return list(dict.fromkeys(quality for _, quality in self.amounts if quality))

    def of(self, size: Size, quality: str) -> int | None:
        """The amount for an image of this size and quality; None where none was written."""
        return self.amounts.get((size_class(size) if self._has_classes else _ANY, quality if self.qualities else _ANY))

    @property
    def _has_classes(self) -> bool:
        return any(name for name, _ in self.amounts)


FREE = Prices("0", {(_ANY, _ANY): 0})


def read_prices(written: Amounts) -> Prices:
    """The amounts that are written so. Raises ValueError, with the end of a sentence, for what cannot be read."""
    if isinstance(written, str):
        amount = read_amount(written)
        return Prices(format_amount(amount), {(_ANY, _ANY): amount})
    if not written:
        raise ValueError("holds no amount")
    by_name = {name: read_amount(amount) for name, amount in written.items()}
    amounts = {_key(name): amount for name, amount in by_name.items()}
    if len({(bool(name), bool(quality)) for name, quality in amounts}) > 1:
        raise ValueError("must have keys of one kind: sizes such as 1K, qualities such as low, or both as 1K/low")
    return Prices({name: format_amount(amount) for name, amount in by_name.items()}, amounts)


def read_amount(text: str) -> int:
    """Millionths. Raises ValueError for anything but a decimal with at most six digits after the point."""
    match = _AMOUNT.fullmatch(text)
    if match is None and text.startswith("-"):
        raise ValueError("must be a decimal of 0 or more")
    if match is None:
        raise ValueError('must be a decimal such as "0.05", with at most 6 digits after the point')
    whole, fraction = match.groups()
    return int(whole) * MILLION + int((fraction or "").ljust(6, "0"))


@lru_cache(maxsize=10_000)
def format_amount(millionths: int) -> str:
    """The decimal, with as few digits as it needs: `0.05`."""
    whole, fraction = divmod(abs(millionths), MILLION)
    text = f"{whole}.{fraction:06d}".rstrip("0").rstrip(".")
    return f"-{text}" if millionths < 0 else text


def _key(name: str) -> tuple[str, str]:
    first, slash, second = name.partition("/")
    if slash and first in SIZE_CLASSES and second in QUALITIES:
        return first, second
    if not slash and first in SIZE_CLASSES:
        return first, _ANY
    if not slash and first in QUALITIES:
        return _ANY, first
    raise ValueError(
        f"has the key {name!r}; there are {', '.join(SIZE_CLASSES)}, {', '.join(QUALITIES)}, and both as 1K/low"
    )

"""What customers can buy: plans, and top-ups of their credit. Amounts are in millionths of the currency."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.currencies import smallest_charge


@dataclass(frozen=True, kw_only=True)
class PlanOffer:
    """A plan: what it costs in a month, and what an account has with it."""

    name: str
    title: str
    price: int = 0
    """Of each period, which is a month."""
    allowance: int = 0
    """The prices of images that each period includes."""
    is_postpaid: bool = False
    """Whether what goes beyond the allowance is billed afterwards, instead of being taken from the credit."""
    cap: int | None = None
    """The cap of a period for accounts that have set none themselves; None for none."""
    limit: str | None = None
    """Images of all the account's keys together, such as `600/minute`; None, here and below, for the settings'."""
    limit_per_key: str | None = None
    concurrency_per_key: int | None = None
    models: Sequence[str] | None = None
    """The names of the models that it may ask for; None for all."""
    weight: int = 1
    """How many requests the account's asynchronous generations hand over whenever it is their turn."""
    stripe_price: str | None = None
    """The id of its price at Stripe; None where `nanobanana billing sync` makes one."""

    @property
    def is_sold(self) -> bool:
        """Whether accounts can subscribe to it. One without a price is given by the operator alone."""
        return self.price > 0


@dataclass(frozen=True, kw_only=True)
class TopUps:
    """Which amounts of credit can be bought: some fixed ones, and where there are bounds any amount within them."""

    amounts: Sequence[int] = ()
    least: int | None = None
    most: int | None = None

    def takes(self, amount: int, *, currency: str) -> bool:
        """Whether this amount can be bought. It can then be charged too."""
        if self.least is None or self.most is None or not self.least <= amount <= self.most:
            return amount in self.amounts
        return amount % smallest_charge(currency) == 0

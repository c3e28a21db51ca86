"""What a payment calls for only grows: whoever asked Stripe earlier writes nothing that a later answer would not."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from app.billing.purchases import WrongCurrency, owed_entries
from app.payments import Dispute, Payment, Refund

REFUNDS = (("pending", "succeeded", "failed"), ("requires_action", "canceled"), ("succeeded", "failed"))
DISPUTES = (
    ("warning_needs_response", "needs_response", "under_review", "won"),
    ("needs_response", "under_review", "lost"),
    ("warning_under_review", "warning_closed"),
)
PAYMENT = Payment(id="pi_1", is_paid=True, account_id="acc_1", top_up=10_000_000, total=12_100_000, currency="USD")


def refund(status: Any, amount: int = 4_030_000, *, currency: str = "USD") -> Refund:
    return Refund(id=f"re_{amount}", payment_id="pi_1", amount=amount, currency=currency, status=status)


def dispute(status: str) -> Dispute:
    return Dispute(id="du_1", payment_id="pi_1", amount=12_100_000, currency="USD", status=status)


@pytest.mark.parametrize("life", [*REFUNDS, *DISPUTES], ids="-".join)
def test_a_later_answer_calls_for_all_entries_of_an_earlier_one(life: Sequence[str]) -> None:
    is_refund = life in REFUNDS
    seen = [
        set(owed_entries(PAYMENT, [refund(each)] if is_refund else [], [] if is_refund else [dispute(each)]))
        for each in life
    ]
    assert all(earlier <= later for earlier, later in pairwise(seen))
    is_back = life[-1] in {"failed", "canceled", "won", "warning_closed"}
    assert (sum(each.amount for each in seen[-1]) == PAYMENT.top_up) is is_back


def test_refunds_in_parts_take_no_more_than_the_top_up_and_less_than_a_millionth_of_it_each_less() -> None:
    parts = [4_010_000, 4_030_000, 4_060_000]
    left = sum(each.amount for each in owed_entries(PAYMENT, [refund("succeeded", each) for each in parts], []))
    assert 0 <= left < len(parts)


def test_a_refund_in_another_currency_is_no_amount_of_ours() -> None:
    with pytest.raises(WrongCurrency):
        list(owed_entries(PAYMENT, [refund("succeeded", currency="EUR")], []))

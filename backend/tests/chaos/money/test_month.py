"""One customer's money from the first day to the third month: after each step every place shows the same amounts."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.core.settings import Settings
from tests.chaos.money.customer import Customer, open_customer
from tests.chaos.money.figures import Figures, check_files, check_pages, check_revenue, find_differences, read

Act = Callable[[Customer], Awaitable[object]]

SIGNED_UP = Figures(credit=10, entries=1, charged=0, included=0, billed=0, reported=0, invoiced=0)
"""With a trial of ten cents, which pays for two images."""


def at(month: int, day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2027, month, day, hour, minute, tzinfo=UTC)


async def nothing(_customer: Customer) -> None:
    pass


STORY: list[tuple[str, datetime | None, Act, Mapping[str, Any]]] = [
    ("signs up", None, nothing, {}),
    ("an image is paid by the trial", None, Customer.draw, {"charged": 5}),
    ("an image that the provider refuses costs nothing", None, Customer.draw_in_vain, {}),
    ("an image that waits holds its price", None, Customer.queue, {"held": 5}),
    ("nothing is left", None, Customer.be_refused, {}),
    ("it is cancelled", None, Customer.cancel_queued, {"held": 0}),
    ("tops up", None, Customer.top_up, {"credit": 1010, "entries": 2}),
    ("tops up again", None, Customer.top_up, {"credit": 2010, "entries": 3}),
    ("that payment is refunded", None, lambda it: it.be_refunded(1), {"credit": 1010, "entries": 4}),
    (
        "the operator gives a dollar until the 12th",
        None,
        lambda it: it.command("grant", it.email, "1", "--expires", "2027-03-12"),
        {"credit": 1110, "entries": 5},
    ),
    (
        "a plan pays 15 cents a month; the image of this day counts",
        None,
        lambda it: it.choose("starter"),
        {"plan": "starter", "left": 10, "invoiced": 984},
    ),
    ("two images use it up", None, lambda it: it.draw(2), {"left": 0, "included": 10}),
    ("what goes beyond it is paid by credit", None, Customer.draw, {"charged": 10}),
    ("the rest of the dollar expires", at(3, 12, 0, 10), Customer.sweep, {"credit": 1015, "entries": 6}),
    (
        "an image is given back",
        None,
        lambda it: it.command("refund", it.drawn[-1]),
        {"credit": 1020, "entries": 7},
    ),
    (
        "a dearer plan pays 20 cents, and bills what goes beyond; its month begins",
        at(3, 15, 9),
        lambda it: it.choose("studio"),
        {"plan": "studio", "left": 20, "invoiced": 5984},
    ),
    ("six images: four are included", None, lambda it: it.draw(6), {"left": 0, "included": 30, "billed": 10}),
    ("nothing is reported before the hour has ended", None, Customer.sweep, {}),
    ("then it is", at(3, 15, 10, 6), Customer.sweep, {"reported": 10}),
    ("one more", None, Customer.draw, {"billed": 15}),
    ("is reported once, though the answer is lost", at(3, 15, 12), Customer.sweep_and_lose_an_answer, {"reported": 15}),
    ("the card is declined", None, Customer.lose_card, {}),
    ("the month ends: its bill is open, the next allowance is there", at(4, 15, 9, 10), Customer.sweep, {"left": 20}),
    ("the plan goes on", None, Customer.draw, {"left": 15, "included": 35}),
    ("for seven days; then it is stopped", at(4, 22, 10), Customer.sweep, {"plan": None, "left": 0}),
    ("credit pays", None, Customer.draw, {"charged": 15}),
    ("a payment is disputed", None, lambda it: it.dispute(0), {"credit": 20, "entries": 8}),
    ("what is left pays one image", None, Customer.draw, {"charged": 20}),
    ("and no other", None, Customer.be_refused, {}),
    (
        "a new card pays the bill of 50.15: the plan resumes, with what was spent since the month began",
        None,
        Customer.have_new_card,
        {"plan": "studio", "left": 5, "invoiced": 10_999},
    ),
    ("the dispute is won", None, Customer.win_dispute, {"credit": 1020, "entries": 9}),
    ("two images: one is included", None, lambda it: it.draw(2), {"left": 0, "included": 40, "billed": 20}),
    ("cancels", None, Customer.cancel, {}),
    ("the plan goes on, and the other is reported", at(4, 22, 12), Customer.sweep, {"reported": 20}),
    (
        "a new month: the plan has ended, and what it has billed is paid",
        at(5, 15, 9, 10),
        Customer.sweep,
        {"plan": None, "invoiced": 11_004},
    ),
    ("credit pays again", None, Customer.draw, {"charged": 25}),
]


async def test_every_amount_of_a_month_is_the_same_at_every_place(
    settings: Settings, new_database_url: str, tmp_path: Path
) -> None:
    async with open_customer(settings, new_database_url, tmp_path, at(3, 10, 12)) as customer:
        expected = SIGNED_UP
        for step, when, act, changes in STORY:
            if when is not None:
                await customer.wait_until(when)
            await act(customer)
            expected = replace(expected, **changes)
            assert await read(customer) == expected, step
            if changes:
                await check_pages(customer, expected)
            assert await find_differences(customer) == [], step
            await check_revenue(customer, expected)
        await check_files(customer, expected)
        assert ", 0 differences" in await customer.command("reconcile", "--stripe", "--from", "2027-04-22")

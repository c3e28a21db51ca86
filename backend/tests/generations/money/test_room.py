"""What is admitted: all that fits, in order, and nothing else."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest
from app.generations.ledger.statements import with_parts
from tests.generations.money import payers
from tests.generations.money.sums import wrong_sums

OVER, GOING_ON = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
"""When a period began that is over, and one that is not, whatever the time of day is."""
NO_CREDIT, KEY_CAP, ACCOUNT_CAP, AGAIN = "insufficient_credit", "key_cap", "account_cap", "again"


class Case(NamedTuple):
    """A balance, the cap of a key, and the verdicts on requests for one image at these prices, in one batch."""

    balance: Mapping[str, Any]
    of_keys: Mapping[str, Any]
    prices: Sequence[int]
    verdicts: Sequence[str | None]


CASES = {
    "nothing is there": Case({}, {}, [1], [NO_CREDIT]),
    "to the last unit": Case({"credit": 100}, {}, [60, 40, 1], [None, None, NO_CREDIT]),
    "what was charged is gone": Case({"credit": 100, "charged": 60}, {}, [41, 40], [NO_CREDIT, None]),
    "the allowance is room": Case({"credit": 10, "allowance": 30}, {}, [40, 1], [None, NO_CREDIT]),
    "the allowance is used": Case(
        {"credit": 10, "allowance": 30, "spent": 25, "period": GOING_ON}, {}, [16, 15], [NO_CREDIT, None]
    ),
    "more than the allowance was spent": Case(
        {"credit": 10, "allowance": 30, "spent": 90, "period": GOING_ON}, {}, [11, 10], [NO_CREDIT, None]
    ),
    "a new period has its allowance": Case({"allowance": 30, "spent": 30, "period": OVER}, {}, [30], [None]),
    "the cap of the account": Case({"credit": 100, "cap": 50}, {}, [30, 30, 20], [None, ACCOUNT_CAP, AGAIN]),
    "the cap has been used": Case(
        {"credit": 100, "cap": 50, "spent": 45, "period": GOING_ON}, {}, [6, 5], [ACCOUNT_CAP, None]
    ),
    "the cap of a new period": Case({"credit": 100, "cap": 50, "spent": 45, "period": OVER}, {}, [50], [None]),
    "a day's cap of the key": Case(
        {"credit": 100}, {"cap": 50, "cap_period": "day", "spent": 45, "period": GOING_ON}, [6, 5], [KEY_CAP, None]
    ),
    "the next day": Case(
        {"credit": 100}, {"cap": 50, "cap_period": "day", "spent": 45, "period": OVER}, [50, 1], [None, KEY_CAP]
    ),
    "a month's cap of the key": Case(
        {"credit": 200}, {"cap": 50, "cap_period": "month", "spent": 45, "period": OVER}, [51, 50], [KEY_CAP, None]
    ),
    "a cap of the key's whole life": Case(
        {"credit": 100}, {"cap": 50, "spent": 45, "period": OVER}, [6, 5], [KEY_CAP, None]
    ),
    "it pays afterwards": Case({"is_postpaid": True}, {}, [10**12], [None]),
    "it pays afterwards within a cap": Case({"is_postpaid": True, "cap": 50}, {}, [51, 50], [ACCOUNT_CAP, None]),
    "credit is said before a cap": Case({"credit": 5, "cap": 5}, {"cap": 5}, [6], [NO_CREDIT]),
    "of two caps the one that ends last": Case(
        {"credit": 9, "cap": 5}, {"cap": 5, "cap_period": "day"}, [6], [ACCOUNT_CAP]
    ),
    "of two caps the one that never ends": Case({"credit": 9, "cap": 5}, {"cap": 5}, [6], [KEY_CAP]),
    "what would not fit alone takes no room": Case(
        {"credit": 100}, {}, [60, 70, 30, 5, 200, 5], [None, NO_CREDIT, AGAIN, AGAIN, NO_CREDIT, AGAIN]
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_fits_is_admitted_and_the_reason_for_the_rest_is_said(
    database: asyncpg.Connection, name: str
) -> None:
    case = CASES[name]
    payer = await payers.new_payer(database, of_keys=case.of_keys, **case.balance)
    rows = await payers.record(*(payers.priced(payer.key, price) for price in case.prices)).run(database)
    assert [row["refusal"] for row in rows] == list(case.verdicts)
    assert [row["created_at"] is None for row in rows] == [each is not None for each in case.verdicts]
    held = sum(price for price, verdict in zip(case.prices, case.verdicts, strict=True) if verdict is None)
    assert (await payers.balance_of(database, payer))["held"] == held
    assert await database.fetchval("select held from api_keys where id = $1", payer.key.id) == (
        held if "cap" in case.of_keys else 0
    )


async def test_what_waits_for_the_next_batch_is_decided_there(database: asyncpg.Connection) -> None:
    """Until nothing is left that is both undecided and not written, however the prices are mixed."""
    payer = await payers.new_payer(database, credit=100)
    waiting, rounds = [payers.priced(payer.key, price) for price in (60, 70, 30, 5, 200, 5)], 0
    while waiting:
        rows = await payers.record(*waiting).run(database)
        waiting = [each for each, row in zip(waiting, rows, strict=True) if row["refusal"] == AGAIN]
        rounds += 1
    assert rounds == 2
    assert (await payers.balance_of(database, payer))["held"] == 100
    assert await wrong_sums(database) == []


async def test_all_images_of_a_request_are_held_or_none(database: asyncpg.Connection) -> None:
    payer = await payers.new_payer(database, credit=29)
    rows = await payers.record(*(payers.priced(payer.key, 10, images=n) for n in (3, 2))).run(database)
    assert [row["refusal"] for row in rows] == [NO_CREDIT, None]
    assert [(row["left_credit"], row["left_cap"]) for row in rows] == [(9, None), (9, None)]
    assert (await payers.balance_of(database, payer))["held"] == 20


async def test_keys_of_one_account_share_its_room_and_have_caps_of_their_own(database: asyncpg.Connection) -> None:
    payer, other = (
        await payers.new_payer(database, keys=2, of_keys={"cap": 30}, credit=50),
        await payers.new_payer(database),
    )
    await database.execute("update balances set credit = 10 where account_id = $1", other.account_id)
    asked = [(payer.keys[0], 20), (other.key, 10), (payer.keys[1], 20), (payer.keys[0], 10), (payer.keys[1], 11)]
    rows = await payers.record(*(payers.priced(*each) for each in asked)).run(database)
    assert [row["refusal"] for row in rows] == [None, None, None, None, NO_CREDIT]
    assert [(row["left_credit"], row["left_cap"]) for row in rows[:4]] == [(0, 0), (0, None), (0, 10), (0, 0)]
    assert await wrong_sums(database) == []


@pytest.mark.parametrize(
    ("stop", "active", "current"),
    [
        ("update api_keys set revoked_at = now() where id = $1", False, False),
        ("update api_keys set is_suspended = true where id = $1", False, False),
        ("update api_keys set revision = 7 where id = $1", True, False),
    ],
)
async def test_what_is_not_admitted_for_its_key_holds_nothing(
    database: asyncpg.Connection, stop: str, *, active: bool, current: bool
) -> None:
    payer = await payers.new_payer(database, credit=100)
    await database.execute(stop, payer.key.id)
    [row] = await payers.record(payers.priced(payer.key, 10)).run(database)
    assert (row["active"], row["current"], row["refusal"], row["created_at"]) == (active, current, None, None)
    assert (await payers.balance_of(database, payer))["held"] == 0


def begin_of_period(at: datetime, anchor_days: int) -> datetime:
    """The last moment on the anchor's day of a month that is not after `at`."""
    begin = at.replace(day=1 + anchor_days, hour=0, minute=0, second=0, microsecond=0)
    return begin if begin <= at else (begin - timedelta(days=31)).replace(day=1 + anchor_days)


async def test_periods_begin_on_the_anchors_day_in_utc(database: asyncpg.Connection) -> None:
    days = [datetime(2023, 12, 1, tzinfo=UTC) + timedelta(days=n) for n in range(460)]
    times = [day + timedelta(microseconds=micros) for day in days for micros in (-1, 0)]
    text = with_parts("""
        select c.at, b.days, {period} as begin from unnest($1::timestamptz[]) c(at)
        cross join (select n as days, make_interval(days => n) as anchor from generate_series(0, 27, 3) n) b
    """)
    for zone in ("UTC", "Asia/Tokyo"):
        await database.execute(f"set timezone = '{zone}'")
        found = await database.fetch(text, times)
        assert all(row["begin"] == begin_of_period(row["at"], row["days"]) for row in found)
    text = with_parts(
        "select c.at, {key_period} as begin from unnest($1::timestamptz[]) c(at), (select $2 as cap_period) k"
    )
    for period, begin in {"day": {}, "month": {"day": 1}}.items():
        found = await database.fetch(text, times, period)
        assert all(
            row["begin"] == row["at"].replace(**begin, hour=0, minute=0, second=0, microsecond=0) for row in found
        )

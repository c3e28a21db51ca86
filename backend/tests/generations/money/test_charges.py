"""What is held becomes a charge for what was delivered, and nothing else does."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest
from app.generations.jobs.job import Job
from app.generations.ledger import statements
from app.generations.ledger.queue import PendingRecord
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.money import payers
from tests.generations.money.payers import FAILED, Payer
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.generations.races.rows import Call

OVER, GOING_ON = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
PRICE = 10


REQUEUED = [
    ({"credit": 30}, None, None),
    ({"credit": 29}, None, "insufficient_credit"),
    ({"is_postpaid": True, "cap": 29}, None, "account_cap"),
    ({"credit": 30}, 29, "key_cap"),
    ({"credit": 30}, 30, None),
]


@pytest.mark.parametrize(("balance", "cap", "refusal"), REQUEUED)
async def test_a_job_that_is_to_wait_again_holds_its_price_again_or_does_not_wait(
    database: asyncpg.Connection, balance: Mapping[str, Any], cap: int | None, refusal: str | None
) -> None:
    payer = await payers.new_payer(database, is_postpaid=True)
    job = rows.new_claimed_job(payer.key, images=3, price=PRICE)
    await rows.recorded(database, job)
    await rows.cancel_job(job.id).run(database)
    await payers.set_money(database, payer, {"cap": cap}, **balance)
    requeued = await rows.requeue_job(job.id).run(database)
    if refusal is None:
        assert [tuple(each) for each in requeued] == [(each, None) for each in job.ids]
    else:
        assert [tuple(each) for each in requeued] == [(None, refusal)]
    assert await rows.statuses(database, job.id) == {"cancelled" if refusal else "queued"}
    assert (await payers.balance_of(database, payer))["held"] == (0 if refusal else 30)
    assert await wrong_sums(database) == []
    assert await wrong_lanes(database) == []


class Paid(NamedTuple):
    """A balance, and what pays for two deliveries of 30 and 20."""

    balance: Mapping[str, Any]
    from_allowance: int
    from_credit: int
    billed: int
    spent: int = 50


PAID = {
    "credit": Paid({"credit": 50}, 0, 50, 0),
    "allowance": Paid({"allowance": 50}, 50, 0, 0),
    "the allowance before the credit": Paid({"allowance": 40, "credit": 10}, 40, 10, 0),
    "what is left of the allowance": Paid(
        {"allowance": 40, "credit": 40, "spent": 30, "period": GOING_ON}, 10, 40, 0, spent=80
    ),
    "an allowance that was used": Paid(
        {"allowance": 40, "credit": 50, "spent": 60, "period": GOING_ON}, 0, 50, 0, spent=110
    ),
    "the allowance of a new period": Paid({"allowance": 40, "credit": 10, "spent": 40, "period": OVER}, 40, 10, 0),
    "the bill": Paid({"is_postpaid": True}, 0, 0, 50),
    "the allowance before the bill": Paid({"is_postpaid": True, "allowance": 40, "credit": 100}, 40, 0, 10),
}


@pytest.mark.parametrize("together", [True, False], ids=["one settlement", "two settlements"])
@pytest.mark.parametrize("name", PAID)
async def test_the_allowance_pays_before_the_credit_and_the_bill(
    database: asyncpg.Connection, name: str, *, together: bool
) -> None:
    paid = PAID[name]
    payer = await payers.new_payer(database, of_keys={"cap": 1000, "spent": 7}, **paid.balance)
    records = [payers.priced(payer.key, price) for price in (30, 20)]
    await payers.record(*records).run(database)
    for batch in [records] if together else [[each] for each in records]:
        assert all(row["settled"] for row in await payers.settle(*batch).run(database))
    assert await payers.charges_of(database, payer) == (paid.from_allowance, paid.from_credit, paid.billed)
    balance = await payers.balance_of(database, payer)
    assert (balance["held"], balance["charged"], balance["spent"]) == (0, paid.from_credit, paid.spent)
    assert OVER < balance["period"] <= GOING_ON
    assert await database.fetchval("select spent from api_keys where id = $1", payer.key.id) == 7 + 50
    assert await wrong_sums(database) == []


class Ending(NamedTuple):
    """How the holds of a request for three images end: which state it is brought to, by which statement they end, and
    how many images are charged.
    """

    of: Callable[[Any], Call]
    before: str = "select"
    charged: int = 0


_LAPSED = "update generations set lease_until = now() - interval '1 second'"
_SENT = "update generations set lease_until = now() - interval '1 second', sent_at = now()"
_EXHAUSTED = "update generations set lease_until = now() - interval '1 second', attempts = 3"
_STOPPED = "update api_keys set is_suspended = true"
_LAPSED_AND_STOPPED = """
update generations set lease_until = now() - interval '1 second'; update api_keys set is_suspended = true
"""


def _failed(job: Job | PendingRecord, count: int) -> Mapping[str, Any]:
    return dict.fromkeys(job.ids[:count], FAILED)


CALLS = {
    "delivered": Ending(payers.settle, charged=3),
    "delivered in part": Ending(lambda record: payers.settle(record, ends=_failed(record, 1)), charged=2),
    "failed": Ending(lambda record: payers.settle(record, ends=_failed(record, 3))),
    "taken over": Ending(lambda record: Call(statements.TAKE_OVER, {"scope": record.scope}), _LAPSED),
    "swept": Ending(lambda _: Call(statements.SWEEP_LAPSED, {}), _LAPSED),
}
JOBS = {
    "delivered": Ending(rows.settle, charged=3),
    "delivered in part": Ending(lambda job: rows.settle(job, ends=_failed(job, 1)), charged=2),
    "failed": Ending(lambda job: rows.settle(job, ends=_failed(job, 3))),
    "cancelled": Ending(lambda job: rows.cancel_job(job.id)),
    "given back under a stopped key": Ending(rows.give_back, _STOPPED),
    "lost": Ending(lambda _: rows.sweep_jobs(), _SENT),
    "without further attempts": Ending(lambda _: rows.sweep_jobs(), _EXHAUSTED),
    "swept under a stopped key": Ending(lambda _: rows.sweep_jobs(), _LAPSED_AND_STOPPED),
}
QUEUED = {
    "cancelled while it waits": Ending(lambda job: rows.cancel_job(job.id)),
    "its key is revoked": Ending(lambda job: rows.revoke(job.key_id)),
    "expired": Ending(lambda _: rows.sweep_jobs(), _LAPSED),
}


async def begun(database: asyncpg.Connection, payer: Payer, kind: str) -> tuple[Any, Ending]:
    """A request for three images, at this state of its life, and how it is to end."""
    group, name = kind.split(": ")
    if group == "call":
        record = payers.priced(payer.key, PRICE, images=3, scope=bytes(32))
        await payers.record(record).run(database)
        return record, CALLS[name]
    job = rows.new_claimed_job(payer.key, images=3, price=PRICE)
    await rows.recorded(database, job)
    if group == "queued":
        return job, QUEUED[name]
    [taken] = await rows.taken(database)
    assert taken.price == PRICE
    return taken, JOBS[name]


KINDS = [f"{group}: {name}" for group, ways in {"call": CALLS, "job": JOBS, "queued": QUEUED}.items() for name in ways]


async def ended(database: asyncpg.Connection, kind: str, change: Callable[[str], str] = str, times: int = 2) -> Payer:
    """An account whose request has ended in this way, by statements with this change of their text, sent twice."""
    payer = await payers.new_payer(database, of_keys={"cap": 1000}, credit=1000)
    request, ending = await begun(database, payer, kind)
    assert (await payers.balance_of(database, payer))["held"] == 3 * PRICE
    assert await wrong_sums(database) == []
    await database.execute(ending.before)
    call = ending.of(request)
    call = replace(call, statement=replace(call.statement, text=change(call.statement.text)))
    for _ in range(times):
        await call.run(database)
    return payer


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_ends_a_request_releases_its_hold_once_and_charges_what_was_delivered(
    database: asyncpg.Connection, kind: str
) -> None:
    payer = await ended(database, kind)
    charged = {**CALLS, **JOBS, **QUEUED}[kind.split(": ")[1]].charged * PRICE
    assert await payers.charges_of(database, payer) == (0, charged, 0)
    assert (await payers.balance_of(database, payer))["held"] == 0
    assert await database.fetchval("select array[held, spent] from api_keys where id = $1", payer.key.id) == [
        0,
        charged,
    ]
    assert await database.fetchval("select count(*) from generations where lease_until is not null") == 0
    assert await wrong_sums(database) == []
    assert await wrong_lanes(database) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_this_test_finds_holds_that_are_not_released(database: asyncpg.Connection, kind: str) -> None:
    def unreleased(text: str) -> str:
        for part in ("balances b set held = p.held", "api_keys k set held = l.held"):
            assert part in text
        text = text.replace("balances b set held = p.held", "balances b set held = b.held, allowance = p.held")
        return text.replace("api_keys k set held = l.held", "api_keys k set held = k.held, cap = l.held")

    await ended(database, kind, unreleased, times=1)
    assert {row["name"] for row in await wrong_sums(database)} == {"held", "held of key"}


@pytest.mark.parametrize("kind", ["call: delivered", "job: delivered"])
async def test_this_test_finds_a_settlement_that_does_not_ask_the_status(
    database: asyncpg.Connection, kind: str
) -> None:
    def anew(text: str) -> str:
        return text.replace("g.status = 'processing' and ", "")

    with pytest.raises(asyncpg.CheckViolationError, match="held"):
        await ended(database, kind, anew)

"""What the ledger says about requests with a price, also when it has lost its connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle

import asyncpg
import pytest
import structlog
from app.core.db import Connect, connect_for_writing
from app.core.errors import Unavailable
from app.generations.errors import BudgetExceeded, IdempotencyKeyReused, InsufficientCredit
from app.generations.ledger import Ledger, connection
from app.generations.ledger.queue import IdempotencyClaim, Left, PendingSettlement, Recorded
from app.generations.ledger.statements import FENCE, Statement
from asyncpg.exceptions import InternalClientError
from tests.features.usage.recorded import locked, outcomes
from tests.generations.jobs.lanes import take
from tests.generations.money import payers
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.generations.races.conftest import Unswept
from tests.harness import looks, until_waited_for


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[Ledger]:
    ledger = Ledger(Unswept(connect), queue_max=1000, deadline_seconds=60)
    ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
async def ledger(money_url: str) -> AsyncIterator[Ledger]:
    """A ledger of that database, which does not sweep."""
    async with opened(partial(connect_for_writing, money_url)) as ledger:
        yield ledger


async def test_a_request_that_fits_says_what_is_left_and_another_is_refused(
    database: asyncpg.Connection, ledger: Ledger
) -> None:
    payer = await payers.new_payer(database, credit=100, cap=90)
    recorded = await ledger.record(payers.priced(payer.key, 20, images=3))
    assert recorded.left == Left(credit=40, cap=30)
    job = rows.new_claimed_job(payer.key, images=2, price=5)
    assert (await ledger.record(job)).left == Left(credit=30, cap=20)
    for record, now in (
        (payers.priced(payer.key, 31), datetime.now(UTC)),
        (rows.new_claimed_job(payer.key, price=31), datetime.now(UTC)),
    ):
        with pytest.raises(InsufficientCredit):
            await ledger.record(record)
        record.price, record.outcome = 21, asyncio.get_running_loop().create_future()
        with pytest.raises(BudgetExceeded) as refused:
            await ledger.record(record)
        assert refused.value.cap == "account"
        assert refused.value.ends_at is not None
        assert now < refused.value.ends_at <= now + timedelta(days=31)
        assert (refused.value.ends_at.day, refused.value.ends_at.hour) == (1, 0)
    assert (await payers.balance_of(database, payer))["held"] == 70
    assert await wrong_sums(database) == []


async def test_the_cap_of_a_key_says_when_its_period_ends(database: asyncpg.Connection, ledger: Ledger) -> None:
    ends: list[datetime | None] = []
    for period in ("day", "month", None):
        payer = await payers.new_payer(database, of_keys={"cap": 9, "cap_period": period}, is_postpaid=True)
        assert (await ledger.record(payers.priced(payer.key, 5))).left == Left(credit=None, cap=4)
        with pytest.raises(BudgetExceeded) as refused:
            await ledger.record(payers.priced(payer.key, 5))
        assert refused.value.cap == "key"
        ends.append(refused.value.ends_at)
    tomorrow, next_month, never = ends
    assert tomorrow is not None
    assert next_month is not None
    assert timedelta(0) < tomorrow - datetime.now(UTC) <= timedelta(days=1)
    assert (tomorrow.hour, next_month.hour, next_month.day, never) == (0, 0, 1, None)


async def test_a_batch_with_and_without_prices_is_recorded_and_settled_as_each_is(
    database: asyncpg.Connection, ledger: Ledger
) -> None:
    payer = await payers.new_payer(database, credit=10)
    records = [payers.priced(payer.key, price) for price in (0, 10, 0, 10)]
    free, paid, also_free, refused = await outcomes(ledger, *records)
    assert isinstance(refused, InsufficientCredit)
    assert all(isinstance(each, Recorded) for each in (free, paid, also_free))
    await asyncio.gather(*(ledger.settle(PendingSettlement(each, {})) for each in records[:3]))
    assert await payers.charges_of(database, payer) == (0, 10, 0)
    assert await database.fetchval("select count(*) from generations where status = 'delivered'") == 3
    assert await wrong_sums(database) == []


async def test_jobs_are_settled_at_the_price_at_which_they_were_accepted(
    database: asyncpg.Connection, ledger: Ledger
) -> None:
    """Whatever the worker's process would ask for them: the price comes with the job."""
    payer = await payers.new_payer(database, credit=20)
    await outcomes(ledger, *(rows.new_claimed_job(payer.key, price=price) for price in (0, 20)))
    assert (await payers.balance_of(database, payer))["held"] == 20
    jobs = await take(ledger)
    assert sorted(job.record.price for job in jobs) == [0, 20]
    await asyncio.gather(*(ledger.settle(PendingSettlement(job.record, {})) for job in jobs))
    assert await payers.charges_of(database, payer) == (0, 20, 0)
    assert await wrong_sums(database) == []


async def test_what_may_still_fit_is_asked_for_again_at_once_and_before_all_others(
    database: asyncpg.Connection, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.ledger.writer._PAUSE_SECONDS", 3600)
    payer = await payers.new_payer(database, credit=100)
    before = payers.priced(payer.key, 60, scope=bytes(32))
    await ledger.record(before)
    await ledger.settle(PendingSettlement(before, {}))
    again = payers.priced(payer.key, 40, scope=bytes(32))  # which takes no room: it is a replay
    results = await outcomes(ledger, again, payers.priced(payer.key, 30), payers.priced(payer.key, 10))
    assert [isinstance(each, Recorded) and each.is_replay for each in results] == [True, False, False]
    assert (await payers.balance_of(database, payer))["held"] == 40
    assert await wrong_sums(database) == []


async def test_a_refusal_is_told_only_where_the_idempotency_key_answers_nothing(
    database: asyncpg.Connection, ledger: Ledger
) -> None:
    payer = await payers.new_payer(database, credit=10)
    record = payers.priced(payer.key, 10, scope=bytes(32))
    await ledger.record(record)
    await ledger.settle(PendingSettlement(record, {}))
    again, other = [payers.priced(payer.key, 10, scope=scope) for scope in (bytes(32), bytes([1] * 32))]
    different = payers.priced(payer.key, 10, scope=bytes(32))
    different.claim = IdempotencyClaim(bytes(32), [bytes([2] * 32)])
    replayed, refused, mismatched = await outcomes(ledger, again, other, different)
    assert isinstance(replayed, Recorded)
    assert replayed.ids == record.ids
    assert isinstance(refused, InsufficientCredit)
    assert isinstance(mismatched, IdempotencyKeyReused)


async def test_a_lapsed_request_releases_what_its_repetition_needs(
    database: asyncpg.Connection, ledger: Ledger
) -> None:
    payer = await payers.new_payer(database, credit=10)
    await ledger.record(payers.priced(payer.key, 10, scope=bytes(32), seconds=0.001))
    await asyncio.sleep(0.002)
    again = await ledger.record(payers.priced(payer.key, 10, scope=bytes(32)))
    assert not again.is_replay
    assert (await payers.balance_of(database, payer))["held"] == 10
    assert await wrong_sums(database) == []


async def test_a_balance_that_another_transaction_holds_stops_no_other_account(
    database: asyncpg.Connection, money_url: str
) -> None:
    stopped, free = await payers.new_payer(database, credit=10), await payers.new_payer(database, credit=10)

    async def connect() -> asyncpg.Connection:
        connection = await connect_for_writing(money_url)
        await connection.execute("set lock_timeout = '20ms'")
        return connection

    async with opened(connect) as ledger, database.transaction():
        await database.execute("select from balances where account_id = $1 for update", stopped.account_id)
        with structlog.testing.capture_logs() as lines:
            held, recorded = await outcomes(ledger, *(payers.priced(each.key, 10) for each in (stopped, free)))
    assert type(held) is Unavailable, "it was certainly not recorded"
    assert isinstance(recorded, Recorded)
    assert [line["event"] for line in lines] == ["ledger_refused"], "it is passed over, and not found by halving"
    assert (await payers.balance_of(database, stopped))["held"] == 0


async def test_accounts_are_drained_to_the_last_unit_by_several_ledgers(
    database: asyncpg.Connection, money_url: str
) -> None:
    prices = cycle((7, 29, 11, 1, 23))
    accounts = [await payers.new_payer(database, keys=2, credit=500) for _ in range(3)]
    asked = [payers.priced(payer.keys[n % 3 % 2], next(prices)) for n in range(100) for payer in accounts]
    asked += [payers.priced(payer.key, 1) for _ in range(40) for payer in accounts]
    connect = partial(connect_for_writing, money_url)
    async with opened(connect) as one, opened(connect) as two:
        recording = [(one, two)[place % 2].record(each) for place, each in enumerate(asked)]
        results = await asyncio.gather(*recording, return_exceptions=True)
    assert {type(each) for each in results} == {Recorded, InsufficientCredit}
    for payer in accounts:
        balance = await payers.balance_of(database, payer)
        assert (balance["credit"], balance["held"]) == (500, 500)
    assert await wrong_sums(database) == []


class Lines:
    """Connections of a ledger. What the first has sent goes on at the server for as long as it likes, also when the
    ledger has lost it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.made: list[asyncpg.Connection] = []

    async def connect(self) -> asyncpg.Connection:
        connection = await connect_for_writing(self._url)
        await connection.execute(_WAITS_BRIEFLY if self.made else _WAITS)
        self.made.append(connection)
        return connection


_WAITS = "set lock_timeout = 0; set statement_timeout = 0; set client_connection_check_interval = 0"
_WAITS_BRIEFLY = "set lock_timeout = '20ms'"
_IS_THERE = "select count(*) from generations where id = $1"


async def told_while_the_first_send_waits(database: asyncpg.Connection, url: str) -> tuple[type[object], int]:
    """What a request is told whose connection is lost while its statement waits for a lock at the server, and whose
    account has credit only when the statement goes on; and whether it is in the ledger then.
    """
    # The key that it waits for is the first in order: it holds no other meanwhile.
    other, payer = sorted([await payers.new_payer(database) for _ in range(2)], key=lambda each: each.key.id)
    record, beside, lines = payers.priced(payer.key, 10), payers.priced(other.key, 10), Lines(url)
    async with opened(lines.connect) as ledger:
        recording = asyncio.gather(ledger.record(record), ledger.record(beside), return_exceptions=True)
        async with locked(database, other.key):
            await until_waited_for(database)
            lines.made[0].terminate()
            for _ in looks():
                if len(lines.made) > 3 or record.is_done:
                    break
                await asyncio.sleep(0.005)
            await database.execute("update balances set credit = 10 where account_id = $1", payer.account_id)
        told, _ = await recording
    return type(told), await database.fetchval(_IS_THERE, record.id)


async def test_nothing_is_refused_whose_first_send_may_still_be_carried_out(
    database: asyncpg.Connection, money_url: str
) -> None:
    told = await told_while_the_first_send_waits(database, money_url)
    assert told in {(Recorded, 1), (InsufficientCredit, 0)}, "what the first send waited for may have ended with it"
    assert await wrong_sums(database) == []


async def test_this_test_finds_that_nothing_waits_for_the_first_send(
    database: asyncpg.Connection, money_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FENCE", Statement("no fence", "select $1::text", ["writer"]))
    assert await told_while_the_first_send_waits(database, money_url) == (InsufficientCredit, 1)


async def test_a_connection_that_a_cut_network_left_at_the_server_is_ended_and_no_other_writers(money_url: str) -> None:
    async def fenced(writer: str) -> asyncpg.Connection:
        fenced = await connect_for_writing(money_url)
        await fenced.execute(FENCE.text, *FENCE.arguments({"writer": writer}))
        return fenced

    left, others = await fenced("a writer"), await fenced("another writer")
    following = await fenced("a writer")
    assert [await each.fetchval("select 1") for each in (following, others)] == [1, 1]
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, InternalClientError)):
        await left.fetchval("select 1")
    for each in (others, following):
        await each.close()


async def test_a_request_that_has_itself_taken_the_last_credit_is_not_refused(
    database: asyncpg.Connection, ledger: Ledger
) -> None:
    payer = await payers.new_payer(database, credit=10)
    record = payers.priced(payer.key, 10)
    await ledger.record(record)
    record.outcome, record.was_sent = asyncio.get_running_loop().create_future(), True
    assert (await ledger.record(record)).ids == record.ids
    record.outcome, record.was_sent = asyncio.get_running_loop().create_future(), False
    with pytest.raises(InsufficientCredit):  # what nobody has sent is not looked for
        await ledger.record(record)

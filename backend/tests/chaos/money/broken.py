"""Faults under callers who pay, and what is broken after them."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from app.core.db import DATABASE_ERRORS, SessionMaker, create_engine
from app.generations.ledger.statements import SWEEP_LAPSED
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.chaos.jobs.broken import let_fail, wrongly_told
from tests.chaos.jobs.callers import KINDS, Asked, JobCallers, Kind
from tests.chaos.jobs.faults import Fault
from tests.chaos.jobs.hands import Hands
from tests.chaos.jobs.provider import LAVISH, PLAIN
from tests.chaos.jobs.trail import Image, images_of, wrong_steps
from tests.chaos.jobs.yard import LOOK_SECONDS, Yard, execute
from tests.chaos.load import Line, Order
from tests.chaos.money.books import sums_of, watched_sums, wrong_books
from tests.chaos.money.treasury import (
    AT_ONCE,
    PRICE,
    Change,
    Treasury,
    change_plan,
    disable,
    dispute,
    give_and_expire,
    set_cap,
    set_key_cap,
    top_up,
)
from tests.chaos.schedule import Schedule, times
from tests.harness import Key, looks, sign_up
from tests.test_cli import nanobanana_in_here

CALLERS = 2
"""Of each account."""
RUSH, RUSHES = 12, times(short=1, long=5)
"""Calls at once, with credit for one, and how often all accounts have such calls before anything fails."""
FAILS_EVERY = 7
"""Of so many calls of the provider one fails."""
_FIXED = "update balances set cap = $2, allowance = $3 where account_id = $1"
_CALL = Kind([Order(PLAIN)])
_KINDS = (
    *KINDS,
    Kind([Order(PLAIN)] * 2, is_repeated=True),
    Kind([Order(PLAIN, images=3)]),
    Kind([Order(LAVISH, images=2)], is_repeated=True),
    Kind([Order(PLAIN, images=2, hangs_up_after=0.1)]),
)


@dataclass
class Payer(JobCallers):
    """Callers of one account. What it can pay bounds what they have unfinished."""

    async def _hold_back(self) -> None:
        self._may_ask.set()

    async def _new_key(self) -> Key:
        """One of those that it has: an account that is disabled gets none."""
        return self.schedule.pick(self.keys)


async def rush(treasury: Treasury, payer: JobCallers) -> None:
    """Many calls at once, with two keys over connections that are there already, and credit for one more of them."""
    lines = [Line(payer.yard.fleet.port, payer.calls) for _ in range(RUSH)]
    await asyncio.gather(*(line.connect() for line in lines), return_exceptions=True)
    await treasury.enter(payer.account, "top_up", PRICE, by="stripe")
    keys = payer.keys[-2:]
    asked = [
        Asked(f"{keys[-1].id} rush {treasury.schedule.between(0, 1)} {n}", _CALL, keys[n % len(keys)])
        for n in range(RUSH)
    ]
    payer.journal.extend(asked)
    await asyncio.gather(*(payer.ask(each, line, _CALL.orders[0]) for each, line in zip(asked, lines, strict=True)))
    for line in lines:
        line.close()


WAYS: Sequence[Sequence[Change]] = [
    (),
    (),
    (top_up, rush, give_and_expire, dispute),
    (top_up, rush, set_cap, set_key_cap),
    (top_up, rush, change_plan, disable),
    (top_up, rush),
    (top_up, rush, set_key_cap),
    (top_up, rush, change_plan),
][: times(short=5, long=8)]
"""How the money of each account changes; that of the first two never does."""


@asynccontextmanager
async def sessions_of(yard: Yard) -> AsyncIterator[SessionMaker]:
    """Transactions of an operator, which no fault on the way meets but those of the database."""
    engine = create_engine(yard.own.url_through(yard.proxy.port), pool_size=AT_ONCE)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


async def broken_by(
    faults: Mapping[Fault, int], yard: Yard, schedule: Schedule, workers: Hands, *, pause_seconds_max: float = 1
) -> Sequence[str]:
    """What is broken after so many faults of each kind, in an order by chance, as sentences."""
    started, before = time.monotonic(), yard.cluster.lock_errors()
    yard.provider.fails_every = FAILS_EVERY
    wrong: set[str] = set()
    async with sessions_of(yard) as sessions:
        treasury = Treasury(sessions, schedule)
        payers = [
            (Payer if n else JobCallers)(yard, await sign_up(yard.client), schedule, _KINDS) for n in range(len(WAYS))
        ]
        await _give(treasury, payers)
        for payer in payers:
            payer.keys.extend([await payer.account.create_key() for _ in range(2)])
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watched_sums(yard.own, wrong))
            await stack.enter_async_context(treasury.working(list(zip(payers, WAYS, strict=True))))
            for payer in payers:
                await stack.enter_async_context(payer.calling(CALLERS))
            for _ in range(RUSHES):
                await asyncio.gather(*(rush(treasury, payer) for payer in payers[2:]))
            await let_fail(faults, payers[0], workers, pause_seconds_max=pause_seconds_max)
    unfinished = await _until_all_ended(yard)
    yard.provider.fails_every = 0
    connection = await yard.own.connect()
    images = await images_of(connection, [key.id for payer in payers for key in payer.keys])
    await connection.close()
    logged = yard.cluster.lock_errors() - before
    _tell(images, payers, faults, logged, time.monotonic() - started)
    account_ids = [each.account.account_id for each in payers]
    return [
        *wrong,
        *treasury.wrong,
        *unfinished,
        *wrong_steps(images),
        *wrongly_told(images, [asked for payer in payers for asked in payer.journal]),
        *await sums_of(yard.own),
        *await wrong_books(yard.own, account_ids, unchanged=account_ids[:2], entered=treasury.entered),
        *(f"{count} errors {sqlstate}" for sqlstate, count in logged.items()),
        *await reconciled(yard),
    ]


async def reconciled(yard: Yard) -> Sequence[str]:
    """What `nanobanana billing reconcile` has to say, unless everything agrees."""
    url = yard.own.url_through(yard.proxy.port)
    command = ("billing", "reconcile")
    done = await asyncio.to_thread(nanobanana_in_here, yard.folder, *command, DATABASE_URL=url)
    return [] if done.returncode == 0 else [f"reconcile: {done.stdout[-1000:]} {done.stderr[-1000:]}"]


async def _give(treasury: Treasury, payers: Sequence[JobCallers]) -> None:
    """The first account gets enough; the second an allowance, and more credit than its cap lets it spend; the others a
    little.
    """
    rich, bounded, *others = payers
    await execute(rich.yard.own, _FIXED, bounded.account.account_id, 40 * PRICE, 10 * PRICE)
    for payer, images in [(rich, 100_000), (bounded, 60), *((each, 4) for each in others)]:
        await treasury.enter(payer.account, "grant", images * PRICE, by="grant")


async def _until_all_ended(yard: Yard) -> Sequence[str]:
    """Waits until nothing is unfinished, and sweeps as each process does every ten seconds."""
    for _ in looks():
        with suppress(*DATABASE_ERRORS, OSError):
            await execute(yard.own, SWEEP_LAPSED.text)
        if not await yard.unfinished():
            return []
        await asyncio.sleep(LOOK_SECONDS)
    return [f"{await yard.unfinished()} images do not end"]


def _tell(
    images: Mapping[str, Image],
    payers: Sequence[JobCallers],
    faults: Mapping[Fault, int],
    logged: Mapping[str, int],
    seconds: float,
) -> None:
    ends = Counter(image.status for image in images.values())
    answers = Counter(call.code or str(call.status) for payer in payers for call in payer.calls)
    sys.stdout.write(
        f"{seconds:.0f} s, {answers.total()} calls {dict(sorted(answers.items()))}, {len(images)} images admitted"
        f" {dict(sorted(ends.items()))}, {sum(faults.values())} faults, errors {dict(logged)}\n"
    )

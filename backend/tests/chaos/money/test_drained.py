"""Callers who press on accounts with credit for a few images get exactly these."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from tests.chaos.jobs.yard import Yard, execute
from tests.chaos.load import Call, Line, lines_to_every_worker
from tests.chaos.money.books import wrong_books
from tests.chaos.money.broken import reconciled, sessions_of
from tests.chaos.money.conftest import SERVERS
from tests.chaos.money.treasury import PRICE, Treasury
from tests.chaos.schedule import Schedule, times
from tests.harness import Account, Key, looks, sign_up

ACCOUNTS, IMAGES_MAX, KEYS = times(short=8, long=200), 5, 2
LINES = times(short=3, long=1)
"""Of each account to each worker. They call at once."""
_PAUSE_SECONDS = 0.05
_LEFT = """
select b.account_id, b.credit - b.charged as left, b.held,
  (select count(*) from generations g where g.account_id = b.account_id and g.status = 'delivered') as delivered
from balances b where b.account_id = any($1)
"""


@dataclass
class Pressed:
    """An account, and what its callers were told."""

    account: Account
    images: int
    """So many it has credit for."""
    keys: Sequence[Key] = ()
    calls: list[Call] = field(default_factory=list)
    """Without replays."""

    @property
    def delivered(self) -> int:
        return sum(call.outcome == "ok" for call in self.calls)

    async def press(self, line: Line, number: int) -> None:
        """Calls until all is delivered, and one call more is refused. Every other one is sent twice."""
        key = self.keys[number % KEYS]
        for n in count():
            name, is_drained = f"{key.id}-{number}-{n}", self.delivered >= self.images
            call = await self._ask(line, key, name, self.calls)
            if call.code == "insufficient_credit":
                if is_drained:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
            elif (n + number) % 2:
                replay = await self._ask(line, key, name, [])
                assert (replay.ids, replay.replayed) == (call.ids, True)

    async def _ask(self, line: Line, key: Key, name: str, calls: list[Call]) -> Call:
        """An image, or the refusal for too little credit: the server may be too busy at first."""
        for _ in looks():
            call = await line.ask(key, name, idempotency_key=name)
            calls.append(call)
            if call.outcome == "ok" or call.code == "insufficient_credit":
                return call
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError(call)

    def too_early(self) -> Sequence[str]:
        """The refusals at whose time fewer images were delivered or asked for than there was credit for."""
        refused = [call for call in self.calls if call.code == "insufficient_credit"]
        others = [call for call in self.calls if call.code != "insufficient_credit"]
        return [call.prompt for call in refused if sum(_may_hold(each, call) for each in others) < self.images]


def _may_hold(other: Call, refused: Call) -> bool:
    """Whether this other call may have taken or held credit when that one was refused."""
    return other.sent < refused.received and (other.outcome != "fail" or other.received > refused.sent)


async def test_callers_who_press_on_accounts_with_credit_for_some_images_get_exactly_these(
    yard: Yard, schedule: Schedule, journal: list[Call]
) -> None:
    async with sessions_of(yard) as sessions:
        treasury = Treasury(sessions, schedule)
        pressed = [await _new_account(yard, treasury, 1 + n % IMAGES_MAX) for n in range(ACCOUNTS)]
    started, before = time.monotonic(), yard.cluster.lock_errors()
    async with lines_to_every_worker(yard.fleet, journal, each=ACCOUNTS * LINES) as of_servers:
        assert len(of_servers) == SERVERS
        lines = [each for of_server in zip(*of_servers, strict=True) for each in of_server]
        await asyncio.gather(*(pressed[n // SERVERS % ACCOUNTS].press(line, n) for n, line in enumerate(lines)))
    told = Counter(call.code or str(call.status) for call in journal)
    sys.stdout.write(f"{ACCOUNTS} accounts in {time.monotonic() - started:.0f} s: {dict(told)}\n")
    ids = [each.account.account_id for each in pressed]
    rows = {row["account_id"]: tuple(row)[1:] for row in await execute(yard.own, _LEFT, ids)}
    assert rows == {each.account.account_id: (0, 0, each.images) for each in pressed}
    assert [early for each in pressed for early in each.too_early()] == []
    assert await wrong_books(yard.own, ids, unchanged=ids, entered=treasury.entered) == []
    assert await reconciled(yard) == []
    assert yard.cluster.lock_errors() - before == {}


async def _new_account(yard: Yard, treasury: Treasury, images: int) -> Pressed:
    account = await sign_up(yard.client)
    await treasury.enter(account, "grant", images * PRICE, by="grant")
    return Pressed(account, images, [await account.create_key() for _ in range(KEYS)])

"""Callers who press on accounts with credit for a few images get exactly these."""

import asyncio
import sys
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
from tests.harness import Account, Key, sign_up

ACCOUNTS, IMAGES, KEYS = times(short=20, long=200), 3, 2
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
    keys: Sequence[Key] = ()
    calls: list[Call] = field(default_factory=list)
    """Without replays."""

    @property
    def delivered(self) -> int:
        return sum(call.outcome == "ok" for call in self.calls)

    async def press(self, line: Line, key: Key, *, server: int) -> None:
        """Calls until all is delivered, and one call more is refused. Every other one is sent twice."""
        name = f"{key.id}-{server}"
        for n in count():
            once = f"{name}-{n}" if (n + server) % 2 else None
            is_drained = self.delivered == IMAGES
            call = await line.ask(key, f"{name} {n}", idempotency_key=once)
            self.calls.append(call)
            if call.code == "insufficient_credit":
                if is_drained:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
            elif once and call.outcome == "ok":
                replay = await line.ask(key, f"{name} {n}", idempotency_key=once)
                assert (replay.ids, replay.replayed) == (call.ids, True)

    def too_early(self) -> Sequence[str]:
        """The refusals before which fewer images had been asked for than there was credit for."""
        others = [call for call in self.calls if call.code != "insufficient_credit"]
        refused = [call for call in self.calls if call.code == "insufficient_credit"]
        return [call.prompt for call in refused if sum(other.sent < call.received for other in others) < IMAGES]


async def test_callers_who_press_on_accounts_with_credit_for_some_images_get_exactly_these(
    yard: Yard, schedule: Schedule, journal: list[Call]
) -> None:
    async with sessions_of(yard) as sessions:
        treasury = Treasury(sessions, schedule)
        pressed = [await _new_account(yard, treasury) for _ in range(ACCOUNTS)]
    async with lines_to_every_worker(yard.fleet, journal, each=ACCOUNTS) as lines:
        assert len(lines) == SERVERS
        await asyncio.gather(
            *(
                account.press(line, account.keys[server // KEYS], server=server)
                for server, of_server in enumerate(lines)
                for account, line in zip(pressed, of_server, strict=True)
            )
        )
    told = Counter(call.code or str(call.status) for call in journal)
    sys.stdout.write(f"{ACCOUNTS} accounts, {IMAGES} images each: {dict(told)}\n")
    ids = [each.account.account_id for each in pressed]
    for row in await execute(yard.own, _LEFT, ids):
        assert (row["left"], row["held"], row["delivered"]) == (0, 0, IMAGES), row
    assert [early for each in pressed for early in each.too_early()] == []
    assert await wrong_books(yard.own, ids, unchanged=ids, entered=treasury.entered) == []
    assert await reconciled(yard) == []


async def _new_account(yard: Yard, treasury: Treasury) -> Pressed:
    account = await sign_up(yard.client)
    await treasury.enter(account, "grant", IMAGES * PRICE, by="grant")
    return Pressed(account, [await account.create_key() for _ in range(KEYS)])

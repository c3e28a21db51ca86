"""`make bench-migration`, second part: what this schema does to the statement that records.

One connection, batches of 24 images of 50 keys, 100,000 rows there before. The cases take turns batch by batch, so that
a machine that changes its pace changes all of them. Beside the time of a batch stands the time that the database's
process was at work for it, which other load on the machine disturbs less.
"""

import asyncio
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from app.core.db import connect_for_writing
from app.core.embedded import embedded_postgres
from app.core.security import new_timed_id
from benchmarks.machine import machine
from tests.harness import fresh_database
from tests.version_before.history import upgrade, upgrade_to_next
from tests.version_before.statements import RECORD, REVISION

KEYS = 50
BATCH = 24
ROWS_BEFORE = 100_000
BATCHES = 1500
_AHEAD_SECONDS = 65 * 86_400  # into a month that has a partition of its own

_NAMES = "insert into generations (id, "
_VALUES = "select id, key_id, prompt"
_KEY = "is_suspended as active from"
_ADMITTED = "select i.* from input i"
# The same with the columns that the version before does not know, so that no trigger fills them in.
RECORD_WITH_ACCOUNT = (
    RECORD.replace(_NAMES, f"{_NAMES}request_id, account_id, environment, ")
    .replace(_VALUES, "select id, request, account_id, environment, key_id, prompt")
    .replace(_KEY, "is_suspended as active, k.account_id, k.environment from")
    .replace(_ADMITTED, "select i.*, k.account_id, k.environment from input i")
)

_ADD_USER = "insert into users (id, email, password_hash) values ('usr_00000000000000000000', 'bench@example.com', '')"
_ADD_KEYS = """
insert into api_keys (id, user_id, name, environment, prefix, key_hash)
select 'key_' || lpad(n::text, 20, '0'), 'usr_00000000000000000000', 'bench', 'live', 'nb_live_00000000',
  sha256(n::text::bytea)
from generate_series(1, $1::bigint) n
"""


@dataclass
class Case:
    """A statement on a schema, and how long its batches took, in milliseconds."""

    name: str
    statement: str
    ahead: float
    connection: asyncpg.Connection
    times: list[float] = field(default_factory=list)
    work_before: float = 0

    async def prepare(self) -> None:
        await self.connection.execute("set statement_timeout = 0")
        await self.connection.execute(_ADD_USER)
        await self.connection.execute(_ADD_KEYS, KEYS)
        begin = time.time() - 3600
        for number in range(ROWS_BEFORE // BATCH):
            await self.connection.fetch(self.statement, *self._batch(begin + number / 10))
        await self.connection.execute("vacuum analyze")
        self.work_before = self._work()

    async def record(self) -> None:
        batch, start = self._batch(time.time()), time.perf_counter()
        await self.connection.fetch(self.statement, *batch)
        self.times.append((time.perf_counter() - start) * 1e3)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def work(self) -> float:
        """For a batch, of the process that serves the connection."""
        return (self._work() - self.work_before) / len(self.times)

    def _work(self) -> float:
        schedule = Path(f"/proc/{self.connection.get_server_pid()}/schedstat").read_text()
        return int(schedule.split()[0]) / 1e6

    def _batch(self, now: float) -> Sequence[Sequence[object]]:
        ids = [new_timed_id("gen", now=now + self.ahead) for _ in range(BATCH)]
        of_all = ("A cute banana", "1024x1024", "png", "stub", "delivered")
        rows = [(each, f"key_{1 + secrets.randbelow(KEYS):020d}", *of_all, each, None, None, None) for each in ids]
        return list(zip(*rows, strict=True))


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        server = stack.enter_context(embedded_postgres(Path(folder)))
        urls = [stack.enter_context(fresh_database(server)) for _ in range(5)]
        upgrade(urls[0], REVISION)
        for url in urls[1:]:
            upgrade_to_next(url)
        asyncio.run(_measure(urls))


async def _measure(urls: Sequence[str]) -> None:
    connections = [await connect_for_writing(url) for url in urls]
    cases = [
        Case("the version before, on its schema", RECORD, 0, connections[0]),
        Case("the version before, first partition", RECORD, 0, connections[1]),
        Case("the version before, a month's partition", RECORD, _AHEAD_SECONDS, connections[2]),
        Case("all columns given, first partition", RECORD_WITH_ACCOUNT, 0, connections[3]),
        Case("all columns given, a month's partition", RECORD_WITH_ACCOUNT, _AHEAD_SECONDS, connections[4]),
    ]
    for case in cases:
        await case.prepare()
    for _ in range(BATCHES):
        for case in random.sample(cases, len(cases)):
            await case.record()
    print(f"{machine()}\n{BATCHES:,} batches of {BATCH}, {ROWS_BEFORE:,} rows before; medians\n")
    print("| | ms a batch | ratio | ms at work | ratio |\n|---|---|---|---|---|")
    for case in cases:
        ratios = case.median / cases[0].median, case.work / cases[0].work
        print(f"| {case.name} | {case.median:.3f} | {ratios[0]:.2f} | {case.work:.3f} | {ratios[1]:.2f} |")
    for connection in connections:
        await connection.close()


if __name__ == "__main__":
    main()

"""`make bench-scale`: what a request costs with 10 and 1,000,000 keys, and with 0 and 10,000,000 rows in the ledger.

Every phase runs the bare route in turn with ours: the ratio of the two is what is compared between the phases, so that
a machine that changes its pace meanwhile changes both. A thousand keys are in use at a time, spread over all there are.
"""

import asyncio
import statistics
import sys
from contextlib import ExitStack

import asyncpg
from benchmarks.bench import start
from benchmarks.machine import Load, Server, database, load, machine, new_key, tool
from sqlalchemy.engine import make_url

ROUNDS = 4
SECONDS = 4
KEYS_IN_USE = 1000
MANY_KEYS = 1_000_000
MANY_ROWS = 10_000_000
_ROWS_AT_ONCE = 500_000

_ADD_KEYS = """
insert into api_keys (id, user_id, name, environment, prefix, key_hash)
select 'key_' || lpad(n::text, 20, '0'), (select id from users limit 1), 'bench', 'live', 'nb_live_00000000',
  sha256(convert_to('nb_live_' || lpad(to_hex(n), 32, '0'), 'UTF8'))
from generate_series($1::bigint, $2::bigint) n
"""

# Ids of last year, spread over its days and over all the keys, as a year of traffic would have left them.
_ADD_ROWS = """
insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status, created_at,
  delivered_at)
select id, id, (select id from accounts limit 1), 'live', 'key_' || lpad((1 + n * 7919 % $3)::text, 20, '0'),
  'A cute banana', '1024x1024', 'stub', 'delivered', at, at
from generate_series($1::bigint, $2::bigint) n,
  lateral (select now() - interval '1 year' + n * interval '2 seconds', 'gen_01k' || lpad(n::text, 27, '0')) t(at, id)
"""


def main() -> None:
    tool()
    with ExitStack() as stack:
        url = stack.enter_context(database())
        servers = start(stack, url, names=("ours", "bare"))
        new_key(servers["ours"].url)
        print(f"{machine()}\n{ROUNDS} rounds of {SECONDS} s a phase, 32 connections, one worker; medians\n")
        print("| keys | ledger rows before | requests/s | of bare | p99 ms | cost against the first |")
        print("|---|---|---|---|---|---|")
        first = phase(url, servers, keys=10, rows=0, first=None)
        phase(url, servers, keys=MANY_KEYS, rows=0, first=first)
        phase(url, servers, keys=MANY_KEYS, rows=MANY_ROWS, first=first)


def phase(url: str, servers: dict[str, Server], *, keys: int, rows: int, first: float | None) -> float:
    """Fills the database up, measures, prints a row, and returns our speed as a share of the bare route's."""
    asyncio.run(fill(url, keys=keys, rows=rows))
    in_use = [f"nb_live_{1 + n * keys // min(keys, KEYS_IN_USE):032x}" for n in range(min(keys, KEYS_IN_USE))]
    ours: list[Load] = []
    ratios: list[float] = []
    for number in range(ROUNDS + 1):
        loads = {name: load(server.url, keys=in_use, seconds=SECONDS) for name, server in servers.items()}
        if number:  # the first one warms up
            ours.append(loads["ours"])
            ratios.append(loads["ours"].per_second / loads["bare"].per_second)
    ratio = statistics.median(ratios)
    speed, tail = (statistics.median(getattr(each, field) for each in ours) for field in ("per_second", "p99"))
    print(f"| {keys:,} | {rows:,} | {speed:,.0f} | {ratio:.2f} | {tail:.1f} | {(first or ratio) / ratio:.2f} |")
    return ratio


async def fill(url: str, *, keys: int, rows: int) -> None:
    """Adds keys and rows until there are that many of the benchmark's own."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    there = await connection.fetchval("select count(*) from api_keys where name = 'bench' and id < 'key_1'")
    await connection.execute(_ADD_KEYS, there + 1, keys)
    await connection.execute("set session_replication_role = replica")  # foreign keys hold by construction
    recorded = await connection.fetchval("select count(*) from generations where id < 'gen_01k1'")
    for begin in range(recorded + 1, rows + 1, _ROWS_AT_ONCE):
        await connection.execute(_ADD_ROWS, begin, min(rows, begin + _ROWS_AT_ONCE - 1), keys)
        print(f"{begin + _ROWS_AT_ONCE - 1:,} rows", file=sys.stderr)
    await connection.execute("vacuum analyze")
    await connection.execute("checkpoint")
    await connection.close()


if __name__ == "__main__":
    main()

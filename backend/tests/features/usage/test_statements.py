"""The ledger's statements use the indexes, also with a plan that was made on small tables."""

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.generations.ledger.statements import (
    FIND_RECORDED,
    FIND_SETTLED,
    MARK_SENT,
    QUERIES,
    RECORD,
    RECORD_PRICED,
    RECORD_QUEUED,
    RECORD_QUEUED_PRICED,
    SETTLE,
    SETTLE_JOBS,
    SETTLE_JOBS_PRICED,
    SETTLE_PRICED,
    SWEEP_JOBS,
    SWEEP_LAPSED,
    TAKE_OVER,
    Statement,
)

_FEW_ROWS = """
    insert into users (id, email, password_hash) values ('usr_a', 'a@example.com', 'none');
    insert into api_keys (id, user_id, name, environment, prefix, key_hash)
      select 'key_' || n, 'usr_a', 'a key', 'live', 'nb_live_12345678', sha256(n::text::bytea)
      from generate_series(1, 100) n;
    insert into generations (id, key_id, prompt, size, provider, status)
      select 'gen_' || n, 'key_1', 'A cute banana', '64x64', 'gemini', 'processing' from generate_series(1, 100) n;
    analyze;
"""

_MANY_WAITING = """
    insert into accounts (id) select 'acc_' || n from generate_series(0, 9) n;
    insert into api_keys (id, account_id, name, environment, prefix, key_hash)
      select 'key_' || n, 'acc_' || n, 'a key', 'live', 'nb_live_12345678', sha256(n::text::bytea)
      from generate_series(0, 9) n;
    insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status,
      lease_until, expires_at)
      select id, id, 'acc_' || n % 10, 'live', 'key_' || n % 10, '', '64x64', 'gemini', 'queued', tomorrow, tomorrow
      from generate_series(1, 10000) n,
        lateral (select 'gen_' || lpad(n::text, 10, '0'), now() + interval '1 day') i (id, tomorrow);
    insert into lanes (account_id, class, waiting) select id, 'now', 1000 from accounts;
    insert into lane_keys (key_id, class, account_id, waiting) select id, 'now', account_id, 1000 from api_keys;
"""
_FIRST_COLUMNS = """
    select i.indexrelid::regclass::text, a.attname from pg_index i
    join pg_attribute a on a.attrelid = i.indexrelid and a.attnum = 1
    where i.indrelid::regclass::text ~ '^(generations|balances$|api_keys$)' and pg_relation_size(i.indrelid) > 0
"""


@pytest.mark.parametrize(
    "statement", [RECORD, RECORD_PRICED, SETTLE, SETTLE_PRICED, SETTLE_JOBS, SETTLE_JOBS_PRICED, FIND_SETTLED]
)
async def test_a_plan_that_was_made_while_the_tables_were_small_uses_the_indexes(
    new_database_url: str, statement: Statement
) -> None:
    connection = await connect_for_writing(new_database_url)
    await connection.execute(_FEW_ROWS)
    plan = await _plan(connection, statement)
    await connection.close()
    assert "generations" in plan
    assert "Seq Scan" not in plan


async def test_no_statement_reads_all_that_waits(new_database_url: str) -> None:
    connection = await connect_for_writing(new_database_url)
    await connection.execute(_MANY_WAITING)
    first_columns = dict(await connection.fetch(_FIRST_COLUMNS))  # by the indexes of the partition that has the rows
    recording = [RECORD, RECORD_PRICED, RECORD_QUEUED, RECORD_QUEUED_PRICED, FIND_RECORDED, MARK_SENT, FIND_SETTLED]
    ending = [SETTLE, SETTLE_PRICED, SETTLE_JOBS, SETTLE_JOBS_PRICED, TAKE_OVER, SWEEP_JOBS, SWEEP_LAPSED]
    for preparation in ("discard plans", "analyze"):
        await connection.execute(preparation)
        for statement in [*recording, *ending, *QUERIES.values()]:
            for scan in _scans(json.loads(await _plan(connection, statement, "(format json)"))[0]["Plan"]):
                begins_with = first_columns.get(scan["Index Name"], "")
                assert begins_with in scan.get("Index Cond", ""), (preparation, statement.name, scan)
    await connection.close()


def _scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read an index."""
    if "Index Name" in plan:
        yield plan
    for each in plan.get("Plans", ()):
        yield from _scans(each)


async def _plan(connection: asyncpg.Connection, statement: Statement, options: str = "") -> str:
    """The generic plan, which does not depend on parameters."""
    await connection.execute(f"prepare recorded as {statement.text}")
    query = "select array_length(parameter_types, 1) from pg_prepared_statements where name = 'recorded'"
    nulls = ", ".join(["null"] * (await connection.fetchval(query) or 0))
    lines = await connection.fetch(f"explain {options} execute recorded {nulls and f'({nulls})'}")
    await connection.execute("deallocate recorded")
    return "\n".join(line for (line,) in lines)

"""The ledger's statements use the indexes, also with a plan that was made on small tables."""

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.generations.ledger.statements import FIND_SETTLED, RECORD, SETTLE, Statement

_FEW_ROWS = """
    insert into users (id, email, password_hash) values ('usr_a', 'a@example.com', 'none');
    insert into api_keys (id, user_id, name, environment, prefix, key_hash)
      select 'key_' || n, 'usr_a', 'a key', 'live', 'nb_live_12345678', sha256(n::text::bytea)
      from generate_series(1, 100) n;
    insert into generations (id, key_id, prompt, size, provider, status)
      select 'gen_' || n, 'key_1', 'A cute banana', '64x64', 'gemini', 'processing' from generate_series(1, 100) n;
    analyze;
"""


@pytest.mark.parametrize("statement", [RECORD, SETTLE, FIND_SETTLED])
async def test_a_plan_that_was_made_while_the_tables_were_small_uses_the_indexes(
    new_database_url: str, statement: Statement
) -> None:
    connection = await connect_for_writing(new_database_url)
    await connection.execute(_FEW_ROWS)
    plan = await _plan(connection, statement)
    await connection.close()
    assert "generations" in plan
    assert "Seq Scan" not in plan


async def _plan(connection: asyncpg.Connection, statement: Statement) -> str:
    """The generic plan, which does not depend on parameters."""
    await connection.execute("set plan_cache_mode = force_generic_plan")
    await connection.execute(f"prepare recorded as {statement.text}")
    query = "select array_length(parameter_types, 1) from pg_prepared_statements where name = 'recorded'"
    nulls = ", ".join(["null"] * await connection.fetchval(query))
    lines = await connection.fetch(f"explain execute recorded ({nulls})")
    return "\n".join(line for (line,) in lines)

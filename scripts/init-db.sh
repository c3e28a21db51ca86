#!/usr/bin/env bash
# Creates the database that DATABASE_URL names on a PostgreSQL server that runs already, and migrates it.
#   scripts/init-db.sh                                         # postgresql+asyncpg://localhost/nanobanana
#   DATABASE_URL=postgresql+asyncpg://me:pw@db:5432/nanobanana scripts/init-db.sh
# Safe to run again: a database that is there is only migrated. Not needed for `make run`, which starts a PostgreSQL of
# its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export DATABASE_URL="${DATABASE_URL:-postgresql+asyncpg://localhost/nanobanana}"

make --silent .venv/run.installed
.venv/bin/python - <<'PYTHON'
import asyncio
import os
import sys

import asyncpg
from sqlalchemy.engine import make_url


async def create() -> None:
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql")
    server = url.set(database="postgres").render_as_string(hide_password=False)
    try:
        connection = await asyncpg.connect(server, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        sys.exit(f"init-db: cannot reach PostgreSQL at {url.host or 'its socket'}: {error or type(error).__name__}")
    try:
        name = (url.database or "").replace('"', '""')
        await connection.execute(f'create database "{name}"')
        print(f"Created the database {url.database}.")
    except asyncpg.DuplicateDatabaseError:
        print(f"The database {url.database} is there already.")
    finally:
        await connection.close()


asyncio.run(create())
PYTHON
.venv/bin/nanobanana migrate

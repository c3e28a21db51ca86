"""Helpers for tests of the embedded PostgreSQL: queries, errors, folders and processes."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from app.core.embedded import EmbeddedPostgresError, embedded_postgres

AS_ORDINARY_USER = ("unshare", "--user", "--map-user=65534", "--") if os.geteuid() == 0 else ()
"""The prefix that runs a command as an ordinary user, to whom file permissions apply."""


def ask(url: str, sql: str, password: str | None = None) -> Any:
    """The first value of the query's result; with another password than the URL's, if one is given."""

    async def connect() -> Any:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""), password=password, timeout=10)
        try:
            return await connection.fetchval(sql, timeout=10)
        finally:
            await connection.close()

    return asyncio.run(connect())


def works(data: Path) -> bool:
    with embedded_postgres(data) as url:
        return bool(ask(url, "SELECT true"))


def refusal(data: Path) -> str:
    with pytest.raises(EmbeddedPostgresError) as refused, embedded_postgres(data):
        pass
    return str(refused.value)


def socket_folder(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def servers(cluster: Path) -> list[int]:
    """The pids of the processes whose working directory is the folder, such as PostgreSQL's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == cluster.resolve():
                found.append(int(process.name))
    return found

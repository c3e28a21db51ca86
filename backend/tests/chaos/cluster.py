"""A PostgreSQL of the tests' own, which can be stopped in the middle of everything and started again."""

import asyncio
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote

import asyncpg
from app import migrations
from app.core.embedded import embedded_postgres
from app.core.processes import end, started_at
from sqlalchemy.engine import URL, make_url

_STOP_SECONDS = 60.0
_WITH_SQLSTATES = "alter system set log_line_prefix = '%m [%p] %e '"
_WITH_DEADLOCKS_FOUND_SOON = "alter system set deadlock_timeout = '100ms'"


class Cluster:
    """A migrated database on a server that keeps its data and its log from start to start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self._url = make_url("postgresql://")

    async def prepare(self) -> None:
        """Starts it for the first time, makes the schema and has it write sqlstates to its log."""
        await self.start()
        await asyncio.to_thread(migrations.upgrade, self._url.render_as_string(hide_password=False))
        connection = await self.connect()
        for statement in (_WITH_SQLSTATES, _WITH_DEADLOCKS_FOUND_SOON):
            await connection.execute(statement)
        await connection.close()
        await self.stop()
        await self.start()
        connection = await self.connect()
        assert await connection.fetchval("show deadlock_timeout") == "100ms", "lock_timeout would hide deadlocks"
        await connection.close()

    async def with_new_database(self) -> "Cluster":
        """The same server with a migrated database of its own, for a test whose rows no other server may sweep. It is
        started and stopped through the first one alone.
        """
        name = f"alone_{token_hex(8)}"
        connection = await self.connect()
        await connection.execute(f"create database {name}")
        await connection.close()
        url = self._url.set(database=name)
        await asyncio.to_thread(migrations.upgrade, url.render_as_string(hide_password=False))
        return _OneDatabase(self, self._folder, name)

    async def start(self) -> None:
        self._url = make_url(await asyncio.to_thread(self._start))

    def _start(self) -> str:
        return self._running.enter_context(embedded_postgres(self._folder))

    async def stop(self) -> None:
        """Stops it as its operator would."""
        await asyncio.to_thread(self._running.close)

    async def stop_at_once(self) -> None:
        """Stops it as a power cut would: no checkpoint, no farewell. What was committed is in its log, or lost."""
        pid, started, _ = (self._folder / "postgres.state").read_text().split("\n")
        await asyncio.to_thread(end, int(pid), started, [(signal.SIGQUIT, _STOP_SECONDS)])
        assert started_at(int(pid)) != started, "the server has not stopped"
        await self.stop()

    @property
    def url(self) -> URL:
        """Its URL, another one after every start."""
        return self._url

    @property
    def socket(self) -> str:
        """The Unix socket that it listens on, another one after every start."""
        return f"{unquote(str(self.url.query['host']))}/.s.PGSQL.5432"

    def url_through(self, port: int) -> str:
        """Its URL for somebody who reaches it through this loopback port."""
        way: URL = self.url.set(host="127.0.0.1", port=port, query={"ssl": "disable"})
        return way.render_as_string(hide_password=False)

    async def connect(self) -> asyncpg.Connection:
        """A connection that no fault on the way meets."""
        return await asyncpg.connect(self.url.set(drivername="postgresql").render_as_string(hide_password=False))

    def deadlocks(self) -> int:
        """How many deadlocks it has written to its log so far."""
        return self.logged("40P01")

    def lock_errors(self) -> Counter[str]:
        """How often it has logged so far that there was a deadlock (40P01), or that a lock was waited for too long."""
        return Counter({sqlstate: self.logged(sqlstate) for sqlstate in ("40P01", "55P03")})

    def logged(self, sqlstate: str) -> int:
        """How many errors of this kind it has written to its log so far."""
        log = (self._folder / "postgres.log").read_text(errors="replace")
        assert " 00000 " in log, "the log holds no sqlstates"
        return log.count(f" {sqlstate} ")


class _OneDatabase(Cluster):
    """Another database of a server that is started and stopped elsewhere."""

    def __init__(self, server: Cluster, folder: Path, name: str) -> None:
        super().__init__(folder)
        self._server = server
        self._name = name

    @property
    def url(self) -> URL:
        return self._server.url.set(database=self._name)

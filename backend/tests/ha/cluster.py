"""Three PostgreSQL servers under Patroni, with etcd and HAProxy, on loopback addresses of their own."""

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from app.core.database_connection import ConnectionOptions, connect
from app.core.database_url import parse_database_url
from app.core.postgres_programs import choose_runner
from tests.docs.settings_pages import ROOT
from tests.ha.hosts import Host
from tests.ha.programs import program
from tests.harness import free_port, looks

OPS = ROOT / "ops"
ADDRESSES = {"db1": "127.0.0.11", "db2": "127.0.0.12", "db3": "127.0.0.13"}
WAYS = "HAProxy", "several hosts"
"""How the database is reached."""

_LOOK_SECONDS = 0.2
_UTC = {"timezone": "UTC"}
_ANSWER_SECONDS = 1
_COMMAND_SECONDS = 60
_STANDBYS = {"sync_standby", "quorum_standby"}
_DATABASE = "create database nanobanana encoding 'UTF8' template template0 owner nanobanana"
_DEADLOCKS_ARE_TOLD = "alter database nanobanana set deadlock_timeout = '100ms'"
"""As long as the ledger waits for a lock at most, by default: then the ledger gives up, and no deadlock is counted."""


class PatroniCluster:
    """The database `nanobanana`, on whichever of three hosts is the primary."""

    def __init__(self, folder: Path) -> None:
        self._password = secrets.token_urlsafe(16)
        self._port, self._rest, self._etcd, self._proxy = free_port(), free_port(), free_port(), free_port()
        self._folder = folder
        self.etcd = self._new_etcd()
        self.hosts = {name: self._new_host(name) for name in ADDRESSES}
        self._haproxy = self._new_haproxy()
        several = ",".join(f"{address}:{self._port}" for address in ADDRESSES.values())
        self.urls = dict(zip(WAYS, (self._url(f"127.0.0.1:{self._proxy}"), self._url(several)), strict=True))

    def _url(self, hosts: str, user: str = "nanobanana", database: str = "nanobanana") -> str:
        query = "sslmode=disable&target_session_attrs=read-write"
        return f"postgresql+asyncpg://{user}:{self._password}@{hosts}/{database}?{query}"

    def _new_etcd(self) -> Host:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{free_port()}"
        options = {
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": f"default={peer}",
            "--data-dir": "data",
        }
        command = [program("etcd"), *(word for option in options.items() for word in option)]
        return Host(self._folder / "etcd", command, {"PATH": "/usr/bin:/bin"})

    def _new_host(self, name: str) -> Host:
        """With the documented file, and what is said there to differ between hosts in the environment."""
        folder = self._folder / name
        folder.mkdir()
        runner = choose_runner(folder)
        assert runner.account is None, "PostgreSQL runs here neither as this user nor in a user namespace"
        database, rest = (f"{ADDRESSES[name]}:{port}" for port in (self._port, self._rest))
        settings = {
            "NAME": name,
            "ETCD3_HOSTS": f"127.0.0.1:{self._etcd}",
            "RESTAPI_LISTEN": rest,
            "RESTAPI_CONNECT_ADDRESS": rest,
            "POSTGRESQL_LISTEN": database,
            "POSTGRESQL_CONNECT_ADDRESS": database,
            "POSTGRESQL_DATA_DIR": str(folder / "data"),
            "POSTGRESQL_BIN_DIR": str(runner.binaries),
            "POSTGRESQL_PGPASS": str(folder / "pgpass"),
            "SUPERUSER_USERNAME": "postgres",
            "SUPERUSER_PASSWORD": self._password,
            "REPLICATION_USERNAME": "replicator",
            "REPLICATION_PASSWORD": self._password,
        }
        environment = {"PATH": "/usr/bin:/bin", **{f"PATRONI_{key}": value for key, value in settings.items()}}
        return Host(folder, [*runner.prefix, program("patroni"), str(OPS / "patroni" / "patroni.yml")], environment)

    def _new_haproxy(self) -> Host:
        """With the documented file, whose names and ports become those of this cluster."""
        text = (OPS / "haproxy" / "postgres.cfg").read_text()
        ports = {":5000": f":{self._proxy}", ":5432": f":{self._port}", "port 8008": f"port {self._rest}"}
        names = {f" {name}:": f" {address}:" for name, address in ADDRESSES.items()}
        for documented, here in {**names, **ports}.items():
            assert documented in text, documented
            text = text.replace(documented, here)
        file = self._folder / "postgres.cfg"
        file.write_text(text)
        return Host(self._folder / "haproxy", [program("haproxy"), "-db", "-f", str(file)], {"PATH": "/usr/sbin"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything runs, with an empty database, until the block ends."""
        async with AsyncExitStack() as stack:
            for each in (self.etcd, *self.hosts.values(), self._haproxy):
                stack.push_async_callback(each.kill)
                each.start()
            await self.settled()
            await self._make_database()
            yield

    async def _make_database(self) -> None:
        hosts = f"{ADDRESSES[await self.leader()]}:{self._port}"
        url = self._url(hosts, "postgres", "postgres")
        connection = await connect(
            parse_database_url(url), ConnectionOptions(settings=_UTC, answer_seconds=_COMMAND_SECONDS)
        )
        await connection.execute(f"create role nanobanana login password '{self._password}'")
        await connection.execute(_DATABASE)
        await connection.execute(_DEADLOCKS_ARE_TOLD)
        await connection.close()

    async def members(self) -> Sequence[Mapping[str, Any]]:
        """What Patroni knows of its members, from one of them that answers; none where nobody does."""
        async with httpx2.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:
            for address in ADDRESSES.values():
                with suppress(httpx2.HTTPError):
                    answer = await client.get(f"http://{address}:{self._rest}/cluster")
                    members: Sequence[Mapping[str, Any]] = answer.json()["members"]
                    return members
        return ()

    async def leader(self) -> str:
        """The name of the primary's host. There must be one."""
        return next(str(each["name"]) for each in await self.members() if each["role"] == "leader")

    async def another_leader(self, former: str) -> str:
        """The name of the primary's host, once it is not this one any more."""
        for _ in looks():
            for each in await self.members():
                if each["role"] == "leader" and each["name"] != former and each["state"] == "running":
                    return str(each["name"])
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(f"no standby was promoted: see the logs in {self._folder}")

    async def settled(self) -> None:
        """Returns once there is a primary, and two standbys that commits may rely on."""
        for _ in looks():
            states = sorted((each["role"], each["state"]) for each in await self.members())
            standbys = [(role, state) for role, state in states if role in _STANDBYS and state == "streaming"]
            if ("leader", "running") in states and len(standbys) == len(ADDRESSES) - 1:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(f"{await self.members()}: see the logs in {self._folder}")

    async def switch_over(self) -> None:
        """Makes a standby the primary, as an operator does; returns once that is done."""
        command = [program("patronictl"), "-c", str(OPS / "patroni" / "patroni.yml"), "switchover", "--force"]
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PATRONI_ETCD3_HOSTS": f"127.0.0.1:{self._etcd}"}
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert "Successfully switched over" in done.stdout, done.stdout + done.stderr

    async def connect(self) -> asyncpg.Connection:
        """A connection to the primary, for looking."""
        return await connect(parse_database_url(self.urls[WAYS[1]]), ConnectionOptions(settings=_UTC))

    def deadlocks(self) -> int:
        """How many deadlocks all hosts have written to their logs so far."""
        return self.logged("40P01")

    def logged(self, sqlstate: str) -> int:
        """How many errors of this kind all hosts have written to their logs so far."""
        return sum(host.log.read_text(errors="replace").count(f" {sqlstate} ") for host in self.hosts.values())

"""The platform as a test uses it: a running application, and people who use it by HTTP."""

import asyncio
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any

import asyncpg
import httpx2
import uvicorn
from app.assembly import Externals
from app.core.settings import Settings
from app.main import create_app
from app.server import http_config
from sqlalchemy.engine import make_url
from tests.standins.listening import stop_accepting

PASSWORD = "correct horse battery staple"
PATIENCE_SECONDS = 60
"""Longer than the slowest machine takes for what comes soon: it passes only where something is broken."""
BEYOND_PATIENCE_SECONDS = 10 * PATIENCE_SECONDS
"""For what must not be waited for: whoever waits for it nevertheless fails."""

_TICK_SECONDS = 0.1
_TRUSTS_NOBODY = SSLContext(PROTOCOL_TLS_CLIENT)  # nothing here speaks TLS, and reading all authorities takes a while

JSON = dict[str, Any]


@dataclass
class Clock:
    """A time that stands still until a test moves it."""

    now: float

    def __call__(self) -> float:
        return self.now


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """Uvicorn's own, which ends as soon as it is told to, and not with the next tick."""
        for tick in count():
            if await self.on_tick(tick):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _TICK_SECONDS)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals belong to the test runner

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await stop_accepting(*self.servers)
        await super().shutdown(sockets)

    async def ended(self, serving: "asyncio.Task[None]") -> None:
        self.end()
        await serving


@asynccontextmanager
async def serving(config: uvicorn.Config) -> AsyncIterator[int]:
    """The loopback port of a server with this configuration."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            await server.ended(running)


@asynccontextmanager
async def running(
    settings: Settings, externals: Externals | None = None, *, at_its_own_url: bool = False
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application, served on a free loopback port as `nanobanana serve` does it. What its answers lead
    to is there only `at_its_own_url`; else it is at the settings' PUBLIC_URL.
    """
    # With the protocol named, asyncio turns Nagle's algorithm off: without, every answer waits 40 ms.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if at_its_own_url:
            settings = settings.model_copy(update={"public_url": url})
        server = Server(http_config(create_app(settings, externals)))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        limits = httpx2.Limits(max_connections=None)
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30, limits=limits, verify=_TRUSTS_NOBODY) as client:
                yield client  # its first request waits in the socket's queue until the application has started
        finally:
            await server.ended(serving)


@contextmanager
def fresh_database(server_url: str, *, copy_of: str | None = None) -> Iterator[str]:
    """A database on the server, dropped at the end: an empty one, or a copy of one to which nothing is connected.
    Deadlocks in it are found after 100 ms.
    """
    name = f"nanobanana_test_{secrets.token_hex(6)}"
    template = make_url(copy_of).database if copy_of else "template1"
    on_server(server_url, f"create database {name} template {template}")
    with suppress(asyncpg.InsufficientPrivilegeError):  # without a superuser in TEST_DATABASE_URL, after a second
        on_server(server_url, f"alter database {name} set deadlock_timeout = '100ms'")
    yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    on_server(server_url, f"drop database {name} with (force)")


def on_server(database_url: str, statement: str) -> None:
    """Runs one statement, from outside any event loop."""

    async def run() -> None:
        url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


@dataclass(frozen=True)
class Key:
    """An API key as its owner got it."""

    id: str
    raw: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.raw}"}


@dataclass(frozen=True)
class Account:
    """Somebody who has registered and logged in."""

    client: httpx2.AsyncClient
    id: str
    email: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def account_id(self) -> str:
        """The id of the account's row; `id` is that of its user, which is what the API shows."""
        return f"acc_{self.id.removeprefix('usr_')}"

    async def create_key(self, *, environment: str = "live", name: str = "a key") -> Key:
        answer = await self.client.post(
            "/v1/keys", json={"name": name, "environment": environment}, headers=self.headers
        )
        assert answer.status_code == 201, answer.text
        return Key(answer.json()["id"], answer.json()["key"])

    async def revoke_key(self, key: Key) -> None:
        answer = await self.client.delete(f"/v1/keys/{key.id}", headers=self.headers)
        assert answer.status_code == 204, answer.text


def new_email() -> str:
    return f"{secrets.token_hex(8)}@example.com"


async def register(client: httpx2.AsyncClient, **fields: object) -> httpx2.Response:
    """Registers a new address with a good password, unless `fields` say otherwise."""
    return await post(client, "/v1/auth/register", {"email": new_email(), "password": PASSWORD, **fields})


async def sign_up(client: httpx2.AsyncClient, *, email: str | None = None, password: str = PASSWORD) -> Account:
    """Registers and logs in."""
    credentials = {"email": email or new_email(), "password": password}
    registered = await client.post("/v1/auth/register", json=credentials)
    assert registered.status_code == 201, registered.text
    logged_in = await client.post("/v1/auth/login", json=credentials)
    assert logged_in.status_code == 200, logged_in.text
    return Account(client, registered.json()["id"], credentials["email"], logged_in.json()["access_token"])


async def generate(client: httpx2.AsyncClient, key: Key, **body: object) -> httpx2.Response:
    """Asks for a picture."""
    return await client.post("/v1/generate", json={"prompt": "A cute banana", **body}, headers=key.headers)


async def until_ready(client: httpx2.AsyncClient) -> None:
    """Returns once the application can serve, and all its parts work."""
    for _ in looks():
        answer = await client.get("/ready")
        if (answer.status_code, answer.json().get("degraded")) == (200, []):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not ready")


def without_request_id(answer: httpx2.Response) -> JSON:
    """A problem document, less the member that differs every time."""
    body: JSON = answer.json()
    return {name: value for name, value in body.items() if name != "request_id"}


def as_seen(answer: httpx2.Response) -> tuple[int, dict[str, str], bytes]:
    """All that a caller can tell two answers apart by: status, headers and bytes, less what differs every time."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    return answer.status_code, headers, answer.content.replace(answer.headers["x-request-id"].encode(), b"req_")


async def post(
    client: httpx2.AsyncClient, path: str, body: object, *, headers: Mapping[str, str] | None = None
) -> httpx2.Response:
    """Posts JSON in ASCII, which can hold what UTF-8 cannot: lone surrogates."""
    content_type = {"Content-Type": "application/json"}
    return await client.post(path, content=json.dumps(body), headers={**content_type, **(headers or {})})


def looks() -> Iterator[None]:
    """Turns of a loop that looks for what comes soon, and is left once it is seen. They end after PATIENCE_SECONDS."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        yield


def free_port(*, also: int = 0) -> int:
    """A port of loopback below those that the system gives out by itself: no connection of somebody else's takes it
    before the server that it is for does. The port that is so much higher (`also`) is free too.
    """
    while True:
        port = 12_000 + secrets.randbelow(10_000)
        with suppress(OSError), socket.socket() as server, socket.socket() as other:
            server.bind(("127.0.0.1", port))
            if also:
                other.bind(("127.0.0.1", port + also))
            return port


def port_is_open(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


async def until_waited_for(database: asyncpg.Connection, *, holder: int | None = None) -> None:
    """Returns once somebody waits for a lock of the transaction of this connection, or of the backend `holder`."""
    waiting = "select count(*) from pg_stat_activity where coalesce($1, pg_backend_pid()) = any(pg_blocking_pids(pid))"
    for _ in looks():
        await database.execute("select pg_stat_clear_snapshot()")  # within a transaction the view stands still
        if await database.fetchval(waiting, holder):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def until_none_is_held(database: asyncpg.Connection) -> None:
    """Returns once no connection to this database is in use, but this: others' is, for moments, when they look after
    what they keep there.
    """
    held = """
        select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
          and backend_type = 'client backend' and (state <> 'idle' or xact_start is not null)
    """
    for _ in looks():
        if await database.fetchval(held) == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection is held")


async def everything_stored(database: asyncpg.Connection) -> str:
    """Every row of every table, as a dump shows it."""
    dump = BytesIO()
    tables = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    for (table,) in await database.fetch(tables):  # a partitioned one has its rows in its partitions
        await database.copy_from_table(table, output=dump)
    return dump.getvalue().decode()

"""The platform as a test uses it: a running application, and people who use it by HTTP."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import uvicorn
from app.core.settings import Settings
from app.main import create_app
from sqlalchemy.engine import make_url

PASSWORD = "correct horse battery staple"

JSON = dict[str, Any]


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals belong to the test runner


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application, served on a free loopback port as `nanobanana serve` does it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        config = uvicorn.Config(
            create_app(settings),
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        limits = httpx2.Limits(max_connections=None)
        port = listener.getsockname()[1]
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=limits) as client:
            yield client  # its first request waits in the socket's queue until the application has started
        server.should_exit = True
        await serving


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """An empty database on the server, dropped at the end."""
    name = f"nanobanana_test_{secrets.token_hex(6)}"
    asyncio.run(_execute(server_url, f"create database {name}"))
    yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(server_url, f"drop database {name} with (force)"))


async def _execute(server_url: str, statement: str) -> None:
    url = make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


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


def without_request_id(answer: httpx2.Response) -> JSON:
    """A problem document, less the member that differs every time."""
    body: JSON = answer.json()
    return {name: value for name, value in body.items() if name != "request_id"}

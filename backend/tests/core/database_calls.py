"""Requests that need the database, and what is logged where it fails."""

import httpx2
from app.core.errors import Unavailable
from app.generations.errors import OutcomeUnknown
from structlog.types import EventDict
from tests.harness import Account, Key, generate, new_email


async def create_key(client: httpx2.AsyncClient, account: Account, *, name: str = "a key") -> httpx2.Response:
    return await client.post("/v1/keys", json={"name": name}, headers=account.headers)


async def ask_everything(client: httpx2.AsyncClient, account: Account, key: Key) -> list[httpx2.Response]:
    """One request of each kind that needs the database."""
    credentials = {"email": new_email(), "password": "correct horse battery staple"}
    return [
        await client.get("/v1/auth/me", headers=account.headers),
        await client.get("/v1/keys", headers=account.headers),
        await create_key(client, account),
        await generate(client, key),
        await client.get("/v1/images/gen_28fm63cjp43w44255s68.png"),
        await client.post("/v1/auth/login", json=credentials),
        await client.post("/v1/auth/register", json=credentials),
        await client.get("/ready"),
    ]


def causes(lines: list[EventDict]) -> set[object]:
    """The causes of the failures: SQLSTATEs of the database's errors, else types. The ledger logs its own."""
    raised = [line["exc_info"] for line in lines if line["log_level"] == "error" and "exc_info" in line]
    failed = {getattr(getattr(each, "orig", each), "sqlstate", None) or type(each) for each in raised}
    return (failed - {Unavailable, OutcomeUnknown}) | {line["sqlstate"] for line in lines if line.get("sqlstate")}

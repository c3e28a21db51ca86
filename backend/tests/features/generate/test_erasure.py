"""A prompt is kept as long as its image: no dump of the database has the prompt of an image that was deleted."""

import json
from collections.abc import Awaitable, Callable

import asyncpg
import httpx2
import pytest
from tests.features.canaries import canary
from tests.harness import Account, everything_stored, generate
from tests.problems import check_problem
from tests.version_before.statements import FORGET

Delete = Callable[[], Awaitable[object]]


@pytest.mark.parametrize("deleted_by", ["its account", "a server of the version before"])
async def test_a_deleted_generation_leaves_its_numbers_and_nothing_that_its_caller_wrote(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, deleted_by: str
) -> None:
    key, prompt, name = await account.create_key(), canary("prompt"), canary("input")
    with_claim = {**key.headers, "Idempotency-Key": "once"}

    async def ask() -> httpx2.Response:
        return await client.post("/v1/generate", json={"prompt": prompt}, headers=with_claim)

    async def usage() -> object:
        return (await client.get("/v1/usage", headers=account.headers)).json()

    made = (await ask()).json()["id"]
    kept = (await generate(client, key, prompt=canary("kept"))).json()
    await database.execute("update generations set inputs = $2 where id = $1", made, json.dumps([{"id": name}]))
    stored, counted = await everything_stored(database), await usage()
    assert all(each in stored for each in (prompt, name, kept["prompt"]))
    delete: dict[str, Delete] = {
        "its account": lambda: client.delete(f"/v1/generations/{made}", headers=key.headers),
        "a server of the version before": lambda: database.execute(FORGET, made),
    }
    await delete[deleted_by]()
    left = await everything_stored(database)
    assert [each in left for each in (prompt, name, kept["prompt"])] == [False, False, True]
    check_problem(await client.get(f"/v1/generations/{made}", headers=key.headers), 404, "generation_not_found")
    check_problem(await client.delete(f"/v1/generations/{made}", headers=key.headers), 404, "generation_not_found")
    assert [each["id"] for each in (await client.get("/v1/generations", headers=key.headers)).json()] == [kept["id"]]
    check_problem(await ask(), 410, "image_deleted")
    assert await usage() == counted

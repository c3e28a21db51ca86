"""`POST /v1/generate` with images: where they may come from, what is recorded of them, and what is refused."""

import json
from base64 import b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import PurePosixPath

import asyncpg
import httpx2
from PIL import Image
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Key, generate


def png(width: int = 96, height: int = 64, colour: str = "tomato") -> bytes:
    encoded = BytesIO()
    Image.new("RGB", (width, height), colour).save(encoded, "PNG")
    return encoded.getvalue()


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{b64encode(content).decode()}"


async def edit(client: httpx2.AsyncClient, key: Key, *images: str, **more: object) -> httpx2.Response:
    """Asks for a picture that is made from these."""
    return await generate(client, key, **{"size": "64x64", "images": list(images), **more})


async def image_of(client: httpx2.AsyncClient, answer: JSON) -> bytes:
    shown = await client.get(f"/v1/images/{PurePosixPath(answer['url']).name}")
    assert shown.status_code == 200, shown.text
    return shown.content


async def row_of(database: asyncpg.Connection, generation_id: str) -> asyncpg.Record:
    [row] = await database.fetch("select * from generations where id = $1", generation_id)
    return row


async def test_a_chain_of_edits_is_recorded_with_its_sources_kept_and_counted(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    for environment in ("live", "test"):
        key = await account.create_key(environment=environment)
        sent = png()
        answers = [(await edit(client, key, data_url(sent))).json()]
        answers.append((await edit(client, key, answers[0]["id"], data_url(sent))).json())
        answers.append((await edit(client, key, answers[1]["url"], mask=data_url(png(64, 64)))).json())
        sources = [[None], [answers[0]["id"], None], [answers[1]["id"]]]
        assert [[each["id"] for each in answer["images"]] for answer in answers] == sources
        images = [await image_of(client, each) for each in answers]
        digests = [sha256(each).hexdigest() for each in (sent, *images)]
        rows = [await row_of(database, each["id"]) for each in answers]
        assert [json.loads(row["inputs"]) for row in rows] == [
            [{"sha256": digests[0]}],
            [{"id": answers[0]["id"], "sha256": digests[1]}, {"sha256": digests[0]}],
            [
                {"id": answers[1]["id"], "sha256": digests[2]},
                {"sha256": sha256(png(64, 64)).hexdigest(), "role": "mask"},
            ],
        ]
        assert {(row["kind"], row["status"], row["art"]) for row in rows} == {("edit", "delivered", 1)}
        assert {row["provider"] for row in rows}.isdisjoint({"stub"}), (
            "its image is in the store, and never drawn again"
        )
        listed = (await client.get("/v1/generations", headers=key.headers)).json()
        assert [each["images"] for each in reversed(listed)] == [each["images"] for each in answers]
        assert await total(database, key) == 3

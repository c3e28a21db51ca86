"""Uploads over HTTP: taken in, shown to their account and environment alone, expired, deleted, and bounded."""

import asyncio
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from secrets import token_bytes
from typing import Any

import asyncpg
import httpx2
import pytest
from app.core.settings import Settings
from app.generations import uploads
from app.generations.collaborators import Generations
from app.generations.spec import Caller
from app.models import Upload
from app.threads import TAKEN_IN_AT_A_TIME
from PIL import Image
from tests.conftest import Start
from tests.harness import PATIENCE_SECONDS, Account, Key, as_seen, generate, sign_up

NEVER_WAS = f"upl_{'0' * 30}"


def png(side: int = 8) -> bytes:
    """A PNG of noise: about three bytes a pixel."""
    encoded = BytesIO()
    Image.frombytes("RGB", (side, side), token_bytes(3 * side * side)).save(encoded, "PNG")
    return encoded.getvalue()


def photo_on_its_side() -> bytes:
    """A JPEG whose Exif data says that it is to be turned, and has a canary."""
    encoded, exif = BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "canary"
    Image.new("RGB", (40, 20), "red").save(encoded, "JPEG", exif=exif)
    return encoded.getvalue()


def files_of(settings: Settings, upload_id: str) -> list[bytes]:
    """What the store has of an upload."""
    return [each.read_bytes() for each in Path(settings.data_dir, "pictures").rglob(f"{upload_id}*")]


async def upload(
    client: httpx2.AsyncClient, key: Key, content: bytes, media_type: str = "image/png", query: str = ""
) -> httpx2.Response:
    headers = {**key.headers, "Content-Type": media_type}
    return await client.post(f"/v1/uploads{query}", content=content, headers=headers)


async def uploaded(client: httpx2.AsyncClient, key: Key, content: bytes = b"") -> str:
    """The id of a new upload."""
    answer = await upload(client, key, content or png())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


async def test_an_upload_is_kept_upright_and_without_metadata_for_a_day(
    client: httpx2.AsyncClient, key: Key, settings: Settings
) -> None:
    created = await upload(client, key, photo_on_its_side(), "image/png")  # its type is what its bytes say
    body = created.json()
    assert created.status_code == 201
    assert created.headers["location"] == f"/v1/uploads/{body['id']}"
    assert created.headers["ratelimit-policy"]
    assert (body["width"], body["height"], body["media_type"]) == (20, 40, "image/jpeg")
    created_at, expires_at = (datetime.fromisoformat(body[name]) for name in ("created_at", "expires_at"))
    assert timedelta(hours=24) <= expires_at - created_at < timedelta(hours=24, minutes=1)
    [content] = files_of(settings, body["id"])
    assert (len(content), b"canary" in content) == (body["bytes"], False)
    with Image.open(BytesIO(content)) as kept:
        assert (kept.size, dict(kept.getexif())) == ((20, 40), {})
    assert (await client.get(created.headers["location"], headers=key.headers)).json() == body


async def test_a_form_holds_the_same_as_a_body(client: httpx2.AsyncClient, key: Key) -> None:
    content = png()
    sent = await client.post("/v1/uploads", files={"file": ("1.txt", content, "text/plain")}, headers=key.headers)
    raw = await upload(client, key, content, "application/octet-stream")
    assert (sent.status_code, raw.status_code) == (201, 201)
    differing = {"id", "created_at", "expires_at"}
    assert [sent.json()[name] for name in sent.json().keys() - differing] == [
        raw.json()[name] for name in sent.json().keys() - differing
    ]


def animation() -> bytes:
    encoded = BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(encoded, "GIF", save_all=True, append_images=frames[1:])
    return encoded.getvalue()


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no image": ({"content": b"canary", "headers": {"Content-Type": "image/png"}}, 422, "#"),
    "nothing": ({"content": b"", "headers": {"Content-Type": "image/png"}}, 422, "#"),
    "an animation": ({"content": animation(), "headers": {"Content-Type": "image/gif"}}, 422, "#"),
    "JSON": ({"json": {}}, 415, ""),
    "what curl sends": ({"data": {"a": "b"}}, 415, ""),
    "no type": ({"content": png()}, 415, ""),
    "no image in a form": ({"files": {"file": b"canary"}}, 422, "#/file"),
    "another name": ({"files": {"image": png()}}, 422, "#/file"),
    "two files": ({"files": [("file", png()), ("file", png())]}, 422, "#/file"),
    "a field more": ({"files": {"file": png()}, "data": {"first_frame": "true"}}, 422, "#/file"),
    "a form without a file": ({"data": {"a": "b"}, "files": {}}, 415, ""),
}


async def test_what_is_no_image_is_refused_and_leaves_nothing(client: httpx2.AsyncClient, key: Key) -> None:
    for name, (sent, status, pointer) in BAD.items():
        given = {**sent, "headers": {**key.headers, **sent.get("headers", {})}}
        refused = await client.post("/v1/uploads", **given)
        errors = refused.json().get("errors", [{"pointer": ""}])
        assert (refused.status_code, errors[0]["pointer"]) == (status, pointer), name
        assert "canary" not in refused.text
    assert (await client.get("/v1/uploads", headers=key.headers)).json() == []
    assert (await upload(client, key, animation(), "image/gif", "?first_frame=true")).status_code == 201
    assert (await upload(client, key, png(), query="?first_frame=yes")).status_code == 422


async def test_another_environment_sees_and_deletes_nothing(
    client: httpx2.AsyncClient, account: Account, key: Key
) -> None:
    test_key = await account.create_key(environment="test")
    live = await uploaded(client, key)
    for method in ("get", "delete"):
        foreign, unknown = [
            as_seen(await client.request(method, f"/v1/uploads/{each}", headers=test_key.headers))
            for each in (live, NEVER_WAS)
        ]
        assert foreign == unknown
        assert foreign[0] == 404
    assert (await client.get("/v1/uploads", headers=test_key.headers)).json() == []
    assert (await client.get(f"/v1/uploads/{live}", headers=(await account.create_key()).headers)).status_code == 200


async def test_an_upload_goes_into_generations_of_its_environment_while_it_is_there(
    client: httpx2.AsyncClient, account: Account, key: Key
) -> None:
    test_key = await account.create_key(environment="test")
    sent = await uploaded(client, test_key, png(64))
    made = await generate(client, test_key, images=[sent], size="64x64")
    assert made.status_code == 200, made.text
    refused = [await generate(client, key, images=[sent], size="64x64")]
    await client.delete(f"/v1/uploads/{sent}", headers=test_key.headers)
    refused.append(await generate(client, test_key, images=[sent], size="64x64"))
    assert [each.json()["errors"] for each in refused] == [
        [{"pointer": "#/images/0", "detail": "There is no such upload"}]
    ] * 2
    shown = await client.get(httpx2.URL(made.json()["url"]).path)
    assert shown.status_code == 200, "what was made from it stays"


async def test_what_is_deleted_or_expired_is_not_there(
    client: httpx2.AsyncClient, key: Key, settings: Settings, database: asyncpg.Connection
) -> None:
    deleted, expired, kept = [await uploaded(client, key) for _ in range(3)]
    assert (await client.delete(f"/v1/uploads/{deleted}", headers=key.headers)).status_code == 204
    assert (files_of(settings, deleted), len(files_of(settings, kept))) == ([], 1)
    await database.execute("update uploads set expires_at = now() where id = $1", expired)
    for each in (deleted, expired, "upl_1", "gen_1"):
        for method in ("get", "delete"):
            gone = await client.request(method, f"/v1/uploads/{each}", headers=key.headers)
            assert (gone.status_code, gone.json()["code"]) == (404, "upload_not_found")
    listed = await client.get("/v1/uploads", headers=key.headers)
    assert [each["id"] for each in listed.json()] == [kept]


async def test_the_list_comes_in_pages_newest_first(client: httpx2.AsyncClient, key: Key) -> None:
    ids = [await uploaded(client, key) for _ in range(3)]
    page = await client.get("/v1/uploads?limit=2", headers=key.headers)
    rest = await client.get(f"/v1/uploads?{page.links['next']['url'].partition('?')[2]}", headers=key.headers)
    assert [each["id"] for each in (*page.json(), *rest.json())] == sorted(ids, reverse=True)


async def test_parallel_uploads_have_no_more_bytes_than_the_account_may_have(
    start: Start, database: asyncpg.Connection
) -> None:
    bound, content = 1024**2, png(260)
    client = await start(uploads_bytes_per_account=bound)
    account = await sign_up(client)
    keys = [await account.create_key(environment=each) for each in ("live", "test")]
    answers = await asyncio.gather(*(upload(client, keys[number % 2], content) for number in range(20)))
    made = [each.json()["id"] for each in answers if each.status_code == 201]
    assert len(made) == bound // len(content)
    refused = [each for each in answers if each.status_code != 201]
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(409, "uploads_full")}
    assert "delete some" in refused[0].json()["detail"]
    used = "select sum(bytes), count(*) from uploads where account_id = $1"
    assert tuple(await database.fetchrow(used, account.account_id) or ()) == (len(made) * len(content), len(made))
    assert (await upload(client, await (await sign_up(client)).create_key(), content)).status_code == 201
    headers = {number: key.headers for number, key in enumerate(keys)}
    deleted = [await client.delete(f"/v1/uploads/{made[0]}", headers=headers[each]) for each in headers]
    assert sorted(each.status_code for each in deleted) == [204, 404]
    assert (await upload(client, keys[0], content)).status_code == 201


async def test_an_account_may_upload_so_often(start: Start) -> None:
    client = await start(upload_limit_per_account="2/day")
    account, other = await sign_up(client), await sign_up(client)
    keys = [await account.create_key() for _ in range(2)]
    answers = [await upload(client, keys[number % 2], png()) for number in range(3)]
    assert [each.status_code for each in answers] == [201, 201, 429]
    assert answers[-1].json()["code"] == "rate_limit_exceeded"
    assert int(answers[-1].headers["retry-after"]) > 0
    assert (await client.get("/v1/uploads", headers=keys[0].headers)).status_code == 200
    assert (await upload(client, await other.create_key(), png())).status_code == 201


async def test_an_account_whose_uploads_take_long_leaves_turns_to_another(
    client: httpx2.AsyncClient, key: Key, other_account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = asyncio.Semaphore(0), asyncio.Event()
    save, keep = uploads.save, uploads.keep

    async def counted_save(generations: Generations, **named: Any) -> Upload:
        begun.release()
        return await save(generations, **named)

    async def slow_keep(generations: Generations, *, caller: Caller, **named: Any) -> Upload:
        if caller.key_id == key.id:
            await free.wait()
        return await keep(generations, caller=caller, **named)

    monkeypatch.setattr(uploads, "save", counted_save)
    monkeypatch.setattr(uploads, "keep", slow_keep)
    slow = [asyncio.ensure_future(upload(client, key, png())) for _ in range(2 * TAKEN_IN_AT_A_TIME)]
    for _ in slow:
        await begun.acquire()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await upload(client, await other_account.create_key(), png())).status_code == 201
        assert not any(each.done() for each in slow)
    finally:
        free.set()
    assert {(await each).status_code for each in slow} == {201}


async def test_a_revoked_key_uploads_nothing(client: httpx2.AsyncClient, account: Account, key: Key) -> None:
    await uploaded(client, key)
    await account.revoke_key(key)
    refused = await upload(client, key, png())
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")

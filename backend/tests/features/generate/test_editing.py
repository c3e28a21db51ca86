"""`POST /v1/generate` with images: where they may come from, what is recorded of them, and what is refused."""

import json
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath

import asyncpg
import httpx2
import pytest
from PIL import Image
from tests.conftest import Start
from tests.features.generate.two_routes import ModelOfTwo, two_routes
from tests.features.sent_images import data_url, mask_png, png
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Key, generate, without_request_id
from tests.problems import check_problem
from tests.providers.input_files import LARGE_PROFILE, encoded, picture

NOT_OWN = "There is no such image: it must be delivered, not deleted, and of this account and environment"
UNKNOWN = f"gen_{'0' * 30}"


SENT = data_url(png())


async def edit(
    client: httpx2.AsyncClient, key: Key, *images: str, once: str | None = None, **more: object
) -> httpx2.Response:
    """Asks for a picture that is made from these."""
    headers = {**key.headers, **({"Idempotency-Key": once} if once else {})}
    body = {"prompt": "A cute banana", "size": "64x64", "images": list(images), **more}
    return await client.post("/v1/generate", json=body, headers=headers)


def refusals(answer: httpx2.Response) -> dict[str, str]:
    """What is said about each field of a request that is refused."""
    check_problem(answer, 422, "validation_error", more=["errors"])
    return {each["pointer"]: each["detail"] for each in answer.json()["errors"]}


async def upload(client: httpx2.AsyncClient, key: Key, content: bytes) -> str:
    """The id of the image, uploaded."""
    headers = {**key.headers, "Content-Type": "image/png"}
    answer = await client.post("/v1/uploads", content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def image_of(client: httpx2.AsyncClient, answer: JSON) -> bytes:
    shown = await client.get(f"/v1/images/{PurePosixPath(answer['url']).name}")
    assert shown.status_code == 200, shown.text
    return shown.content


async def row_of(database: asyncpg.Connection, generation_id: str) -> asyncpg.Record:
    [row] = await database.fetch("select * from generations where id = $1", generation_id)
    return row


async def test_an_image_with_a_large_colour_profile_can_be_uploaded_and_edited(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    uploaded = await upload(client, key, encoded(picture(), "PNG", icc_profile=LARGE_PROFILE))
    assert (await edit(client, key, uploaded)).status_code == 200


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_an_edit_is_recorded_with_its_sources_kept_counted_and_shown(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, environment: str
) -> None:
    key, mask = await account.create_key(environment=environment), mask_png()
    drawn = (await generate(client, key, size="64x64")).json()
    uploaded = await upload(client, key, png(colour="teal"))
    first = (await edit(client, key, SENT, drawn["id"], uploaded)).json()
    second = (await edit(client, key, first["url"], mask=data_url(mask))).json()
    assert [drawn["images"], first["images"], second["images"]] == [
        None,
        [{"id": None}, {"id": drawn["id"]}, {"id": uploaded}],
        [{"id": first["id"]}],
    ]
    went_in = [png(), await image_of(client, drawn), await image_of(client, first), png(colour="teal")]
    digests = [{"sha256": sha256(each).hexdigest()} for each in went_in]
    rows = [await row_of(database, each["id"]) for each in (first, second)]
    assert json.loads(rows[0]["inputs"]) == [
        digests[0],
        {"id": drawn["id"], **digests[1]},
        {"id": uploaded, **digests[3]},
    ]
    image, masking = json.loads(rows[1]["inputs"])
    assert (image, set(masking), masking["role"]) == ({"id": first["id"], **digests[2]}, {"sha256", "role"}, "mask")
    assert {(each["kind"], each["status"], each["art"], each["list_price"]) for each in rows} == {
        ("edit", "delivered", 1, 0)
    }
    assert "stub" not in {each["provider"] for each in rows}, "its image would be drawn from what is recorded alone"
    listed = (await client.get("/v1/generations", headers=key.headers)).json()
    assert [each["images"] for each in listed] == [second["images"], first["images"], None]
    assert await image_of(client, second) == await image_of(client, second) != went_in[2]
    assert await total(database, key) == 3
    await client.delete(f"/v1/generations/{first['id']}", headers=key.headers)
    assert refusals(await edit(client, key, first["id"])) == {"#/images/0": NOT_OWN}


async def test_an_image_of_somebody_else_or_of_the_other_environment_is_as_one_that_never_was(
    client: httpx2.AsyncClient, account: Account, other_account: Account, database: asyncpg.Connection
) -> None:
    keys = [await account.create_key(), await account.create_key(environment="test"), await other_account.create_key()]
    live, test, other = [(await generate(client, each, size="64x64")).json() for each in keys]
    undelivered = (await generate(client, keys[0], size="64x64")).json()["id"]
    await database.execute("update generations set status = 'failed', delivered_at = null where id = $1", undelivered)
    unknown = without_request_id(await edit(client, keys[0], UNKNOWN))
    for key, id_or_url in (
        (keys[0], other["id"]),
        (keys[0], other["url"]),
        (keys[0], test["id"]),
        (keys[1], live["id"]),
        (keys[2], live["id"]),
        (keys[0], undelivered),
        (keys[0], "gen_../../etc/passwd"),
    ):
        refused = await edit(client, key, id_or_url)
        assert without_request_id(refused) == unknown or "passwd" in id_or_url
        assert set(refusals(refused)) == {"#/images/0"}
    assert refusals(await edit(client, keys[0], live["id"], mask=other["id"])) == {"#/mask": NOT_OWN}
    edits = "select count(*) from generations where key_id = any($1) and kind = 'edit'"
    assert await database.fetchval(edits, [each.id for each in keys]) == 0


BROKEN = data_url(png()[:60])
REFUSED: list[tuple[JSON, set[str]]] = [
    ({"images": []}, {"#/images"}),
    ({"images": [SENT] * 17}, {"#/images"}),
    ({"images": [1]}, {"#/images/0"}),
    ({"mask": SENT}, {"#/mask"}),
    ({"images": [SENT, BROKEN, SENT, UNKNOWN, "upl_0"]}, {"#/images/1", "#/images/3", "#/images/4"}),
    ({"images": [SENT, "http://pictures.test/a.png"]}, {"#/images/1"}),
    ({"images": [SENT, "https://pictures.test/v1/images/a.png"]}, {"#/images/1"}),
    ({"images": [SENT], "mask": data_url(mask_png())}, {"#/mask"}),
    ({"images": [SENT], "size": "63x64"}, {"#/size"}),
    ({"size": "auto"}, {"#/size"}),
]
"""What is refused with the least that is said: the fields that are named."""


@pytest.mark.parametrize(("asked", "pointers"), REFUSED)
async def test_what_cannot_go_in_is_refused_by_its_place_and_leaves_nothing(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, asked: JSON, pointers: set[str]
) -> None:
    key = await account.create_key()
    body = {"size": "64x64", **asked}
    assert set(refusals(await generate(client, key, **body))) == pointers
    assert await database.fetchval("select count(*) from generations where key_id = $1", key.id) == 0


async def test_the_size_may_be_that_of_the_first_image(client: httpx2.AsyncClient, account: Account) -> None:
    key = await account.create_key(environment="test")
    encoded = BytesIO()
    Image.effect_noise((960, 540), 100).save(encoded, "PNG")
    answer = await edit(client, key, data_url(encoded.getvalue()), SENT, size="auto")
    assert (answer.status_code, len(encoded.getvalue()) > 2**18) == (200, True), "and may be larger than other bodies"
    wide = answer.json()
    assert wide["size"] == "1368x768"
    with Image.open(BytesIO(await image_of(client, wide))) as image:
        assert image.size == (1368, 768)


CAN_EDIT = 'capabilities = ["edit", "references:2"]'
CAN_MASK = 'capabilities = ["edit", "mask", "references:3"]'
MODELS = {
    "picture": ModelOfTwo("input_price = '0.002'", CAN_EDIT, CAN_MASK),
    "one": ModelOfTwo("", 'capabilities = ["edit"]'),
    "none": ModelOfTwo("", "", 'capabilities = ["stream"]'),
}
CANNOT: list[tuple[str, int, bool, dict[str, str]]] = [
    ("picture", 4, False, {"#/images": "This model takes at most 3 images"}),
    ("picture", 4, True, {"#/images": "This model takes at most 3 images with a mask"}),
    ("one", 2, False, {"#/images": "This model takes at most 1 image"}),
    ("one", 1, True, {"#/mask": "This model takes no mask"}),
    ("none", 1, True, {"#/images": "This model takes no images"}),
]


async def test_an_edit_goes_to_a_route_that_can_do_it_and_is_refused_where_there_is_none(
    start: Start, tmp_path: Path, database: asyncpg.Connection
) -> None:
    async with two_routes(start, tmp_path, MODELS) as there:
        test_key = await there.account.create_key(environment="test")
        for model, images, has_mask, refused in CANNOT:
            masks = {"mask": data_url(mask_png(96, 64))} if has_mask else {}
            for key in (there.key, test_key):
                body = {"model": model, "size": "1024x1024", **masks}
                assert refusals(await edit(there.client, key, *[SENT] * images, **body)) == refused
        mask = data_url(mask_png(96, 64))
        for images, more, calls, price in (
            (1, {}, (1, 0), "0.052"),
            (2, {}, (1, 0), "0.054"),
            (3, {}, (0, 1), "0.056"),
            (1, {"mask": mask}, (0, 1), "0.052"),
        ):
            answer = await edit(there.client, there.key, *[SENT] * images, model="picture", size="auto", **more)
            assert answer.status_code == 200, answer.text
            assert (there.calls, answer.json()["price"]) == (calls, price)
            assert answer.json()["size"] == "1536x1024", "of those that it draws, the shape of the first image"
        assert (await there.last_row(database))["list_price"] == 52_000
        usage = await there.client.get("/v1/usage", headers=there.account.headers)
        assert [each["list_amount"] for each in usage.json()] == ["0.214"]
        drawn = await edit(there.client, test_key, SENT, model="picture", size="1536x1024")
        assert (drawn.json()["price"], there.calls) == ("0", (0, 0))


async def test_a_replay_outlives_what_went_in_and_what_could_draw_it(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, start: Start, tmp_path: Path
) -> None:
    key = await account.create_key()
    source = (await generate(client, key, size="64x64")).json()["id"]
    uploaded = await upload(client, key, png(colour="teal"))
    first = await edit(client, key, source, uploaded, SENT, once="gone")
    for gone in (f"/v1/generations/{source}", f"/v1/uploads/{uploaded}"):
        assert (await client.delete(gone, headers=key.headers)).status_code == 204
    async with two_routes(start, tmp_path, {"other": ModelOfTwo()}) as there:
        for elsewhere in (client, there.client):
            again = await edit(elsewhere, key, source, uploaded, SENT, once="gone")
            assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
            assert {**again.json(), "currency": None} == first.json()
        for images, more in (
            ([source, uploaded], {}),
            ([source, uploaded, data_url(png(colour="teal"))], {}),
            ([uploaded, source, SENT], {}),
            ([source, uploaded, SENT], {"mask": SENT}),
            ([source, uploaded, SENT], {"first_frame": True}),
            ([UNKNOWN, uploaded, SENT], {}),
        ):
            check_problem(await edit(client, key, *images, once="gone", **more), 422, "idempotency_key_reused")
        assert await total(database, key) == 2
        await account.revoke_key(key)
        check_problem(await edit(there.client, key, source, uploaded, SENT, once="gone"), 401, "invalid_api_key")


async def test_an_edit_whose_worker_has_died_is_made_anew_for_whoever_asks_again(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    first = (await edit(client, key, SENT, once="died")).json()["id"]
    died = """
        update generations set status = 'processing', delivered_at = null, lease = gen_random_uuid(),
          lease_until = now() + $2::text::interval where id = $1
    """
    await database.execute(died, first, "1 minute")
    assert (await edit(client, key, SENT, once="died")).json()["code"] == "idempotency_key_in_use"
    await database.execute(died, first, "-1 second")
    again = await edit(client, key, SENT, once="died")
    assert (again.status_code, again.json()["id"] != first) == (200, True)

"""The history page: small copies of images, what ended without one, and the deletion of an image."""

import asyncpg
import httpx2
from tests.conftest import Start
from tests.console.browser import Browser, Element
from tests.console.test_jobs import shown_id, start_drawing
from tests.features.generate.painted import painted
from tests.standins.gemini import drawn
from tests.standins.photographs import photograph

IMAGES = 24
BYTES_MAX = 600_000
DIFFERENT = 3  # of the images: making one takes a while


async def _bytes_of(client: httpx2.AsyncClient, paths: list[str]) -> int:
    answers = [await client.get(path) for path in paths]
    assert {(each.status_code, each.headers["content-type"]) for each in answers} == {(200, "image/webp")}
    assert all(each.headers["cache-control"].endswith("immutable") for each in answers)
    return sum(len(each.content) for each in answers)


def _candidates(image: Element) -> dict[str, str]:
    """The paths among which a browser chooses, by their widths."""
    candidates = (each.split() for each in image.attributes["srcset"].split(", "))
    return {width: path for path, width in candidates}


async def test_24_images_of_a_megabyte_each_weigh_less_than_600_kb_on_plain_and_on_sharp_screens(
    start: Start,
) -> None:
    async with painted(start, public_url="http://console.test") as there:
        photographs = [photograph(number) for number in range(DIFFERENT)]
        assert all(len(each) > 1_000_000 for each in photographs)
        there.provider.faults.extend(drawn(photographs[number % DIFFERENT]) for number in range(IMAGES))
        browser = Browser(there.client)
        await browser.sign_up()
        _, raw_key = await browser.create_key()
        for count in (10, 10, 4):
            body = {"prompt": "A cute banana", "n": count}
            headers = {"Authorization": f"Bearer {raw_key}"}
            answer = await there.client.post("/v1/images/generations", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
        images = (await browser.open("/history")).all("img")
        assert len(images) == IMAGES
        for image in images:
            attributes = image.attributes
            assert (attributes["loading"], attributes["width"], attributes["height"]) == ("lazy", "1024", "1024")
            assert attributes["sizes"]
            assert attributes["src"] == _candidates(image)["256w"]
        plain, sharp = ([_candidates(image)[width] for image in images] for width in ("256w", "512w"))
        assert len({*plain, *sharp}) == 2 * IMAGES
        assert 0 < await _bytes_of(there.client, plain) < BYTES_MAX
        assert 0 < await _bytes_of(there.client, sharp[:DIFFERENT]) < BYTES_MAX * DIFFERENT / IMAGES


_END = "update generations set status = $2, error = $3, lease_until = null, delivered_at = null where id = $1"
_YESTERDAY = "update generations set created_at = now() - interval '25 hours' where id = $1"


async def test_what_ended_without_an_image_in_the_last_day_is_listed_and_can_be_tried_again(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, public_url="http://console.test") as there:
        browser = Browser(there.client)
        await browser.sign_up()
        await browser.create_key()
        prompts = ["Of long ago", "Was lost", "Was refused", "Was erased"]
        ids = [shown_id(await start_drawing(browser, prompt)) for prompt in prompts]
        ends = [("failed", None), ("lost", None), ("failed", "provider_refused"), ("failed", None)]
        for generation_id, (status, error) in zip(ids, ends, strict=True):
            await database.execute(_END, generation_id, status, error)
        await database.execute(_YESTERDAY, ids[0])
        await database.execute("update generations set prompt = '' where id = $1", ids[3])
        history = await browser.open("/history")
        assert [each.text for each in history.all("a", class_="prompt")] == ["Prompt erased", "Was refused", "Was lost"]
        again = history.all("a", class_="button quiet small")
        assert [each.text for each in again] == ["Try again: Was refused", "Try again: Was lost"]
        for link, generation_id in zip(again, [ids[2], ids[1]], strict=True):
            page = await browser.open(link.attributes["href"])
            prompt = link.text.removeprefix("Try again: ")
            assert page.form("/playground").values["prompt"] == prompt
            [sentence] = [each.text for each in page.all("p", class_="message error")]
            assert sentence.rstrip(".") in history.text("main")
            assert generation_id in page.by_id("generation").text, "the operator can be told which one"
        assert (await browser.open(f"/history?after={ids[3]}")).all("a", class_="prompt") == []


async def test_an_image_is_deleted_after_a_confirmation_and_by_its_account_alone(ada: Browser, eve: Browser) -> None:
    key_id, _ = await ada.create_key(environment="test")
    made = await ada.generate("A harbour")
    [image], path = made.all("img"), f"/history/{made.result}/delete"
    assert path in [link.attributes["href"] for link in (await ada.open("/history")).all("a")]
    await ada.submit(await ada.open(f"/keys/{key_id}/revoke"), f"/keys/{key_id}/revoke")
    token = (await eve.open("/keys")).form("/keys").values["csrf_token"]
    assert (await eve.open(path)).status == (await eve.post(path, {"csrf_token": token})).status == 404
    confirmation = await ada.open(path)
    assert (await ada.post(path, {"csrf_token": token})).status == 403
    assert (await ada.client.get(image.attributes["src"])).status_code == 200
    page = await ada.submit(confirmation, path)
    assert (page.status, page.path) == (200, "/history")
    assert "A harbour" not in page.response.text
    assert (await ada.client.get(image.attributes["src"])).status_code == 404
    assert (await ada.open(path)).status == 404

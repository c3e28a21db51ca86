"""The history page with images of a provider: small copies of them, which together weigh little."""

import httpx2
from tests.conftest import Start
from tests.console.browser import Browser, Element
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

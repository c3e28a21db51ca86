"""Generations that the playground does not wait for: accepted, shown while they wait, and cancelled."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests.conftest import Start
from tests.console.browser import Browser, Page, new_browser
from tests.features.generate.painted import Painted, painted

_STATUS = "select status from generations where id = $1"


@pytest.fixture
async def there(start: Start) -> AsyncIterator[Painted]:
    """A platform whose live keys cost, and where no worker draws."""
    async with painted(start, public_url="http://console.test") as there:
        yield there


async def start_drawing(browser: Browser, prompt: str, **values: str) -> Page:
    """Sends the form of the playground as its script does; the page that comes back."""
    page = await browser.open("/playground")
    return await send(browser, page, prompt=prompt, **values)


async def send(browser: Browser, page: Page, **values: str) -> Page:
    return await browser.post("/playground/jobs", {**page.form("/playground").values, **values})


def shown_id(page: Page) -> str:
    """The id of the generation that the page's address names."""
    return str(page.response.url.params["generation"])


def progress(page: Page) -> list[str]:
    """What the history says of each generation that has not ended."""
    return [" ".join(each.text.split()) for each in page.all("p", class_="progress")]


async def test_a_generation_waits_under_its_own_address_until_it_is_cancelled(
    there: Painted, database: asyncpg.Connection
) -> None:
    async with new_browser(there.client) as ada, new_browser(there.client) as eve:
        await ada.sign_up()
        await eve.sign_up()
        await ada.create_key()
        form = await ada.open("/playground")
        waiting = await send(ada, form, prompt="A <b>bold</b> harbour", size="1536x1024")
        generation_id = shown_id(waiting)
        assert shown_id(await send(ada, form, prompt="A <b>bold</b> harbour", size="1536x1024")) == generation_id
        values = waiting.form("/playground").values
        assert (values["prompt"], values["size"]) == ("A <b>bold</b> harbour", "1536x1024")
        path, cancel = f"/playground/jobs/{generation_id}", f"/playground/jobs/{generation_id}/cancel"
        part = await ada.open(path)
        assert "Waiting, position " in part.by_id("generation").text
        assert part.by_id("generation").attributes["data-source"] == path
        assert part.by_id("generation").attributes == waiting.by_id("generation").attributes
        # Of another account, it is there neither to look at nor to cancel.
        token = (await eve.open("/keys")).forms[0].values["csrf_token"]
        for refused in (
            await eve.open(path),
            await eve.open(f"/playground?generation={generation_id}"),
            await eve.post(cancel, {"csrf_token": token}),
        ):
            assert refused.status == 404
            assert "harbour" not in refused.response.text
        assert (await ada.post(cancel, {"csrf_token": token})).status == 403
        assert await database.fetchval(_STATUS, generation_id) == "queued"
        history = await ada.open("/history")
        assert progress(history) == ["Waiting"]
        assert progress(await eve.open("/history")) == []
        history = await ada.submit(history, f"{cancel}?next=history")
        assert (history.path, progress(history)) == ("/history", [])
        assert await database.fetchval(_STATUS, generation_id) == "cancelled"
        again = await ada.submit(waiting, f"{cancel}?next=playground")
        assert "It was cancelled" in again.by_id("generation").text
        assert again.all("button", id=f"cancel-{generation_id}") == []
        assert there.provider.seen == []


async def test_what_a_test_key_draws_is_there_at_once(there: Painted) -> None:
    async with new_browser(there.client) as ada:
        await ada.sign_up()
        await ada.create_key(environment="test")
        page = await start_drawing(ada, "A cute banana")
        assert page.result == shown_id(page)
        assert "data-source" not in page.by_id("generation").attributes
        [image] = page.all("img")
        assert (await ada.client.get(image.attributes["src"])).status_code == 200


async def test_a_refused_generation_comes_back_in_its_form(there: Painted) -> None:
    async with new_browser(there.client) as ada:
        await ada.sign_up()
        await ada.create_key()
        page = await start_drawing(ada, " ", size="1536x1024")
        assert (page.status, page.form("/playground").values["size"]) == (422, "1536x1024")
        assert page.by_id("prompt-error").text

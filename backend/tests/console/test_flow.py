"""What a user does in the console, from the landing page to the log-out, without scripts."""

import asyncio
import json
import subprocess
from functools import partial

import asyncpg
import pytest
from tests.console.browser import Browser, Page
from tests.generations.jobs.queued import queue
from tests.harness import PASSWORD, Key, new_email


def prompts(page: Page) -> list[str]:
    return [each.text for each in page.all("span", class_="prompt")]


async def test_from_the_landing_page_to_the_first_image(anonymous: Browser) -> None:
    page = await anonymous.open("/")
    assert "/sign-up" in [link.attributes["href"] for link in page.all("a")]
    page = await anonymous.sign_up()
    assert (page.status, page.path) == (200, "/playground")
    page = await anonymous.submit(page, "/playground/first-key")
    raw = page.by_id("raw-key").text
    page = await anonymous.submit(page, "/playground", prompt="A cute banana", size="64x64")
    [image] = page.all("img")
    response = await anonymous.client.get(image.attributes["src"])
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    key = {"Authorization": f"Bearer {raw}"}
    response = await anonymous.client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=key)
    assert response.status_code == 200


async def test_the_example_images_are_drawn_by_this_server_and_cached(anonymous: Browser) -> None:
    examples = (await anonymous.open("/")).all("img")
    assert len(examples) == 6
    for example in examples:
        path = example.attributes["src"]
        response = await anonymous.client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
        assert "immutable" in response.headers["cache-control"]
        again = await anonymous.client.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert (await anonymous.client.get("/examples/another.png")).status_code == 404


async def test_an_account_that_signed_up_in_the_console_logs_in_by_the_api(anonymous: Browser) -> None:
    email = new_email()
    await anonymous.sign_up(email=email.upper())
    response = await anonymous.client.post("/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert response.status_code == 200


async def test_a_key_is_shown_once_and_listed_by_its_prefix(ada: Browser) -> None:
    _, raw = await ada.create_key(name="Website", environment="test")
    assert raw.startswith("nb_test_")
    page = await ada.open("/keys")
    assert page.text("th", scope="row") == "Website test"
    assert f"{raw[:16]}…" in page.text("table", class_="list")
    assert raw not in page.response.text


async def test_a_key_is_revoked_after_a_confirmation(ada: Browser, database: asyncpg.Connection) -> None:
    key_id, raw = await ada.create_key(name="Website")
    [job] = await queue(database, Key(key_id, raw), 1)
    path, body = f"/keys/{key_id}/revoke", {"prompt": "A cute banana"}
    key = {"Authorization": f"Bearer {raw}"}
    assert path in [link.attributes["href"] for link in (await ada.open("/keys")).all("a")]
    confirmation = await ada.open(path)
    assert (await ada.client.post("/v1/generate", json=body, headers=key)).status_code == 200
    page = await ada.submit(confirmation, path)
    assert (page.status, page.path) == (200, "/keys")
    assert (await ada.client.post("/v1/generate", json=body, headers=key)).status_code == 401
    assert await database.fetchval("select error from generations where id = $1", job) == "key_revoked"
    assert "Website" not in page.response.text
    page = await ada.open("/keys?include_revoked=true")
    assert page.text("th", scope="row") == "Website"
    assert path not in [link.attributes["href"] for link in page.all("a")]


async def test_keys_are_listed_in_pages(ada: Browser) -> None:
    for number in range(3):
        await ada.create_key(name=f"key {number}")
    page = await ada.open("/keys?limit=2")
    [next_link] = page.all("a", rel="next")
    older = await ada.open(f"/keys{next_link.attributes['href']}")
    assert [name.text for name in page.all("span", class_="name")] == ["key 2", "key 1"]
    assert [name.text for name in older.all("span", class_="name")] == ["key 0"]
    assert older.all("a", rel="next") == []


async def test_the_history_lists_the_generations_of_all_keys_in_pages(ada: Browser) -> None:
    for number, environment in enumerate(["live", "test"]):
        key_id, _ = await ada.create_key(name=f"{environment} key", environment=environment)
        assert (await ada.generate(f"prompt {number}", key_id=key_id)).status == 200
    page = await ada.open("/history?limit=1")
    assert prompts(page) == ["prompt 1"]
    [next_link] = page.all("a", rel="next")
    older = await ada.open(f"/history{next_link.attributes['href']}")
    assert prompts(older) == ["prompt 0"]
    [image] = older.all("img")
    assert image.attributes["loading"] == "lazy"
    assert (await ada.client.get(image.attributes["src"])).status_code == 200


@pytest.mark.parametrize(
    ("path", "next_step"),
    [
        ("/playground", "/playground/first-key"),
        ("/keys", "/keys"),
        ("/usage", "/playground"),
        ("/history", "/playground"),
    ],
)
async def test_an_empty_page_offers_the_next_step(ada: Browser, path: str, next_step: str) -> None:
    page = await ada.open(path)
    [main] = [n for n, each in enumerate(page.elements) if each.tag == "main"]
    targets = [each.attributes.get("href", each.attributes.get("action")) for each in page.elements[main:]]
    assert page.all("img") == page.all("table") == []
    assert next_step in targets


async def test_a_password_change_ends_every_session_and_starts_a_new_one(anonymous: Browser, ada: Browser) -> None:
    email, before = await ada.email(), ada.cookie()
    await anonymous.log_in(email)
    page = await ada.open("/account")
    page = await ada.submit(page, "/account/password", current_password=PASSWORD, new_password="a better password")
    assert page.text("p", class_="message success")
    assert ada.cookie() != before
    assert (await anonymous.open("/keys")).path == "/log-in"
    assert (await anonymous.log_in(email)).status == 401
    assert (await anonymous.log_in(email, "a better password")).path == "/playground"


async def test_logging_out_everywhere_ends_every_session_and_token(anonymous: Browser, ada: Browser) -> None:
    credentials = {"email": await ada.email(), "password": PASSWORD}
    token = (await ada.client.post("/v1/auth/login", json=credentials)).json()["access_token"]
    await anonymous.log_in(credentials["email"])
    page = await ada.submit(await ada.open("/account"), "/account/log-out-everywhere")
    assert page.path == "/log-in"
    for browser in (ada, anonymous):
        assert (await browser.open("/keys")).path == "/log-in"
    me = await ada.client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 401


async def test_the_curl_snippet_of_the_playground_sends_the_prompt(ada: Browser) -> None:
    _, raw = await ada.create_key()
    prompt = 'it\'s "quoted" $HOME `id` \\ 100%\nand goes on'
    page = await ada.generate(prompt)
    line = page.by_id("call-curl-code").text.replace("http://console.test", ada.origin)
    environment = {"KEY": raw, "PATH": "/usr/bin:/bin"}
    run = partial(subprocess.run, env=environment, capture_output=True, check=True, timeout=30)
    done = await asyncio.to_thread(run, ["bash", "-c", f"{line} -s"])  # the server needs this thread
    assert json.loads(done.stdout)["prompt"] == prompt

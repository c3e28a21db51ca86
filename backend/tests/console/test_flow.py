"""All that can be done without a script, from the front page to the first picture and back out."""

import asyncio
import json
import subprocess
from functools import partial

import pytest
from tests.console.browsing import Browser, Page
from tests.harness import PASSWORD, new_email


def prompts(page: Page) -> list[str]:
    return [each.text for each in page.all("span", class_="prompt")]


async def test_from_the_front_page_to_the_first_picture(stranger: Browser) -> None:
    page = await stranger.open("/")
    assert "/sign-up" in [link.attributes["href"] for link in page.all("a")]
    page = await stranger.sign_up()
    assert (page.status, page.path) == (200, "/playground")
    page = await stranger.submit(page, "/playground/first-key")
    raw = page.by_id("raw-key").text
    page = await stranger.submit(page, "/playground", prompt="A cute banana", size="64x64")
    [picture] = page.all("img")
    shown = await stranger.client.get(picture.attributes["src"])
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    key = {"Authorization": f"Bearer {raw}"}
    called = await stranger.client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=key)
    assert called.status_code == 200


async def test_the_pictures_of_the_front_page_are_drawn_here_and_cached(stranger: Browser) -> None:
    examples = (await stranger.open("/")).all("img")
    assert len(examples) == 6
    for example in examples:
        address = example.attributes["src"]
        shown = await stranger.client.get(address)
        assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
        assert "immutable" in shown.headers["cache-control"]
        again = await stranger.client.get(address, headers={"If-None-Match": shown.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert (await stranger.client.get("/examples/another.png")).status_code == 404


async def test_signing_up_makes_an_account_of_the_api(stranger: Browser) -> None:
    email = new_email()
    await stranger.sign_up(email=email.upper())
    answer = await stranger.client.post("/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200


async def test_a_key_is_shown_once_and_listed_by_its_prefix(ada: Browser) -> None:
    _, raw = await ada.create_key(name="Website", environment="test")
    assert raw.startswith("nb_test_")
    page = await ada.open("/keys")
    assert page.text("th", scope="row") == "Website test"
    assert f"{raw[:16]}…" in page.text("table", class_="list")
    assert raw not in page.answer.text


async def test_a_key_is_revoked_after_a_question(ada: Browser) -> None:
    key_id, raw = await ada.create_key(name="Website")
    path, call = f"/keys/{key_id}/revoke", {"prompt": "A cute banana"}
    key = {"Authorization": f"Bearer {raw}"}
    assert path in [link.attributes["href"] for link in (await ada.open("/keys")).all("a")]
    question = await ada.open(path)
    assert (await ada.client.post("/v1/generate", json=call, headers=key)).status_code == 200
    page = await ada.submit(question, path)
    assert (page.status, page.path) == (200, "/keys")
    assert (await ada.client.post("/v1/generate", json=call, headers=key)).status_code == 401
    assert "Website" not in page.answer.text
    assert "revoked" in (await ada.open("/keys?include_revoked=true")).text("table", class_="list")


async def test_keys_come_a_page_at_a_time(ada: Browser) -> None:
    for number in range(3):
        await ada.create_key(name=f"key {number}")
    page = await ada.open("/keys?limit=2")
    [further] = page.all("a", rel="next")
    older = await ada.open(f"/keys{further.attributes['href']}")
    assert [name.text for name in page.all("span", class_="name")] == ["key 2", "key 1"]
    assert [name.text for name in older.all("span", class_="name")] == ["key 0"]
    assert older.all("a", rel="next") == []


async def test_the_history_shows_pictures_of_all_keys_a_page_at_a_time(ada: Browser) -> None:
    for number, environment in enumerate(["live", "test"]):
        key_id, _ = await ada.create_key(name=f"{environment} key", environment=environment)
        assert (await ada.draw(f"picture {number}", key_id=key_id)).status == 200
    page = await ada.open("/history?limit=1")
    assert prompts(page) == ["picture 1"]
    [further] = page.all("a", rel="next")
    older = await ada.open(f"/history{further.attributes['href']}")
    assert prompts(older) == ["picture 0"]
    [picture] = older.all("img")
    assert picture.attributes["loading"] == "lazy"
    assert (await ada.client.get(picture.attributes["src"])).status_code == 200


@pytest.mark.parametrize(
    ("path", "next_step"),
    [
        ("/playground", "Create my first key"),
        ("/keys", "Give your first one a name"),
        ("/usage", "Make a picture in the playground"),
        ("/history", "The playground makes the first one"),
    ],
)
async def test_an_empty_page_says_what_to_do_next(ada: Browser, path: str, next_step: str) -> None:
    assert next_step in (await ada.open(path)).text("main", id="main")


async def test_a_changed_password_ends_other_sessions_and_goes_on_with_a_new_one(
    stranger: Browser, ada: Browser
) -> None:
    email, before = await ada.email(), ada.cookie()
    await stranger.log_in(email)
    page = await ada.open("/account")
    page = await ada.submit(page, "/account/password", current_password=PASSWORD, new_password="a better password")
    assert "The password is changed" in page.text("p", class_="message right")
    assert ada.cookie() != before
    assert (await stranger.open("/keys")).path == "/log-in"
    assert (await stranger.log_in(email)).status == 401
    assert (await stranger.log_in(email, "a better password")).path == "/playground"


async def test_logging_out_everywhere_ends_every_session_and_token(stranger: Browser, ada: Browser) -> None:
    credentials = {"email": await ada.email(), "password": PASSWORD}
    token = (await ada.client.post("/v1/auth/login", json=credentials)).json()["access_token"]
    await stranger.log_in(credentials["email"])
    page = await ada.submit(await ada.open("/account"), "/account/log-out-everywhere")
    assert page.path == "/log-in"
    for browser in (ada, stranger):
        assert (await browser.open("/keys")).path == "/log-in"
    me = await ada.client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 401


async def test_the_curl_line_of_the_playground_makes_the_picture(ada: Browser) -> None:
    _, raw = await ada.create_key()
    prompt = 'it\'s "quoted" $HOME `id` \\ 100%\nand goes on'
    page = await ada.draw(prompt)
    line = page.by_id("call-curl-code").text.replace("http://console.test", ada.origin)
    environment = {"KEY": raw, "PATH": "/usr/bin:/bin"}
    run = partial(subprocess.run, env=environment, capture_output=True, check=True, timeout=30)
    done = await asyncio.to_thread(run, ["bash", "-c", f"{line} -s"])  # the server runs in this thread
    assert json.loads(done.stdout)["prompt"] == prompt

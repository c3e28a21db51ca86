"""Who is logged in: cookies that nobody can plant, read or keep, and pages that no cache keeps."""

from collections.abc import Sequence
from hashlib import sha256

import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.console.browsing import Browser, Page
from tests.harness import PASSWORD, new_email

PRIVATE = ["/keys", "/usage", "/usage.csv", "/playground", "/history", "/account"]
HTTPS = {"Origin": "https://pictures.test"}


def cookies(answer: httpx2.Response) -> dict[str, str]:
    """The cookies that an answer sets, by name, each as it was written."""
    return {each.partition("=")[0]: each for each in answer.headers.get_list("set-cookie")}


async def over_https(client: httpx2.AsyncClient, path: str, cookie: str = "", **values: str) -> httpx2.Response:
    """A form sent as if TLS ended at a proxy, with its cookies by hand: a client keeps secure ones from plain HTTP."""
    page = Page(await client.get(path, headers={"Cookie": cookie}))
    planted = cookies(page.answer).get("__Host-nanobanana-visit", "").partition(";")[0]
    sent = {**page.form(path).values, **values}
    return await client.post(path, data=sent, headers={**HTTPS, "Cookie": f"{cookie}; {planted}"})


async def test_under_https_the_cookie_is_for_this_host_alone_and_no_script_reads_it(client: httpx2.AsyncClient) -> None:
    answer = await over_https(client, "/sign-up", email=new_email(), password=PASSWORD)
    assert answer.status_code == 303
    set_ = cookies(answer)
    attributes = {each.strip().lower() for each in set_["__Host-nanobanana"].split(";")[1:]}
    assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
    assert not any(each.startswith("domain") for each in attributes)
    assert "max-age=0" in set_["__Host-nanobanana-visit"].lower()
    session = set_["__Host-nanobanana"].partition(";")[0]
    assert (await client.get("/keys", headers={"Cookie": session})).status_code == 200
    assert (await client.get("/keys", headers={"Cookie": session.removeprefix("__Host-")})).status_code == 303


async def test_the_cookie_is_opaque_and_stored_as_a_hash(ada: Browser, database: asyncpg.Connection) -> None:
    token = ada.cookie()
    assert token is not None
    stored = await database.fetch("select * from browser_sessions")
    assert stored
    assert token not in str([dict(row) for row in stored])


async def test_every_log_in_has_a_token_of_its_own_and_ends_the_one_before(ada: Browser, stranger: Browser) -> None:
    email, before = await ada.email(), ada.cookie()
    await ada.log_in(email)
    assert ada.cookie() not in {None, before}
    assert before is not None
    stranger.client.cookies.set("nanobanana", before)
    assert (await stranger.open("/keys")).path == "/log-in"


async def test_a_planted_cookie_is_not_adopted(stranger: Browser, ada: Browser, database: asyncpg.Connection) -> None:
    page, planted = await stranger.open("/log-in"), {"nanobanana": "A" * 43, "nanobanana-visit": "B" * 22}
    jar = "; ".join(f"{name}={value}" for name, value in planted.items())
    values = {**page.form("/log-in").values, "email": await ada.email(), "password": PASSWORD}
    values["proof"] = (
        Page(await stranger.client.get("/log-in", headers={"Cookie": jar})).form("/log-in").values["proof"]
    )
    headers = {"Origin": stranger.origin, "Cookie": jar}
    answer = await stranger.client.post("/log-in", data=values, headers=headers)
    assert answer.status_code == 303
    assert planted["nanobanana"] not in cookies(answer)["nanobanana"]
    answer = await stranger.client.get("/keys", headers={"Cookie": jar})
    assert answer.status_code == 303
    hashed = sha256(planted["nanobanana"].encode()).digest()
    assert await database.fetchval("select count(*) from browser_sessions where token_hash = $1", hashed) == 0


async def test_logging_out_ends_the_session_on_the_server(ada: Browser, stranger: Browser) -> None:
    token, page = ada.cookie(), await ada.open("/keys")
    answer = await ada.client.post("/log-out", data=page.form("/log-out").values, headers={"Origin": ada.origin})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert answer.headers["clear-site-data"] == '"cache"'
    assert ada.cookie() is None
    assert token is not None
    stranger.client.cookies.set("nanobanana", token)
    for path in PRIVATE:
        assert (await stranger.open(path)).path == "/log-in"


async def test_ending_all_sessions_clears_the_browsers_cache(ada: Browser) -> None:
    page = await ada.open("/account")
    values = page.form("/account/log-out-everywhere").values
    answer = await ada.client.post("/account/log-out-everywhere", data=values, headers={"Origin": ada.origin})
    assert answer.headers["clear-site-data"] == '"cache"'


@pytest.mark.parametrize("path", PRIVATE)
async def test_a_private_page_leads_strangers_to_the_log_in_and_back(
    stranger: Browser, ada: Browser, path: str
) -> None:
    answer = await stranger.client.get(path)
    name = path[1:].removesuffix(".csv")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/log-in?next={name}")
    page = await stranger.open(path)
    action = f"/log-in?next={name}" if name != "playground" else "/log-in"
    page = await stranger.submit(page, action, email=await ada.email(), password=PASSWORD)
    assert (page.status, page.path) == (200, f"/{name}")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/keys",
        "/\\evil.example",
        "javascript:alert(1)",
        "KEYS",
        "keys%0d%0aX: 1",
    ],
)
async def test_a_log_in_leads_to_no_address_of_somebody_elses_choice(
    stranger: Browser, ada: Browser, target: str
) -> None:
    page = await stranger.open(f"/log-in?next={target}")
    assert target not in page.answer.text
    values = {**page.form("/log-in").values, "email": await ada.email(), "password": PASSWORD}
    for action in ("/log-in", f"/log-in?next={target}"):
        answer = await stranger.client.post(action, data=values, headers={"Origin": stranger.origin})
        assert answer.headers.get("location", "/playground") == "/playground"


async def test_a_disabled_account_is_out_at_once(ada: Browser, database: asyncpg.Connection) -> None:
    email = await ada.email()
    await database.execute("update users set is_active = false where email = $1", email)
    assert (await ada.open("/keys")).path == "/log-in"
    page = await ada.log_in(email)
    assert (page.status, page.text("p", role="alert")) == (401, "Invalid email or password.")


async def test_log_ins_and_sign_ups_take_from_the_limits_of_the_api(start: Start) -> None:
    client = await start(public_url="http://console.test", login_limit_per_ip="2/hour", register_limit_per_ip="2/hour")
    browser = Browser(client)
    email = new_email()
    assert (await client.post("/v1/auth/register", json={"email": email, "password": PASSWORD})).status_code == 201
    assert (await client.post("/v1/auth/login", json={"email": email, "password": "wrong password"})).status_code == 401
    seen = [(await browser.log_in(email)).status for _ in range(2)]
    assert seen == [200, 429]
    browser.client.cookies.clear()
    seen = [(await browser.sign_up()).status for _ in range(2)]
    assert seen == [200, 429]
    page = await browser.sign_up(email=new_email())
    assert page.text("p", role="alert").startswith("Rate limit exceeded. Try again in ")
    assert int(page.answer.headers["retry-after"]) > 0
    assert (await client.post("/v1/auth/register", json={"email": email, "password": PASSWORD})).status_code == 429


async def test_guesses_in_the_console_and_in_the_api_count_together(start: Start) -> None:
    client = await start(public_url="http://console.test", login_limit_per_account="2/hour")
    browser = Browser(client)
    email = new_email()
    await browser.sign_up(email=email)
    page = await browser.open("/account")
    wrong = {"current_password": "wrong password", "new_password": "a better password"}
    assert (await browser.submit(page, "/account/password", **wrong)).status == 422
    assert (await client.post("/v1/auth/login", json={"email": email, "password": "wrong password"})).status_code == 401
    assert (await browser.submit(page, "/account/password", **wrong)).status == 429
    assert (await browser.log_in(email)).status == 429


def markers(pages: Sequence[Page]) -> set[str]:
    return {page.answer.headers["cache-control"] for page in pages}


async def test_no_page_is_kept_by_any_cache(ada: Browser, stranger: Browser) -> None:
    key_id, _ = await ada.create_key()
    pages = [await ada.open(path) for path in [*PRIVATE, "/", f"/keys/{key_id}/revoke", "/keys/none"]]
    pages += [await stranger.open(path) for path in ("/", "/sign-up", "/log-in", "/keys/none")]
    assert markers(pages) == {"no-store"}

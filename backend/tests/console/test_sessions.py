"""Sessions in browsers: their cookies, where a log-in redirects to, how they end, and that no page is cached."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256

import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.console.browser import Browser, Page
from tests.harness import PASSWORD, PATIENCE_SECONDS, new_email

PRIVATE = ["/keys", "/usage", "/usage.csv", "/playground", "/history", "/account"]
HTTPS = {"Origin": "https://pictures.test"}


def cookies(response: httpx2.Response) -> dict[str, str]:
    """The `Set-Cookie` headers of a response, by the name of their cookie."""
    return {each.partition("=")[0]: each for each in response.headers.get_list("set-cookie")}


async def over_https(client: httpx2.AsyncClient, path: str, cookie: str = "", **values: str) -> httpx2.Response:
    """Sends a form as if a proxy ended TLS. Its cookies are set here: no client sends Secure ones over plain HTTP."""
    page = Page(await client.get(path, headers={"Cookie": cookie}))
    nonce = cookies(page.response).get("__Host-nanobanana-csrf-nonce", "").partition(";")[0]
    sent = {**page.form(path).values, **values}
    return await client.post(path, data=sent, headers={**HTTPS, "Cookie": f"{cookie}; {nonce}"})


async def test_under_https_the_session_cookie_is_for_this_host_only_and_hidden_from_scripts(
    client: httpx2.AsyncClient,
) -> None:
    response = await over_https(client, "/sign-up", email=new_email(), password=PASSWORD)
    assert response.status_code == 303
    sent = cookies(response)
    attributes = {each.strip().lower() for each in sent["__Host-nanobanana"].split(";")[1:]}
    assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
    assert not any(each.startswith("domain") for each in attributes)
    assert "max-age=0" in sent["__Host-nanobanana-csrf-nonce"].lower()
    session = sent["__Host-nanobanana"].partition(";")[0]
    assert (await client.get("/keys", headers={"Cookie": session})).status_code == 200
    assert (await client.get("/keys", headers={"Cookie": session.removeprefix("__Host-")})).status_code == 303


async def test_the_token_of_a_session_is_stored_only_as_a_hash(ada: Browser, database: asyncpg.Connection) -> None:
    token = ada.cookie()
    assert token is not None
    stored = await database.fetch("select * from browser_sessions")
    assert stored
    assert token not in str([dict(row) for row in stored])


async def test_every_log_in_starts_a_new_session_and_ends_the_previous_one(ada: Browser, anonymous: Browser) -> None:
    email, before = await ada.email(), ada.cookie()
    await ada.log_in(email)
    assert ada.cookie() not in {None, before}
    assert before is not None
    anonymous.client.cookies.set("nanobanana", before)
    assert (await anonymous.open("/keys")).path == "/log-in"


async def test_a_session_cookie_that_an_attacker_has_set_is_not_adopted(
    anonymous: Browser, ada: Browser, database: asyncpg.Connection
) -> None:
    page, forged = await anonymous.open("/log-in"), {"nanobanana": "A" * 43, "nanobanana-csrf-nonce": "B" * 22}
    jar = "; ".join(f"{name}={value}" for name, value in forged.items())
    values = {**page.form("/log-in").values, "email": await ada.email(), "password": PASSWORD}
    values["csrf_token"] = (
        Page(await anonymous.client.get("/log-in", headers={"Cookie": jar})).form("/log-in").values["csrf_token"]
    )
    headers = {"Origin": anonymous.origin, "Cookie": jar}
    response = await anonymous.client.post("/log-in", data=values, headers=headers)
    assert response.status_code == 303
    assert forged["nanobanana"] not in cookies(response)["nanobanana"]
    response = await anonymous.client.get("/keys", headers={"Cookie": jar})
    assert response.status_code == 303
    hashed = sha256(forged["nanobanana"].encode()).digest()
    assert await database.fetchval("select count(*) from browser_sessions where token_hash = $1", hashed) == 0


async def test_logging_out_ends_the_session_on_the_server(ada: Browser, anonymous: Browser) -> None:
    token, page = ada.cookie(), await ada.open("/keys")
    response = await ada.client.post("/log-out", data=page.form("/log-out").values, headers={"Origin": ada.origin})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert response.headers["clear-site-data"] == '"cache"'
    assert ada.cookie() is None
    assert token is not None
    anonymous.client.cookies.set("nanobanana", token)
    for path in PRIVATE:
        assert (await anonymous.open(path)).path == "/log-in"


async def test_ending_all_sessions_clears_the_browsers_cache(ada: Browser) -> None:
    page = await ada.open("/account")
    values = page.form("/account/log-out-everywhere").values
    response = await ada.client.post("/account/log-out-everywhere", data=values, headers={"Origin": ada.origin})
    assert response.headers["clear-site-data"] == '"cache"'


@pytest.mark.parametrize("path", PRIVATE)
async def test_a_private_page_redirects_to_the_log_in_and_back(anonymous: Browser, ada: Browser, path: str) -> None:
    response = await anonymous.client.get(path)
    name = path[1:].removesuffix(".csv")
    assert (response.status_code, response.headers["location"]) == (303, f"/log-in?next={name}")
    page = await anonymous.open(path)
    action = f"/log-in?next={name}" if name != "playground" else "/log-in"
    page = await anonymous.submit(page, action, email=await ada.email(), password=PASSWORD)
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
async def test_a_log_in_redirects_only_to_pages_of_the_console(anonymous: Browser, ada: Browser, target: str) -> None:
    page = await anonymous.open(f"/log-in?next={target}")
    assert target not in page.response.text
    values = {**page.form("/log-in").values, "email": await ada.email(), "password": PASSWORD}
    for action in ("/log-in", f"/log-in?next={target}"):
        response = await anonymous.client.post(action, data=values, headers={"Origin": anonymous.origin})
        assert response.headers.get("location", "/playground") == "/playground"


async def test_a_disabled_account_is_logged_out_at_once(ada: Browser, database: asyncpg.Connection) -> None:
    email = await ada.email()
    await database.execute("update users set is_active = false where email = $1", email)
    assert (await ada.open("/keys")).path == "/log-in"
    page = await ada.log_in(email)
    assert page.status == 401
    assert page.text("p", role="alert")


async def test_log_ins_and_sign_ups_take_from_the_limits_of_the_api(start: Start) -> None:
    client = await start(public_url="http://console.test", login_limit_per_ip="2/hour", register_limit_per_ip="2/hour")
    browser = Browser(client)
    email = new_email()
    assert (await client.post("/v1/auth/register", json={"email": email, "password": PASSWORD})).status_code == 201
    assert (await client.post("/v1/auth/login", json={"email": email, "password": "wrong password"})).status_code == 401
    seen = [(await browser.log_in(email, password)).status for password in (PASSWORD, "wrong password", PASSWORD)]
    assert seen == [200, 401, 429]
    browser.client.cookies.clear()
    seen = [(await browser.sign_up()).status for _ in range(2)]
    assert seen == [200, 429]
    page = await browser.sign_up(email=new_email())
    assert int(page.response.headers["retry-after"]) > 0
    assert page.response.headers["retry-after"] in page.text("p", role="alert")
    assert (await client.post("/v1/auth/register", json={"email": email, "password": PASSWORD})).status_code == 429


async def test_right_log_ins_together_all_succeed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.ratelimit.reservations._WAIT_SECONDS", PATIENCE_SECONDS)
    client = await start(
        public_url="http://console.test", login_limit_per_ip="2/hour", login_limit_per_account="2/hour"
    )
    browser, email = Browser(client), new_email()
    await browser.sign_up(email=email)
    client.cookies.clear()
    values = {**(await browser.open("/log-in")).form("/log-in").values, "email": email, "password": PASSWORD}
    sent = [client.post("/log-in", data=values, headers={"Origin": browser.origin}) for _ in range(12)]
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {303}


async def test_failed_logins_in_the_console_and_in_the_api_count_together(start: Start) -> None:
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


def cache_headers(pages: Sequence[Page]) -> set[str]:
    return {page.response.headers["cache-control"] for page in pages}


async def test_no_page_is_cached(ada: Browser, anonymous: Browser) -> None:
    key_id, _ = await ada.create_key()
    pages = [await ada.open(path) for path in [*PRIVATE, "/", f"/keys/{key_id}/revoke", "/keys/none"]]
    pages += [await anonymous.open(path) for path in ("/", "/sign-up", "/log-in", "/keys/none")]
    assert cache_headers(pages) == {"no-store"}

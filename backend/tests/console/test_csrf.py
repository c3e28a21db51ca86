"""A form that another site sent, or that belongs to another session, changes nothing."""

import asyncpg
import httpx2
import pytest
from tests.console.browser import Browser, new_browser
from tests.harness import PASSWORD, new_email

OTHER_SITES = {
    "no origin": {},
    "null": {"Origin": "null"},
    "another site": {"Origin": "https://evil.example"},
    "a name that begins alike": {"Origin": "http://127.0.0.1.evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "another scheme": {"Origin": "https://console.test"},
    "cross-site by Sec-Fetch-Site": {"Origin": "http://console.test", "Sec-Fetch-Site": "cross-site"},
    "same-site by Sec-Fetch-Site": {"Origin": "http://console.test", "Sec-Fetch-Site": "same-site"},
}
PRIVATE_FORMS = [
    "/keys",
    "/playground",
    "/playground/jobs",
    f"/playground/jobs/gen_{'0' * 20}/cancel",
    "/playground/first-key",
    "/account/password",
    "/account/log-out-everywhere",
    "/log-out",
]
WRONG_TOKENS = {
    "missing": None,
    "empty": "",
    "made up": "0" * 64,
    "not ASCII": "\u00e9",
    "cut": "a" * 63,
}


async def csrf_token_of(browser: Browser, path: str = "/keys") -> str:
    return (await browser.open(path)).forms[0].values["csrf_token"]


async def count_keys(browser: Browser) -> int:
    return len((await browser.open("/keys")).all("th", scope="row"))


@pytest.mark.parametrize("headers", OTHER_SITES.values(), ids=OTHER_SITES)
async def test_a_form_sent_by_another_site_is_refused(ada: Browser, headers: dict[str, str]) -> None:
    values = {"name": "mallory", "environment": "live", "csrf_token": await csrf_token_of(ada)}
    page = await ada.post("/keys", values, headers=headers)
    assert page.status == 403
    assert page.text("h1")
    assert "/keys" not in [form.action for form in page.forms]
    assert await count_keys(ada) == 0


async def test_a_form_sent_by_a_page_of_the_public_url_is_accepted(ada: Browser) -> None:
    values = {**(await ada.open("/keys")).form("/keys").values, "name": "a key", "environment": "live"}
    page = await ada.post("/keys", values, headers={"Origin": "http://console.test", "Sec-Fetch-Site": "same-origin"})
    assert page.status == 200
    assert await count_keys(ada) == 1


@pytest.mark.parametrize("wrong", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
async def test_a_form_without_its_csrf_token_changes_nothing_and_keeps_its_values(
    ada: Browser, wrong: str | None
) -> None:
    values = {"name": "a long name", "environment": "test"} | ({} if wrong is None else {"csrf_token": wrong})
    page = await ada.post("/keys", values)
    assert page.status == 403
    assert page.text("p", role="alert")
    assert await count_keys(ada) == 0
    again = await ada.submit(page, "/keys")
    assert again.status == 200
    assert "a long name" in again.text("h1")


async def test_the_csrf_token_of_another_account_is_refused(ada: Browser, eve: Browser) -> None:
    page = await ada.post("/keys", {"name": "a key", "environment": "live", "csrf_token": await csrf_token_of(eve)})
    assert (page.status, await count_keys(ada)) == (403, 0)


async def test_the_csrf_token_of_an_earlier_session_is_refused(ada: Browser) -> None:
    old, email = await csrf_token_of(ada), await ada.email()
    await ada.submit(await ada.open("/keys"), "/log-out")
    await ada.log_in(email)
    page = await ada.post("/keys", {"name": "a key", "environment": "live", "csrf_token": old})
    assert (page.status, await count_keys(ada)) == (403, 0)


@pytest.mark.parametrize("path", PRIVATE_FORMS)
async def test_every_form_of_a_logged_in_session_needs_its_csrf_token(ada: Browser, path: str) -> None:
    page = await ada.post(path, {"name": "a key"})
    assert page.status == 403
    assert (await ada.open("/keys")).path == "/keys", "the session goes on"


@pytest.mark.parametrize("path", ["/sign-up", "/log-in"])
async def test_the_csrf_token_of_another_browser_logs_nobody_in(
    anonymous: Browser, site: httpx2.AsyncClient, ada: Browser, path: str
) -> None:
    email = await ada.email() if path == "/log-in" else new_email()
    async with new_browser(site) as mallory:
        token_of_mallory = await csrf_token_of(mallory, path)
    await anonymous.open(path)
    for sent in ({"csrf_token": token_of_mallory}, {"csrf_token": ""}, {}):
        page = await anonymous.post(path, {"email": email, "password": PASSWORD, **sent})
        assert page.status == 403
        assert anonymous.cookie() is None
        assert page.form(path).values["email"] == email
        assert PASSWORD not in page.response.text


async def test_a_get_changes_nothing(ada: Browser, database: asyncpg.Connection) -> None:
    key_id, _ = await ada.create_key()
    for path in ("/log-out", "/account/password", "/account/log-out-everywhere"):
        assert (await ada.open(path)).status == 405
    assert (await ada.open("/playground/first-key")).path == "/playground"
    assert await count_keys(ada) == 1
    await ada.open(f"/keys/{key_id}/revoke?csrf_token={await csrf_token_of(ada)}")
    assert await database.fetchval("select revoked_at from api_keys where id = $1", key_id) is None


async def test_a_form_of_an_ended_session_returns_the_text_that_was_entered(ada: Browser, anonymous: Browser) -> None:
    await ada.create_key()
    page, email = await ada.open("/playground"), await ada.email()
    await anonymous.log_in(email)
    await anonymous.submit(await anonymous.open("/account"), "/account/log-out-everywhere")
    page = await ada.submit(page, "/playground", prompt="a long prompt", size="64x64")
    assert page.status == 403
    assert page.text("pre", class_="entered") == "a long prompt"
    assert "/log-in?next=playground" in [link.attributes["href"] for link in page.all("a")]

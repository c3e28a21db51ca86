"""Forms that did not come from a page of ours, or of this visitor's, do nothing."""

import asyncpg
import httpx2
import pytest
from tests.console.browsing import Browser, browsing
from tests.harness import PASSWORD, new_email

FOREIGN = {
    "no origin": {},
    "null": {"Origin": "null"},
    "another site": {"Origin": "https://evil.example"},
    "a name that begins alike": {"Origin": "http://127.0.0.1.evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "another scheme": {"Origin": "https://console.test"},
    "the browser says so": {"Origin": "http://console.test", "Sec-Fetch-Site": "cross-site"},
    "a neighbour": {"Origin": "http://console.test", "Sec-Fetch-Site": "same-site"},
}
CLOSED = [
    "/keys",
    "/playground",
    "/playground/first-key",
    "/account/password",
    "/account/log-out-everywhere",
    "/log-out",
]
WRONG = {
    "missing": None,
    "empty": "",
    "made up": "0" * 64,
    "not ASCII": "\u00e9",
    "cut": "a" * 63,
}


async def proof(browser: Browser, path: str = "/keys") -> str:
    return (await browser.open(path)).forms[0].values["proof"]


async def keys(browser: Browser) -> int:
    return len((await browser.open("/keys")).all("th", scope="row"))


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_a_form_from_elsewhere_is_refused(ada: Browser, headers: dict[str, str]) -> None:
    values = {"name": "mallory", "environment": "live", "proof": await proof(ada)}
    page = await ada.post("/keys", values, headers=headers)
    assert page.status == 403
    assert "did not come from a page of this site" in page.text("h1")
    assert await keys(ada) == 0


async def test_a_form_from_the_public_address_is_taken(ada: Browser) -> None:
    values = {"name": "a key", "environment": "live", "proof": await proof(ada)}
    page = await ada.post("/keys", values, headers={"Origin": "http://console.test", "Sec-Fetch-Site": "same-origin"})
    assert page.status == 200
    assert await keys(ada) == 1


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_form_without_its_proof_does_nothing_and_comes_back_as_it_was_filled_in(
    ada: Browser, wrong: str | None
) -> None:
    values = {"name": "typed for long", "environment": "test"} | ({} if wrong is None else {"proof": wrong})
    page = await ada.post("/keys", values)
    assert page.status == 403
    assert "had grown old" in page.text("p", role="alert")
    assert await keys(ada) == 0
    again = await ada.submit(page, "/keys")
    assert (again.status, again.text("h1")) == (200, "“typed for long” is ready")


async def test_another_accounts_proof_does_nothing(ada: Browser, eve: Browser) -> None:
    page = await ada.post("/keys", {"name": "a key", "environment": "live", "proof": await proof(eve)})
    assert (page.status, await keys(ada)) == (403, 0)


async def test_the_proof_of_an_earlier_session_does_nothing(ada: Browser) -> None:
    old, email = await proof(ada), await ada.email()
    await ada.submit(await ada.open("/keys"), "/log-out")
    await ada.log_in(email)
    page = await ada.post("/keys", {"name": "a key", "environment": "live", "proof": old})
    assert (page.status, await keys(ada)) == (403, 0)


@pytest.mark.parametrize("path", CLOSED)
async def test_every_form_of_an_account_asks_for_its_proof(ada: Browser, path: str) -> None:
    page = await ada.post(path, {"name": "a key"})
    assert page.status == 403
    assert (await ada.open("/keys")).path == "/keys", "still logged in"


@pytest.mark.parametrize("path", ["/sign-up", "/log-in"])
async def test_nobody_is_logged_in_by_somebody_elses_form(
    stranger: Browser, site: httpx2.AsyncClient, ada: Browser, path: str
) -> None:
    email = await ada.email() if path == "/log-in" else new_email()
    async with browsing(site) as mallory:
        foreign = await proof(mallory, path)
    await stranger.open(path)
    for sent in ({"proof": foreign}, {"proof": ""}, {}):
        page = await stranger.post(path, {"email": email, "password": PASSWORD, **sent})
        assert page.status == 403
        assert stranger.cookie() is None
        assert page.form(path).values["email"] == email
        assert PASSWORD not in page.answer.text


async def test_nothing_is_done_with_get(ada: Browser, database: asyncpg.Connection) -> None:
    key_id, _ = await ada.create_key()
    for path in ("/log-out", "/playground/first-key", "/account/password", "/account/log-out-everywhere"):
        assert (await ada.open(path)).status == 405
    await ada.open(f"/keys/{key_id}/revoke?proof={await proof(ada)}")
    assert await database.fetchval("select revoked_at from api_keys where id = $1", key_id) is None


async def test_a_form_of_a_session_that_has_ended_is_not_lost(ada: Browser, stranger: Browser) -> None:
    await ada.create_key()
    page, email = await ada.open("/playground"), await ada.email()
    await stranger.log_in(email)
    await stranger.submit(await stranger.open("/account"), "/account/log-out-everywhere")
    page = await ada.submit(page, "/playground", prompt="thought about for an hour", size="64x64")
    assert page.status == 403
    assert page.text("h1") == "You were logged out"
    assert page.text("pre", class_="kept") == "thought about for an hour"
    assert "/log-in?next=playground" in [link.attributes["href"] for link in page.all("a")]

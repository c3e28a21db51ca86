"""What every page is: safe to show, strict in what it takes, and clear in what it refuses."""

import asyncpg
import httpx2
import pytest
from tests.conftest import Start
from tests.console.browsing import Browser, Page
from tests.harness import PASSWORD, new_email

XSS = "<img src=x onerror=alert(1)>\"'`{{7*7}}"
UNKNOWN = f"key_{'0' * 20}"
BYTES_MAX = 150_000
FORM = "application/x-www-form-urlencoded"
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}


async def every_page(ada: Browser, stranger: Browser) -> list[Page]:
    """One of each page, errors too, of an account with keys, pictures and usage."""
    key_id, _ = await ada.create_key(name=XSS)
    made = await ada.draw(XSS)
    assert made.status == 200
    created = await ada.submit(await ada.open("/keys"), "/keys", name=XSS, environment="test")
    wrong = await ada.submit(await ada.open("/keys"), "/keys", name=" ", environment="live")
    paths = ["/", "/keys", f"/keys/{key_id}/revoke", "/usage", "/playground", "/history", "/account", "/keys/none"]
    open_ = [await stranger.open(path) for path in ("/", "/sign-up", "/log-in", "/keys/none", f"/keys/{XSS}")]
    return [made, created, wrong, *[await ada.open(path) for path in paths], *open_]


async def test_every_page_has_the_headers_that_protect_it(ada: Browser, stranger: Browser) -> None:
    for page in await every_page(ada, stranger):
        headers = page.answer.headers
        policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
        assert policy == POLICY
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["x-request-id"].startswith("req_")


async def test_markup_in_names_and_prompts_is_text_everywhere(ada: Browser, stranger: Browser) -> None:
    shown = 0
    for page in await every_page(ada, stranger):
        assert "<img src=x" not in page.answer.text
        assert [each.attributes["src"] for each in page.all("img") if each.attributes["src"] == "x"] == []
        assert not any(name.startswith("on") or name == "style" for each in page.elements for name in each.attributes)
        assert page.all("style") == []
        assert all(each.text == "" for each in page.all("script"))
        shown += any(XSS in each.text or XSS in each.attributes.values() for each in page.elements)
    assert shown >= 7, "or nothing was shown"


async def test_every_page_weighs_little(ada: Browser, stranger: Browser) -> None:
    for page in await every_page(ada, stranger):
        linked = [each.attributes["href"] for each in page.all("link")]
        scripts = [each.attributes["src"] for each in page.all("script")]
        files = [await ada.client.get(address) for address in [*linked, *scripts]]
        assert len(files) == 3
        assert len(page.answer.content) + sum(len(file.content) for file in files) < BYTES_MAX
        for file in files:
            assert file.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_what_belongs_to_somebody_else_is_told_like_what_never_was(ada: Browser, eve: Browser) -> None:
    key_id, _ = await eve.create_key(name="of eve")
    await eve.draw("a secret of eve")
    await ada.create_key()
    told = []
    for foreign in (key_id, UNKNOWN):
        asked = await ada.open(f"/keys/{foreign}/revoke")
        proof = (await ada.open("/keys")).form("/keys").values["proof"]
        revoked = await ada.post(f"/keys/{foreign}/revoke", {"proof": proof})
        drawn = await ada.draw(key_id=foreign)
        for page in (asked, revoked, drawn):
            page.answer.headers.pop("x-request-id")
        told.append([(page.status, page.text("h1"), page.all("p", role="alert")) for page in (asked, revoked, drawn)])
        assert [page.status for page in (asked, revoked, drawn)] == [404] * 3
    assert told[0] == told[1]
    for path in ("/keys", "/history", "/usage", "/playground"):
        assert "of eve" not in (await ada.open(path)).answer.text
    assert "of eve" in (await eve.open("/keys")).answer.text


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"name=a&name=b", FORM, 400),
        (b"name=%ff", FORM, 400),
        (b"name=\xff", FORM, 400),
        (b"name", FORM, 400),
        (b"&" * 1000, FORM, 400),
        (b"&".join(b"f%d=1" % number for number in range(21)), FORM, 400),
        (b"name=a", "application/json", 415),
        (b"name=a", "multipart/form-data; boundary=x", 415),
        (b"name=a", f"{FORM}; charset=latin-1", 415),
        (b"name=" + b"a" * 66_000, FORM, 413),
        (b"", FORM, 403),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_form_that_cannot_be_read_is_a_clear_page(
    ada: Browser, body: bytes, media_type: str, status: int
) -> None:
    headers = {"Origin": ada.origin, "Content-Type": media_type}
    for path in ("/keys", "/playground", "/log-in", "/sign-up", "/account/password", "/log-out"):
        page = Page(await ada.client.post(path, content=body, headers=headers))
        assert page.status == status, path
        assert page.text("h1")


@pytest.mark.parametrize("value", ["a\0b", "", " ", "x" * 101, "a\nb", "\u2028"])
async def test_a_wrong_field_is_told_in_words_beside_it_and_nothing_typed_is_lost(ada: Browser, value: str) -> None:
    page = await ada.submit(await ada.open("/keys"), "/keys", name=value, environment="test")
    assert page.status == 422
    field = page.by_id("name")
    assert field.attributes["aria-invalid"] == "true"
    assert page.by_id(field.attributes["aria-describedby"]).text
    assert page.form("/keys").values["environment"] == "test"


async def test_wrong_fields_of_a_sign_up_stand_beside_them_and_a_password_is_never_repeated(stranger: Browser) -> None:
    page = await stranger.open("/sign-up")
    page = await stranger.submit(page, "/sign-up", email="no address", password="pass-w0")
    assert (page.status, page.form("/sign-up").values["email"]) == (422, "no address")
    assert page.by_id("email-wrong").text == "Must be an email address such as ada@example.com"
    page = await stranger.submit(page, "/sign-up", email=new_email(), password="pass-w0")
    assert page.by_id("password-wrong").text == "Must be at least 8 bytes long"
    assert "pass-w0" not in page.answer.text


async def test_a_known_email_and_a_wrong_password_are_told_in_words(stranger: Browser, ada: Browser) -> None:
    email = await ada.email()
    page = await stranger.sign_up(email=email)
    assert (page.status, page.text("p", role="alert")) == (409, "Email already registered.")
    pages = [await stranger.log_in(each, "a wrong password") for each in (email, new_email())]
    assert [(each.status, each.text("p", role="alert")) for each in pages] == [(401, "Invalid email or password.")] * 2


async def test_unknown_fields_are_refused(ada: Browser) -> None:
    page = await ada.submit(await ada.open("/keys"), "/keys", name="a key", key="nb_live_" + "0" * 32)
    assert page.status == 422
    assert "An unknown field" in page.text("p", role="alert")


async def test_a_size_that_cannot_be_drawn_and_a_limit_come_back_with_the_prompt(start: Start) -> None:
    browser = Browser(await start(public_url="http://console.test", generate_limit_per_key="2/hour"))
    await browser.sign_up()
    await browser.create_key()
    page = await browser.open("/playground")
    page = await browser.submit(page, "/playground", prompt="a long thought", size="1x1")
    assert (page.status, page.form("/playground").values["prompt"]) == (422, "a long thought")
    assert "64x64 to 2048x2048" in page.by_id("size-wrong").text
    page = await browser.draw("a long thought")
    assert page.status == 200
    assert page.answer.headers["ratelimit"].startswith('"key";r=0;')
    page = await browser.draw("a long thought")
    assert (page.status, page.form("/playground").values["prompt"]) == (429, "a long thought")
    assert "Try again in" in page.text("p", role="alert")
    assert int(page.answer.headers["retry-after"]) > 0


async def test_the_cap_on_keys_holds(start: Start) -> None:
    browser = Browser(await start(public_url="http://console.test", keys_per_account_max=1))
    await browser.sign_up()
    await browser.create_key()
    page = await browser.submit(await browser.open("/keys"), "/keys", name="another", environment="live")
    assert page.status == 409
    assert "as many keys as it may have" in page.text("p", role="alert")


async def test_the_same_form_sent_twice_is_one_picture_and_changed_it_is_another(
    ada: Browser, database: asyncpg.Connection
) -> None:
    key_id, _ = await ada.create_key()
    page = await ada.open("/playground")
    for prompt, counted in (("one", 1), ("one", 1), ("two", 2)):
        sent = await ada.submit(page, "/playground", prompt=prompt, size="64x64")
        assert sent.status == 200
        assert await database.fetchval("select sum(pictures) from usage where key_id = $1", key_id) == counted
    fresh = await ada.submit(sent, "/playground", prompt="two", size="64x64")
    assert fresh.status == 200
    assert await database.fetchval("select sum(pictures) from usage where key_id = $1", key_id) == 3


async def test_a_revoked_key_draws_nothing(ada: Browser) -> None:
    key_id, _ = await ada.create_key()
    page = await ada.open("/playground")
    await ada.submit(await ada.open(f"/keys/{key_id}/revoke"), f"/keys/{key_id}/revoke")
    assert (await ada.submit(page, "/playground", prompt="one", size="64x64")).status == 404


async def test_line_breaks_of_a_prompt_are_as_they_were_typed(ada: Browser, database: asyncpg.Connection) -> None:
    key_id, _ = await ada.create_key()
    await ada.draw("one\r\ntwo")
    assert await database.fetchval("select prompt from generations where key_id = $1", key_id) == "one\ntwo"


async def test_a_fault_is_a_page_with_the_requests_id(ada: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    page = await ada.open("/keys")

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("app.features.keys.service.find_all", fail)
    for answer in (await ada.open("/keys"), await ada.submit(page, "/keys", name=" ", environment="live")):
        assert answer.answer.headers["x-request-id"] in answer.answer.text
        assert "canary" not in answer.answer.text
    assert (await ada.open("/keys")).status == 500


async def test_the_raw_key_stands_in_no_snippet(ada: Browser) -> None:
    page = await ada.submit(await ada.open("/playground"), "/playground/first-key")
    raw = page.by_id("raw-key").text
    assert page.answer.text.count(raw) == 1
    assert "$KEY" in page.by_id("call-curl-code").text


async def test_a_static_file_of_another_name_is_not_there(site: httpx2.AsyncClient) -> None:
    for name in ("console.css", "..%2fsite.py", "console.000000000000.css"):
        assert (await site.get(f"/static/{name}")).status_code == 404


async def test_a_page_asked_for_by_a_strange_host_leads_nowhere_else(site: httpx2.AsyncClient) -> None:
    answer = await site.get("/keys", headers={"Host": "evil.example"})
    assert answer.headers["location"] == "/log-in?next=keys"
    assert PASSWORD not in answer.text

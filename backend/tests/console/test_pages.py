"""What holds for every page: its headers, its escaping, its size, and how it answers what it refuses."""

import asyncio

import asyncpg
import httpx2
import pytest
from app.providers.stub.art import draw_png
from tests.conftest import Start
from tests.console.browser import Browser, Page
from tests.features.generate.painted import painted
from tests.harness import new_email
from tests.raw_http import head, send_raw

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


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the stub draws from now on."""
    prompts: list[str] = []

    def draw(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        prompts.append(prompt)
        return draw_png(prompt, width=width, height=height, model=model)

    monkeypatch.setattr("app.providers.stub.draw_png", draw)
    return prompts


async def every_page(ada: Browser, anonymous: Browser) -> list[Page]:
    """Each page once, errors too, of an account with keys, generations and usage."""
    key_id, _ = await ada.create_key(name=XSS)
    generated = await ada.generate(XSS)
    assert generated.status == 200
    created = await ada.submit(await ada.open("/keys"), "/keys", name=XSS, environment="test")
    refused = await ada.submit(await ada.open("/keys"), "/keys", name=" ", environment="live")
    paths = [
        "/",
        "/keys",
        f"/keys/{key_id}/revoke",
        f"/history/{generated.result}/delete",
        "/usage",
        "/playground",
        "/history",
        "/account",
        "/keys/none",
    ]
    public = [await anonymous.open(path) for path in ("/", "/sign-up", "/log-in", "/keys/none", f"/keys/{XSS}")]
    return [generated, created, refused, *[await ada.open(path) for path in paths], *public]


async def test_every_page_has_the_security_headers(ada: Browser, anonymous: Browser) -> None:
    for page in await every_page(ada, anonymous):
        headers = page.response.headers
        policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
        assert policy == POLICY
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["x-request-id"].startswith("req_")


async def test_the_navigation_links_the_private_pages_and_marks_the_current_one(ada: Browser) -> None:
    pages = ["/playground", "/keys", "/models", "/usage", "/history", "/account"]
    for path in pages:
        page = await ada.open(path)
        [start] = [n for n, each in enumerate(page.elements) if each.attributes.get("aria-label") == "Console"]
        links = [each.attributes for each in page.elements[start + 1 : start + 1 + len(pages)]]
        assert [each["href"] for each in links] == pages
        assert [each["href"] for each in links if "aria-current" in each] == [path]


async def test_markup_in_names_and_prompts_is_escaped_on_every_page(ada: Browser, anonymous: Browser) -> None:
    shown = 0
    for page in await every_page(ada, anonymous):
        assert "<img src=x" not in page.response.text
        assert [each.attributes["src"] for each in page.all("img") if each.attributes["src"] == "x"] == []
        assert not any(name.startswith("on") or name == "style" for each in page.elements for name in each.attributes)
        assert page.all("style") == []
        assert all(each.text == "" for each in page.all("script"))
        shown += any(XSS in each.text or XSS in each.attributes.values() for each in page.elements)
    assert shown >= 7, "most pages show the name or the prompt"


async def test_every_page_is_small(ada: Browser, anonymous: Browser) -> None:
    for page in await every_page(ada, anonymous):
        linked = [each.attributes["href"] for each in page.all("link")]
        scripts = [each.attributes["src"] for each in page.all("script")]
        files = [await ada.client.get(path) for path in [*linked, *scripts]]
        assert len(files) == (5 if page.path == "/playground" else 3)
        assert len(page.response.content) + sum(len(file.content) for file in files) < BYTES_MAX
        for file in files:
            assert file.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_the_key_of_another_account_is_answered_like_an_unknown_key(ada: Browser, eve: Browser) -> None:
    key_id, _ = await eve.create_key(name="of eve")
    await eve.generate("a secret of eve")
    await ada.create_key()
    seen = []
    for other in (key_id, UNKNOWN):
        confirmation = await ada.open(f"/keys/{other}/revoke")
        csrf_token = (await ada.open("/keys")).form("/keys").values["csrf_token"]
        revoked = await ada.post(f"/keys/{other}/revoke", {"csrf_token": csrf_token})
        generated = await ada.generate(key_id=other)
        for page in (confirmation, revoked, generated):
            page.response.headers.pop("x-request-id")
        seen.append(
            [(page.status, page.text("h1"), page.all("p", role="alert")) for page in (confirmation, revoked, generated)]
        )
        assert [page.status for page in (confirmation, revoked, generated)] == [404] * 3
    assert seen[0] == seen[1]
    for path in ("/keys", "/history", "/usage", "/playground"):
        assert "of eve" not in (await ada.open(path)).response.text
    assert "of eve" in (await eve.open("/keys")).response.text


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
        (b"name=" + b"a" * 300_000, FORM, 413),
        (b"", FORM, 403),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_an_unreadable_form_is_answered_with_an_error_page(
    ada: Browser, body: bytes, media_type: str, status: int
) -> None:
    headers = {"Origin": ada.origin, "Content-Type": media_type}
    for path in ("/keys", "/playground", "/log-in", "/sign-up", "/account/password", "/log-out"):
        page = Page(await ada.client.post(path, content=body, headers=headers))
        takes_files = path == "/playground" and media_type.startswith("multipart")
        assert page.status == (400 if takes_files else status), path
        assert page.text("h1")


@pytest.mark.parametrize("value", ["a\0b", "", " ", "x" * 101, "a\nb", "\u2028"])
async def test_the_error_of_a_field_is_shown_beside_it_and_all_values_stay(ada: Browser, value: str) -> None:
    page = await ada.submit(await ada.open("/keys"), "/keys", name=value, environment="test")
    assert page.status == 422
    field = page.by_id("name")
    assert field.attributes["aria-invalid"] == "true"
    assert page.by_id(field.attributes["aria-describedby"]).text
    assert page.form("/keys").values["environment"] == "test"


async def test_a_refused_sign_up_shows_errors_beside_its_fields_and_never_the_password(anonymous: Browser) -> None:
    page = await anonymous.open("/sign-up")
    page = await anonymous.submit(page, "/sign-up", email="no address", password="pass-w0")
    assert (page.status, page.form("/sign-up").values["email"]) == (422, "no address")
    assert page.by_id("email-error").text
    page = await anonymous.submit(page, "/sign-up", email=new_email(), password="pass-w0")
    assert page.by_id("password-error").text
    assert "pass-w0" not in page.response.text


async def test_wrong_credentials_have_one_message_whether_the_email_is_known_or_not(
    anonymous: Browser, ada: Browser
) -> None:
    email = await ada.email()
    page = await anonymous.sign_up(email=email)
    assert page.status == 409
    assert page.text("p", role="alert")
    known, unknown = [await anonymous.log_in(each, "a wrong password") for each in (email, new_email())]
    assert known.status == unknown.status == 401
    assert known.text("p", role="alert") == unknown.text("p", role="alert")


async def test_unknown_fields_are_refused(ada: Browser) -> None:
    page = await ada.submit(await ada.open("/keys"), "/keys", name="a key", key="nb_live_" + "0" * 32)
    assert page.status == 422
    assert page.text("p", role="alert")


async def test_a_refused_size_and_a_rate_limit_keep_the_prompt(start: Start) -> None:
    browser = Browser(await start(public_url="http://console.test", generate_limit_per_key="2/hour"))
    await browser.sign_up()
    await browser.create_key()
    page = await browser.open("/playground")
    page = await browser.submit(page, "/playground", prompt="a long prompt", size="1x1")
    assert (page.status, page.form("/playground").values["prompt"]) == (422, "a long prompt")
    assert page.by_id("size-error").text
    page = await browser.generate("a long prompt")
    assert page.status == 200
    assert page.response.headers["ratelimit"].startswith('"key";r=0;')
    page = await browser.generate("a long prompt")
    assert (page.status, page.form("/playground").values["prompt"]) == (429, "a long prompt")
    assert int(page.response.headers["retry-after"]) > 0
    assert page.response.headers["retry-after"] in page.text("p", role="alert")


async def test_the_limit_on_keys_of_an_account_holds(start: Start) -> None:
    browser = Browser(await start(public_url="http://console.test", keys_per_account_max=1))
    await browser.sign_up()
    await browser.create_key()
    page = await browser.submit(await browser.open("/keys"), "/keys", name="another", environment="live")
    assert page.status == 409
    assert page.text("p", role="alert")


async def test_the_same_form_sent_twice_is_one_generation_and_changed_it_is_another(
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


async def test_a_revoked_key_generates_nothing(ada: Browser) -> None:
    key_id, _ = await ada.create_key()
    page = await ada.open("/playground")
    await ada.submit(await ada.open(f"/keys/{key_id}/revoke"), f"/keys/{key_id}/revoke")
    assert (await ada.submit(page, "/playground", prompt="one", size="64x64")).status == 404


async def test_line_breaks_of_a_prompt_are_stored_as_they_were_entered(
    ada: Browser, database: asyncpg.Connection
) -> None:
    key_id, _ = await ada.create_key()
    await ada.generate("one\r\ntwo")
    assert await database.fetchval("select prompt from generations where key_id = $1", key_id) == "one\ntwo"


async def test_an_internal_error_is_a_page_with_the_request_id(ada: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    page = await ada.open("/keys")

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr("app.features.keys.service.find_all", fail)
    for failed in (await ada.open("/keys"), await ada.submit(page, "/keys", name=" ", environment="live")):
        assert failed.response.headers["x-request-id"] in failed.response.text
        assert "canary" not in failed.response.text
    assert (await ada.open("/keys")).status == 500


async def test_no_snippet_contains_the_raw_key(ada: Browser) -> None:
    page = await ada.submit(await ada.open("/playground"), "/playground/first-key")
    raw = page.by_id("raw-key").text
    assert page.response.text.count(raw) == 1
    assert "$KEY" in page.by_id("call-curl-code").text


async def test_an_unknown_static_file_is_not_found(site: httpx2.AsyncClient) -> None:
    for name in ("console.css", "..%2frendering.py", "console.000000000000.css"):
        assert (await site.get(f"/static/{name}")).status_code == 404


@pytest.mark.parametrize("name", ["none", "%E7%8C%AB", "banana%0A"])
async def test_an_unknown_example_is_not_found_whatever_the_client_has(site: httpx2.AsyncClient, name: str) -> None:
    for headers in ({}, {"If-None-Match": "*"}):
        assert (await site.get(f"/examples/{name}.png", headers=headers)).status_code == 404


async def test_an_example_is_drawn_once_for_all_who_ask(start: Start, drawing: list[str]) -> None:
    client = await start()
    unmade = await client.head("/examples/jazz.png")
    assert (unmade.status_code, "content-length" in unmade.headers, drawing) == (200, False, [])
    answers = await asyncio.gather(*(client.get("/examples/jazz.png") for _ in range(50)))
    assert {(each.status_code, each.content) for each in answers} == {(200, answers[0].content)}
    told = await client.head("/examples/jazz.png")
    assert told.headers["content-length"] == str(len(answers[0].content))
    assert len(drawing) == 1


async def test_a_redirect_ignores_the_host_header(site: httpx2.AsyncClient) -> None:
    response = await send_raw(site, head("GET", "/keys").replace(b"pictures.test", b"evil.example"))
    assert response.headers["location"] == "/log-in?next=keys"


async def test_only_where_the_stub_draws_does_the_landing_page_say_how_another_model_is_set(
    anonymous: Browser, start: Start
) -> None:
    assert "By the built-in stub" in (await anonymous.open("/")).text("main")
    async with painted(start, public_url="http://console.test") as there:
        page = await Browser(there.client).open("/")
        assert page.by_id("examples").text == "Examples"
        assert "stub" not in page.text("main")


async def test_the_log_in_page_says_who_helps_with_a_forgotten_password(anonymous: Browser) -> None:
    assert "The operator of this server can set a new one." in (await anonymous.open("/log-in")).text("main")


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("path", ["/login", "/dashboard", "/nothing/here", "/V1/keys", "/docs/nothing", "/health/"])
async def test_a_browser_gets_a_page_at_an_unknown_address_and_a_program_a_problem_document(
    ada: Browser, anonymous: Browser, path: str
) -> None:
    for browser, link in ((anonymous, "/"), (ada, "/playground")):
        page = await browser.open(path, headers=BROWSER)
        assert page.status == 404
        assert page.text("h1")
        assert link in [each.attributes["href"] for each in page.all("a", class_="button")]
        assert page.response.headers["x-request-id"] in page.response.text
    assert await ada.email() in (await ada.open(path, headers=BROWSER)).response.text
    for response in (
        await ada.client.get(path),
        await ada.client.post(path, headers=BROWSER),
        await ada.client.get(f"/v1{path}", headers=BROWSER),
        await ada.client.get(f"/v1beta{path}", headers=BROWSER),
    ):
        assert response.headers["content-type"].startswith("application/")


async def test_the_page_of_an_error_shows_who_is_logged_in(ada: Browser, anonymous: Browser) -> None:
    email = await ada.email()
    for path, status in (("/log-out", 405), ("/keys/none", 404), ("/billing", 404)):
        page = await ada.open(path)
        assert (page.status, page.text("span", class_="email")) == (status, email)
    page = await anonymous.open("/log-out")
    assert (page.status, page.all("span", class_="email")) == (405, [])


async def test_the_page_of_an_error_needs_no_database(ada: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("app.features.auth.sessions.find_session_user", fail)
    page = await ada.open("/log-out")
    assert page.status == 405
    assert page.text("h1")


async def test_a_form_that_creates_a_key_creates_one_however_often_it_is_sent(ada: Browser) -> None:
    first = await ada.open("/playground")
    raw = (await ada.submit(first, "/playground/first-key")).by_id("raw-key").text
    again = await ada.submit(first, "/playground/first-key")
    assert (again.status, again.all("code", id="raw-key")) == (409, [])
    assert again.text("p", role="alert")
    assert (await ada.open("/playground/first-key")).path == "/playground"
    form = await ada.open("/keys")
    shown = [await ada.submit(form, "/keys", name=name, environment="live") for name in ("App", "App", "Batch")]
    assert [each.status for each in shown] == [200, 409, 200]
    assert (await ada.submit(shown[1], "/keys", name="App", environment="live")).status == 200, "a new form"
    listed = await ada.open("/keys")
    assert [each.text for each in listed.all("span", class_="name")] == ["App", "Batch", "App", "First key"]
    assert raw not in again.response.text + listed.response.text

"""The limits of a form are asked before anything of it is read: a refused one costs no body and no hash."""

from collections.abc import Sequence

import httpx2
import pytest
from tests.conftest import Start
from tests.console.browser import Browser, Page
from tests.harness import PASSWORD, new_email
from tests.raw_http import head, send_raw

FORM = ("Content-Type", "application/x-www-form-urlencoded")
ONCE = "1/day"
FORMS: dict[str, tuple[str, str]] = {
    "/log-in": ("login_limit_per_ip", "/log-in"),
    "/sign-up": ("register_limit_per_ip", "/sign-up"),
    "/account/password": ("login_limit_per_ip", "/log-in"),
    "/keys": ("create_key_limit_per_account", "/keys"),
    "/playground/first-key": ("create_key_limit_per_account", "/keys"),
}
"""Each form, with its limit, and the form that uses that up."""


async def _use_up(browser: Browser, path: str, page: Page) -> None:
    wrong = {"email": new_email(), "password": "wrong password"}
    values = {"/log-in": wrong, "/sign-up": {}, "/keys": {"name": "a key", "environment": "live"}}[path]
    if values:
        await browser.submit(page, path, **values)


def _head(browser: Browser, path: str, more: Sequence[tuple[str, str]] = ()) -> bytes:
    cookies = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    return head("POST", path, [("Origin", "http://console.test"), ("Cookie", cookies), FORM, *more])


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_that_its_limits_refuse_is_not_read(start: Start, path: str) -> None:
    limit, other = FORMS[path]
    browser = Browser(await start(public_url="http://console.test", **{limit: ONCE}))
    log_in = await browser.open("/log-in")
    assert (await browser.sign_up()).status == 200
    await _use_up(browser, other, log_in if other == "/log-in" else await browser.open("/keys"))
    refused = await send_raw(browser.client, _head(browser, path, [("Content-Length", "100")]))
    assert refused.status_code == 429, refused.text
    page = Page(httpx2.Response(429, headers=refused.headers, content=refused.content))
    assert refused.headers["retry-after"] in page.text("p", role="alert")
    assert path.removesuffix("/first-key") in [form.action for form in page.forms], "it can be sent again"


async def test_a_form_that_another_site_sends_takes_from_no_limit(start: Start) -> None:
    limits = dict.fromkeys(("login_limit_per_ip", "register_limit_per_ip"), ONCE)
    browser = Browser(await start(public_url="http://console.test", **limits))
    email = new_email()
    for path in ("/log-in", "/sign-up"):
        for _ in range(2):
            values = {"email": email, "password": PASSWORD}
            assert (await browser.post(path, values, headers={"Origin": "https://evil.example"})).status == 403
    assert (await browser.sign_up(email=email)).status == 200
    browser.client.cookies.clear()
    assert (await browser.log_in(email)).status == 200

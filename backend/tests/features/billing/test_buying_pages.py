"""Buying in the console: what each form asks of Stripe and where it leads, and that no other page can send it."""

import json
from collections.abc import AsyncIterator

import pytest
from app.console.pages import PAGES
from fastapi.routing import APIRoute
from tests.console.browser import Browser, Page, new_browser
from tests.features.billing.shop import Shop
from tests.harness import JSON

FORMS = sorted(
    route.path
    for page in PAGES
    for route in page.router.routes
    if isinstance(route, APIRoute)
    and "POST" in (route.methods or ())
    and (route.path.startswith("/billing/") or "/cap" in route.path)
)
VALUES = {"plan": "starter", "amount": "10", "period": "day"}
"""What the forms send."""


@pytest.fixture(scope="module")
def public_url() -> str:
    """A browser keeps the cookies of a site without TLS too."""
    return "http://console.test"


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[Browser]:
    """A browser of a new account. Nothing is left to be delivered."""
    shop.stripe.events.clear()
    async with new_browser(shop.client) as browser:
        assert (await browser.sign_up()).status == 200
        yield browser


def at_stripe(shop: Shop, page: Page) -> JSON:
    """What the page leads on to, by itself and by a link."""
    url = page.by_id("to-stripe").attributes["href"]
    assert page.response.headers["refresh"] == f"0;url={url}"
    return shop.stripe.objects[url.rsplit("/", 1)[-1]]


def plan_of(page: Page) -> str:
    """The sentence about the plan, without a date."""
    after = page.elements[page.elements.index(page.by_id("plan-heading")) :]
    return " ".join(next(each for each in after if each.tag == "p").text.split()).partition(" on ")[0]


async def press(browser: Browser, path: str, **values: str) -> Page:
    """Presses a button of the page Billing."""
    form, *_ = [each for each in (await browser.open("/billing")).forms if each.action == path]
    return await browser.post(path, {**form.values, **values})


async def test_a_plan_is_chosen_changed_cancelled_and_kept_by_the_buttons_of_the_page(
    shop: Shop, browser: Browser
) -> None:
    page = await browser.open("/billing")
    assert plan_of(page).startswith("You have no plan")
    assert [each.attributes["value"] for each in page.all("button", name="plan")] == ["starter", "pro"]
    opened = at_stripe(shop, await press(browser, "/billing/plan", plan="starter"))
    subscription = shop.stripe.objects[shop.stripe.pay(opened["id"])["subscription"]]
    await shop.deliver()
    assert plan_of(await browser.open("/billing")) == "starter: active."
    shop.stripe.decline_card(subscription["customer"])
    refused = await press(browser, "/billing/plan", plan="pro")
    assert (refused.status, plan_of(refused)) == (402, "starter: active.")
    assert "The payment was refused" in refused.text("p", role="alert")
    shop.stripe.accept_card(subscription["customer"])
    for path, values, expected in (
        ("/billing/plan", {"plan": "pro"}, "pro: active."),
        ("/billing/plan/cancel", {}, "pro: active, ends"),
        ("/billing/plan", {"plan": "pro"}, "pro: active."),
    ):
        page = await press(browser, path, **values)
        assert (page.path, plan_of(page)) == ("/billing", expected)
        is_ending = expected.endswith("ends")
        assert ("/billing/plan/cancel" in [form.action for form in page.forms]) is not is_ending
        assert subscription["cancel_at_period_end"] is is_ending


async def test_a_top_up_the_portal_and_the_invoices_are_those_of_the_account(shop: Shop, browser: Browser) -> None:
    opened = at_stripe(shop, await press(browser, "/billing/top-ups", amount="10"))
    refused = await press(browser, "/billing/top-ups", amount="11")
    assert (refused.status, refused.form("/billing/plan").action) == (422, "/billing/plan")
    shop.stripe.pay(opened["id"])
    await shop.deliver()
    back = opened["success_url"].removeprefix("http://console.test")
    told = (await browser.open(back)).all("p", role="status")
    assert "Your payment has arrived." in [each.text for each in told]
    bought = at_stripe(shop, await press(browser, "/billing/plan", plan="starter"))
    invoice = shop.stripe.objects[shop.stripe.pay(bought["id"])["invoice"]]
    await shop.deliver()
    portal = at_stripe(shop, await press(browser, "/billing/portal"))
    assert (portal["customer"], portal["return_url"]) == (invoice["customer"], "http://console.test/billing")
    async with new_browser(shop.client) as other:
        await other.sign_up()
        for each, count in ((browser, 1), (other, 0)):
            page = await each.open("/billing")
            [month] = [link.attributes["href"] for link in page.all("a") if "explained" in link.text]
            assert len((await each.open(month)).all("a", href=invoice["hosted_invoice_url"])) == count


async def test_no_form_about_money_is_taken_from_another_site_or_session(shop: Shop, browser: Browser) -> None:
    key_id, _ = await browser.create_key()
    asked = len(shop.stripe.seen)
    token = (await browser.open("/billing")).forms[0].values["csrf_token"]
    assert len(FORMS) >= 8
    async with new_browser(shop.client) as other:
        await other.sign_up()
        of_other = (await other.open("/billing")).forms[0].values["csrf_token"]
        for path in (each.replace("{key_id}", key_id) for each in FORMS):
            for sent, headers in (
                ({}, None),
                ({"csrf_token": of_other}, None),
                ({"csrf_token": token}, {"Origin": "https://evil.example"}),
                ({"csrf_token": token}, {}),
            ):
                page = await browser.post(path, {**VALUES, **sent}, headers=headers)
                assert page.status == 403, (path, sent, headers)
            assert (await browser.open(path)).path in {path, "/billing"}, "a GET sends nothing"
    caps = "select cap from balances where cap is not null union all select cap from api_keys where cap is not null"
    assert (len(shop.stripe.seen), await shop.database.fetch(caps)) == (asked, [])


async def test_an_account_sets_a_cap_below_that_of_its_plan_and_never_above(shop: Shop, browser: Browser) -> None:
    account_id = await shop.database.fetchval(
        "select 'acc_' || substr(id, 5) from users where email = $1", await browser.email()
    )
    terms = json.dumps({"name": "starter", "title": "", "is_postpaid": True, "cap": 50_000_000})
    await shop.database.execute(
        """with plan as (insert into subscriptions (account_id, plan, status, anchor_day, terms)
             values ($1, 'starter', 'active', 1, $2))
           update balances set cap = 50000000, is_postpaid = true where account_id = $1""",
        account_id,
        terms,
    )
    cap, path = "select cap from balances where account_id = $1", "/billing/cap"
    for amount, status, stored in (("20", 200, 20), ("50.000001", 422, 20), ("50", 200, 50), ("20", 200, 20)):
        page = await browser.submit(await browser.open(path), path, amount=amount)
        assert (page.status, await shop.database.fetchval(cap, account_id)) == (status, stored * 1_000_000), amount
        if status != 200:
            assert page.by_id("amount-error").text == "Must be at most 50, the cap of the account's plan"
    await browser.submit(await browser.open(path), f"{path}/remove")
    assert await shop.database.fetchval(cap, account_id) == 50_000_000, "the plan's comes back"
    page = await browser.open(path)
    assert (f"{path}/remove" in [form.action for form in page.forms], "yours can be lower" in page.response.text) == (
        False,
        True,
    )

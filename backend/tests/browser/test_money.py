"""Money in the console: from the free images to a payment at Stripe's page and on, and how the pages look."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from app.billing.entries import post
from app.billing.subscriptions import apply
from app.catalogue.offers import PlanOffer
from app.core.db import create_engine
from app.core.settings import Settings
from app.models import User
from app.payments import WEBHOOK_PATH
from playwright.async_api import Browser, Page, expect
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.browser.actions import create_first_key, generate, sign_up
from tests.browser.browser_errors import BrowserErrors
from tests.browser.checks import accessibility_violations, horizontal_overflow, lines, screenshot
from tests.browser.conftest import APPEARANCES, DESKTOP, PHONE
from tests.harness import fresh_database, running
from tests.standins.stripe import StripeStandIn, serving_stripe

SECRET = "whsec_browser"
MODELS = """
currency = "USD"
[top_ups]
amounts = ["10", "25", "100"]
least = "5"
most = "500"
[plans.starter]
title = "Starter"
price = "10"
allowance = "15"
[plans.studio]
title = "Studio"
price = "49"
allowance = "80"
pays = "afterwards"
[models.banana]
title = "Banana"
price = { "1K" = "0.05", "2K" = "0.08" }
routes = [{ provider = "stub" }]
"""


@dataclass(frozen=True)
class Shop:
    """A deployment that takes payments from a stand-in for Stripe, and a browser that is at it."""

    url: str
    stripe: StripeStandIn
    page: Page

    async def deliver(self) -> None:
        """Sends what has happened at Stripe to the deployment."""
        assert set(await self.stripe.deliver(f"{self.url}{WEBHOOK_PATH}", SECRET)) == {200}


@pytest.fixture(params=[True, False], ids=["script", "no script"])
def has_scripts(request: pytest.FixtureRequest) -> bool:
    """Whether the browser runs scripts."""
    return bool(request.param)


@pytest.fixture(scope="module")
def money_settings(
    own_settings: Settings, server_url: str, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Those of a deployment that charges, on a database of its own: no other takes its jobs."""
    models = tmp_path_factory.mktemp("money") / "models.toml"
    models.write_text(MODELS)
    changes = {"models_file": models, "billing": "on", "trial_credit": "0.10"}
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield own_settings.model_copy(update={**changes, "database_url": SecretStr(url)})


@pytest.fixture(scope="module")
async def site_and_stripe(money_settings: Settings) -> AsyncIterator[tuple[str, StripeStandIn]]:
    """The URL of the deployment, and the stand-in that it takes payments from."""
    async with serving_stripe() as stripe:
        keys = {"stripe_secret_key": SecretStr(stripe.key), "stripe_webhook_secret": SecretStr(SECRET)}
        changed = money_settings.model_copy(update={**keys, "stripe_api_url": stripe.url})
        async with running(changed, at_its_own_url=True) as client:
            yield str(client.base_url).rstrip("/"), stripe


@pytest.fixture
async def shop(site_and_stripe: tuple[str, StripeStandIn], browser: Browser, has_scripts: bool) -> AsyncIterator[Shop]:
    """A browser that reports no error but that it was led to Stripe."""
    url, stripe = site_and_stripe
    context = await browser.new_context(
        base_url=url, java_script_enabled=has_scripts, reduced_motion="reduce", **APPEARANCES["light"]
    )
    errors = BrowserErrors(origin=url)
    await errors.listen(context)
    yield Shop(url, stripe, await context.new_page())
    await context.close()
    assert [each for each in errors.take() if stripe.url not in each] == []


async def check_page(page: Page, name: str) -> None:
    """Checks that the page is accessible and no wider than its window, in every appearance."""
    for appearance, scheme, window in (
        ("light", "light", DESKTOP),
        ("dark", "dark", DESKTOP),
        ("phone", "light", PHONE),
    ):
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.set_viewport_size({"width": window["width"], "height": window["height"]})
        await screenshot(page, f"{name}-{appearance}")
        assert await accessibility_violations(page) == [], (name, appearance)
        assert await horizontal_overflow(page) == 0, (name, appearance)
    await page.set_viewport_size({"width": DESKTOP["width"], "height": DESKTOP["height"]})


async def test_after_two_free_images_a_payment_at_stripes_page_pays_for_the_next(shop: Shop, has_scripts: bool) -> None:
    page, balance = shop.page, shop.page.locator("#balance strong")
    await sign_up(page)
    await expect(balance).to_have_text("0.10 USD")
    await create_first_key(page)
    for prompt, left in (("One", "0.05 USD"), ("Two", "0.00 USD")):
        await generate(page, prompt)
        await expect(balance).to_have_text(left)
    await expect(page.locator("#notices")).to_contain_text("You have no credit left.")
    await page.get_by_label("Prompt").fill("Three")
    await page.get_by_role("button", name="Draw").click()
    await expect(page.get_by_role("alert")).to_contain_text("too little credit")
    if has_scripts:
        await check_page(page, "playground-no-credit")
    await page.get_by_role("alert").get_by_role("link").click()
    await page.get_by_role("button", name="25.00 USD").click()
    await page.get_by_role("button", name="Pay", exact=True).click()
    await expect(page.get_by_role("status").first).to_contain_text("being confirmed")
    await shop.deliver()
    await page.reload()
    await expect(page.get_by_role("status").first).to_contain_text("has arrived")
    await expect(balance).to_have_text("25.00 USD")
    await page.goto("/playground")
    await generate(page, "Three")
    await expect(balance).to_have_text("24.95 USD")
    if has_scripts:
        await check_money_pages(page)


async def check_money_pages(page: Page) -> None:
    """Checks all pages about money, of an account that has been charged."""
    await page.goto("/keys")
    await page.get_by_role("link", name="Set the cap").click()
    await page.get_by_label("Most").fill("3")
    await check_page(page, "key-cap")
    await page.get_by_role("button", name="Set the cap").click()
    await check_page(page, "keys-cap")
    await page.goto("/billing/cap")
    await page.get_by_label("Most").fill("0.18")
    await check_page(page, "account-cap")
    await page.get_by_role("button", name="Set the cap").click()
    await expect(page.locator("#notices")).to_contain_text("is reached")
    await check_page(page, "billing")
    await page.get_by_role("link", name="This month explained").click()
    await check_page(page, "billing-month")


async def give_plan_and_grant(settings: Settings, *, email: str) -> None:
    """Gives the account a plan, and credit that expires, as an operator does."""
    assert settings.database_url is not None
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1)
    async with AsyncSession(engine) as session, session.begin():
        account_id = (await session.scalars(select(User).where(User.email == email))).one().account_id
        plan = PlanOffer(name="starter", title="Starter", allowance=25_000_000)
        await apply(session, account_id=account_id, plan=plan, anchor_day=1, status="active")
        await post(
            session,
            account_id=account_id,
            kind="grant",
            amount=5_000_000,
            reference=f"grant:{account_id}",
            expires_at=datetime.now(UTC) + timedelta(days=28),
        )
    await engine.dispose()


@pytest.mark.parametrize("has_scripts", [True], indirect=True)
async def test_a_plan_and_a_grant_fit_a_phone_and_no_amount_is_broken(shop: Shop, money_settings: Settings) -> None:
    page = shop.page
    email = await sign_up(page)
    await create_first_key(page)
    await generate(page, "One")
    await give_plan_and_grant(money_settings, email=email)
    await page.goto("/billing")
    await expect(page.get_by_role("rowheader", name="that your plan includes")).to_be_visible()
    await check_page(page, "billing-plan")
    await page.get_by_role("link", name="This month explained").click()
    await expect(page.get_by_role("rowheader", name="until")).to_be_visible()
    await check_page(page, "billing-month-plan")
    await page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
    assert await lines(page.locator(".numeric td:not(:has(.name))")) == 1
    await page.goto("/usage")
    assert await lines(page.locator(".numeric th .name").first) == 1, "a name of one word is not broken"

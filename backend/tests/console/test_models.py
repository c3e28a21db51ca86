"""The pages of a deployment with several models: their prices, and the choice among them."""

from pathlib import Path

import asyncpg
import pytest
from tests.conftest import Start
from tests.console.browser import Browser, Page

MARKUP = "<img src=x onerror=alert(1)>\"'{{7*7}}"
MODELS = f"""
default = "banana"
currency = "USD"

[models.poster]
title = '''{MARKUP}'''
price = {{ "1K/low" = "0.02", "1K/high" = "0.05", "4K/low" = "0.08", "4K/high" = "0.2" }}
[[models.poster.routes]]
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "another"
sizes = ["1536x1024", "3840x2160"]
capabilities = ["quality"]

[models.banana]
title = "Banana"
aliases = ["gpt-image-1"]
price = "0.05"
[[models.banana.routes]]
provider = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "another"
sizes = ["1024x1024", "512x512"]
capabilities = ["edit", "references:3", "stream"]

[models."sketch/fast"]
title = "Sketch"
price = "0.010"
[[models."sketch/fast".routes]]
provider = "stub"
"""


@pytest.fixture
def billing() -> str:
    """Whether the deployment charges."""
    return "off"


@pytest.fixture
async def shopper(start: Start, tmp_path: Path, billing: str) -> Browser:
    """A browser of a new account, at a deployment of three models."""
    (tmp_path / "models.toml").write_text(MODELS)
    settings = {"public_url": "http://console.test", "models_file": tmp_path / "models.toml", "billing": billing}
    browser = Browser(await start(**settings))
    await browser.sign_up()
    return browser


def cells(page: Page, tag: str) -> list[str]:
    return [" ".join(each.text.split()) for each in page.all(tag)]


def options(page: Page, identifier: str) -> list[str]:
    """What can be chosen in the field, in order; the field's own text has all of its options, a line each."""
    return page.by_id(identifier).text.split("\n")[1:-1]


def chosen(page: Page) -> dict[str, str]:
    values = page.form("/playground").values
    return {name: values[name] for name in ("model", "quality", "size") if name in values}


async def test_the_page_of_models_shows_the_default_one_first_with_names_sizes_abilities_and_prices(
    shopper: Browser,
) -> None:
    page = await shopper.open("/models")
    assert cells(page, "th")[:6] == ["Model", "Sizes", "Qualities", "Can also", "Price (USD)", "Try it"]
    assert cells(page, "th")[6:] == ["Bananabananagpt-image-1", f"{MARKUP}poster", "Sketchsketch/fast"]
    rows = [cells(page, "td")[start : start + 4] for start in (0, 5, 10)]
    prices = "1K/low: 0.02, 1K/high: 0.05, 4K/low: 0.08, 4K/high: 0.2"
    assert rows == [
        ["1024x1024, 512x512", "one", "edit up to 3 images, send sketches", "0.05"],
        ["1536x1024, 3840x2160", "low, high", "draw from words only", prices],
        ["any from 64 to 2048 pixels a side", "one", "edit up to 16 images, follow a mask", "0.01"],
    ]
    assert "<img src=x" not in page.response.text
    assert page.all("img") == []


async def test_the_playground_offers_the_sizes_and_qualities_of_the_chosen_model_and_keeps_it_after_an_error(
    shopper: Browser,
) -> None:
    await shopper.create_key(environment="test")
    page = await shopper.open("/playground")
    assert options(page, "model") == ["Banana", MARKUP, "Sketch"]
    assert "<img src=x" not in page.response.text
    assert chosen(page) == {"model": "banana", "size": "1024x1024"}
    assert options(page, "size") == ["1024x1024", "512x512", "as the image"]
    refused = await shopper.submit(page, "/playground", prompt="A banana", model="poster", size="512x512")
    assert refused.status == 422
    assert refused.by_id("size-error").text
    assert refused.form("/playground").values["prompt"] == "A banana"
    assert chosen(refused) == {"model": "poster", "quality": "auto", "size": "1536x1024"}
    assert options(refused, "quality") == ["auto", "low", "high"]
    drawn = await shopper.submit(refused, "/playground", quality="high", size="1536x1024")
    assert (drawn.status, len(drawn.all("img"))) == (200, 1)
    assert chosen(drawn) == {"model": "poster", "quality": "high", "size": "1536x1024"}
    for link in [each.attributes["href"] for each in (await shopper.open("/models")).all("a")]:
        if link.startswith("/playground?model="):
            assert (await shopper.open(link)).status == 200
    assert chosen(await shopper.open("/playground?model=sketch/fast"))["model"] == "sketch/fast"


@pytest.mark.parametrize(
    ("allowed", "first"),
    [
        (["poster", "sketch/fast"], "poster"),
        (["sketch/fast"], "sketch/fast"),
        (["banana"], None),  # the default one needs no name
        (["gone"], None),
    ],
)
async def test_the_pages_offer_the_models_of_the_plan_and_what_they_offer_can_be_drawn(
    shopper: Browser, database: asyncpg.Connection, allowed: list[str], first: str | None
) -> None:
    await shopper.create_key(environment="test")
    account = "update accounts set models = $2 where id = (select 'acc_' || substr(id, 5) from users where email = $1)"
    await database.execute(account, await shopper.email(), allowed)
    links = [each.attributes["href"] for each in (await shopper.open("/models")).all("a")]
    offered = [link.partition("=")[2] for link in links if link.startswith("/playground?model=")]
    assert offered == [each for each in allowed if each != "gone"]
    page = await shopper.open("/playground")
    assert chosen(page).get("model") == first
    if offered:
        drawn = await shopper.submit(page, "/playground", prompt="A banana")
        assert (drawn.status, len(drawn.all("img"))) == (200, 1)
        assert chosen(await shopper.open("/playground?model=banana")).get("model") != "banana"


async def test_a_form_sent_again_with_another_model_or_quality_is_another_generation(
    shopper: Browser, database: asyncpg.Connection
) -> None:
    key_id, _ = await shopper.create_key(environment="test")
    page = await shopper.open("/playground?model=poster")
    for model, quality in (
        ("poster", "low"),
        ("poster", "low"),
        ("poster", "high"),
        ("sketch/fast", "low"),
        ("sketch/fast", "low"),
    ):
        sent = await shopper.submit(
            page, "/playground", prompt="A banana", model=model, quality=quality, size="1536x1024"
        )
        assert sent.status == 200, sent.text("p", role="alert")
    rows = await database.fetch("select model, quality from generations where key_id = $1 order by id", key_id)
    assert [tuple(row) for row in rows] == [("poster", "low"), ("poster", "high"), ("sketch/fast", "auto")]


async def test_history_and_usage_show_the_model_and_the_list_prices_of_live_images(shopper: Browser) -> None:
    for environment, model, size in (("live", "sketch/fast", "64x64"), ("test", "banana", "512x512")):
        key_id, _ = await shopper.create_key(environment=environment)
        page = await shopper.open(f"/playground?model={model}&key_id={key_id}")
        values = {"prompt": "A banana", "model": model, "size": size, "key_id": key_id}
        assert (await shopper.submit(page, "/playground", **values)).status == 200
    captions = cells(await shopper.open("/history"), "figcaption")
    assert [each.partition(" · ")[0] for each in captions] == ["banana", "sketch/fast"]
    usage = await shopper.open("/usage")
    [table] = [each for each in usage.all("table") if "Images by model" in each.text]
    after = usage.elements[usage.elements.index(table) :]
    texts = [each.text for each in after if each.tag in {"th", "td"}]
    assert texts[:9] == ["Model", "Images", "List price (USD)", "banana", "1", "0.00", "sketch/fast", "1", "0.01"]


@pytest.mark.parametrize("billing", ["on"])
async def test_usage_shows_what_was_charged_and_the_playground_refuses_what_there_is_no_money_for(
    shopper: Browser, database: asyncpg.Connection
) -> None:
    live, _ = await shopper.create_key()
    test, _ = await shopper.create_key(environment="test")
    for prompt, key_id, model, status in (("A banana", live, "sketch/fast", 402), ("test:credit", test, "banana", 402)):
        values = {"prompt": prompt, "key_id": key_id, "model": model, "size": "512x512"}
        page = await shopper.submit(await shopper.open("/playground"), "/playground", **values)
        assert (page.status, page.form("/playground").values["prompt"]) == (status, prompt)
        assert "The account has too little credit for this; nothing was drawn." in page.response.text
    await database.execute("insert into usage values ($1, current_date, 3, 'sketch/fast', 30000, 20000)", live)
    usage = await shopper.open("/usage")
    [table] = [each for each in usage.all("table") if "Images by model" in each.text]
    after = usage.elements[usage.elements.index(table) :]
    texts = [each.text for each in after if each.tag in {"th", "td"}]
    assert texts[2:8] == ["List price (USD)", "Charged (USD)", "sketch/fast", "3", "0.03", "0.02"]


async def test_a_deployment_of_one_model_asks_for_no_choice_and_shows_no_money(ada: Browser) -> None:
    await ada.create_key()
    assert (await ada.generate()).status == 200
    page = await ada.open("/playground")
    assert {"model", "quality"} & page.form("/playground").values.keys() == set()
    assert "Images by model" not in (await ada.open("/usage")).response.text
    models = await ada.open("/models")
    assert (len(models.all("tr")), "USD" in models.response.text) == (2, False)

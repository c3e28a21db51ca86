"""Usage as a chart, as a table and as a CSV file: the same numbers in each."""

import csv
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import asyncpg
import pytest
from app.console.csv_lines import csv_lines
from tests.console.browser import Browser, Page

TODAY = datetime.now(UTC).date()
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", " =1", '=HYPERLINK("http://evil.example","x")']
FORMULAS += ["\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)", "\u22121", "\ufe661", "\ufe621", "\ufe631", "\ufe6bA1"]
FORMULAS += ["\u207c1", "\u207a1", "\u208b1", "\u3000\uff1d1", "\u200b=1", "\ufeff=1", "\u2060\u200f-1", "\xa0@A1"]
NAMES = ["1=1", "a-b", "a\t=1", "\u2014 dash", "ananas = banana", 'a"b', "a,b", "\uff11", "'quoted'"]


async def record(database: asyncpg.Connection, key_id: str, images: int, *, days_ago: int = 0) -> None:
    statement = "insert into usage (key_id, day, pictures) values ($1, $2, $3)"
    await database.execute(statement, key_id, TODAY - timedelta(days=days_ago), images)


def as_shown(day: date) -> str:
    return f"{day:%-d %b %Y}"


def table(page: Page) -> list[list[str]]:
    """The cells of the table of days, row by row."""
    start = next(n for n, each in enumerate(page.elements) if each.attributes.get("class") == "numeric")
    rows: list[list[str]] = []
    for element in page.elements[start:]:
        if element.tag == "tr":
            rows.append([])
        elif element.tag in {"th", "td"}:
            rows[-1].append(element.text.strip())
    return rows


@pytest.fixture
async def keys(ada: Browser, database: asyncpg.Connection) -> list[str]:
    """Two keys, with images delivered today, yesterday, a week and two months ago."""
    busy, idle = [(await ada.create_key(name=name))[0] for name in ("busy", "idle")]
    await record(database, busy, 1200)
    await record(database, idle, 1)
    await record(database, busy, 30, days_ago=1)
    await record(database, idle, 500, days_ago=7)
    await record(database, idle, 7, days_ago=60)
    return [busy, idle]


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("days", "total"), [(7, "1,231"), (30, "1,731"), (90, "1,738")])
async def test_totals_are_those_of_the_selected_period(ada: Browser, days: int, total: str) -> None:
    page = await ada.open(f"/usage?days={days}")
    assert page.all("dd")[0].text == total
    rows = table(page)
    assert len(rows) == days + 2
    assert rows[0] == ["Day (UTC)", "busy", "idle", "Total"]
    assert rows[1] == [as_shown(TODAY), "1,200", "1", "1,201"]
    assert rows[-1][-1] == total


@pytest.mark.usefixtures("keys")
async def test_the_chart_has_a_bar_for_every_day_and_key_in_proportion(ada: Browser) -> None:
    page = await ada.open("/usage?days=7")
    bars = [each for each in page.all("rect") if "x" in each.attributes]
    assert [each.text for each in bars] == [
        f"{TODAY - timedelta(days=1):%-d %b}, busy: 30",
        f"{TODAY:%-d %b}, busy: 1,200",
        f"{TODAY:%-d %b}, idle: 1",
    ]
    heights = [float(each.attributes["height"]) for each in bars]
    assert heights == [pytest.approx(200 * count / 1400, abs=0.02) for count in (30, 1200, 1)]
    [chart] = page.all("svg", role="img")
    assert all(page.by_id(part).text for part in chart.attributes["aria-labelledby"].split())
    assert "1,231" in page.by_id("chart-text").text


async def test_many_keys_are_shown_as_the_busiest_and_all_others(ada: Browser, database: asyncpg.Connection) -> None:
    for number in range(8):
        await record(database, (await ada.create_key(name=f"key {number}"))[0], 10 + number)
    rows = table(await ada.open("/usage?days=7"))
    assert rows[0] == ["Day (UTC)", *(f"key {number}" for number in (7, 6, 5, 4, 3)), "All other keys", "Total"]
    assert rows[1] == [as_shown(TODAY), "17", "16", "15", "14", "13", "33", "108"]


async def test_the_csv_file_has_every_row(ada: Browser, keys: list[str]) -> None:
    response = await ada.client.get("/usage.csv?days=90")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"].startswith('attachment; filename="usage-')
    assert response.headers["cache-control"] == "no-store"
    rows = list(csv.reader(StringIO(response.text)))
    assert rows[0] == ["date", "key_id", "key_name", "environment", "images"]
    assert [str(TODAY), keys[0], "busy", "live", "1200"] in rows
    assert sum(int(row[-1]) for row in rows[1:]) == 1738


@pytest.mark.usefixtures("keys")
async def test_a_csv_file_that_is_read_in_batches_repeats_and_skips_no_row(
    ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (await ada.client.get("/usage.csv?days=90")).text
    for rows in (1, 2, 5):
        monkeypatch.setattr("app.console.pages.usage._ROWS_AT_A_TIME", rows)
        assert (await ada.client.get("/usage.csv?days=90")).text == whole


@pytest.mark.parametrize("name", FORMULAS)
async def test_no_cell_of_the_csv_file_is_a_formula(ada: Browser, database: asyncpg.Connection, name: str) -> None:
    key_id, _ = await ada.create_key(name=name)
    await record(database, key_id, 1)
    [_, row] = csv.reader(StringIO((await ada.client.get("/usage.csv")).text))
    assert row[2] == f"'{name}"


def test_texts_of_control_characters_are_no_formulas_either() -> None:
    for text in ("\t=1", "\tabc", "\rabc", "\nabc", "\r\n=1", "\x00=1"):
        [[cell]] = csv.reader(StringIO(csv_lines([[text]]), newline=""))
        assert cell == f"'{text}"


def test_other_cells_are_as_they_were() -> None:
    rows = [NAMES, ["2026-11-25", "", "-", "a\r\nb", "c"]]
    read = list(csv.reader(StringIO(csv_lines([*rows, [-1, TODAY]]), newline="")))
    assert read == [NAMES, ["2026-11-25", "", "'-", "a\r\nb", "c"], ["-1", str(TODAY)]]


@pytest.mark.parametrize("query", ["days=8", "days=", "days=07", "days=%00", "days=30&days=x", "from=2026-01-01"])
async def test_other_periods_are_refused(ada: Browser, query: str) -> None:
    for path in ("/usage", "/usage.csv"):
        assert (await ada.open(f"{path}?{query}")).status == 422

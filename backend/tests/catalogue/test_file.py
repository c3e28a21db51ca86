"""The file of models: what it may say, and the sentence about each mistake, with its line and its field."""

from collections.abc import Mapping, Sequence

import pytest
from app.catalogue.file import FileMistakes, read_catalogue
from app.catalogue.model import Catalogue, ModelNotFound
from app.catalogue.prices import format_amount, read_amount, read_prices, size_class
from app.providers import Size
from pydantic import SecretStr

WHOLE = """
default = "banana"
currency = "USD"

[models.banana]
aliases = ["gpt-image-1", "dall-e-3"]
title = "Banana"
answers = "b64_json"
price = { "1K/low" = "0.02", "1K/high" = "0.05", "2K/low" = "0.04", "2K/high" = "0.1" }
input_price = "0.002"
may_pay_twice = true
on_refusal = "next"

[[models.banana.routes]]
provider = "gemini"
model = "gemini-2.5-flash-image"
key = "GEMINI_API_KEY"
cost = "0.039"
sizes = { "1024x1024" = "1:1/1K", "2048x2048" = "1:1/2K" }
capabilities = ["quality", "edit", "references:3"]

[[models.banana.routes]]
order = 2
weight = 3
provider = "openai"
base_url = "https://images.example.com/v1"
model = "gpt-image-1"
headers = { "api-key" = "AZURE_KEY" }
query = { "api-version" = "2026-05-01" }
cost = { low = "0.01", high = "0.04" }
timeout_seconds = 30
calls_max = 7
jobs_max = 5
capabilities = ["quality", "stream", "references:16"]

[models."free/one"]
[[models."free/one".routes]]
provider = "stub"
"""
KEYS = {"GEMINI_API_KEY": "AIza-secret", "AZURE_KEY": "azure-secret"}


def read(text: str, *, keys: Mapping[str, str] = KEYS) -> Catalogue:
    def find(name: str) -> SecretStr:
        if name not in keys:
            raise LookupError("which is not set")
        return SecretStr(keys[name])

    return read_catalogue(text, find_secret=find, calls_max=1000)


def test_a_whole_file_is_read_as_it_says() -> None:
    catalogue = read(WHOLE)
    banana, free = catalogue.find("banana"), catalogue.find("free/one")
    assert catalogue.find(None) is catalogue.find("gpt-image-1") is catalogue.find("imagen-4") is banana
    assert banana.prices.of(Size(1024, 1024), "low") == 20_000
    assert banana.prices.of(Size(2048, 2048), "high") == 100_000
    assert (banana.input_price, banana.may_pay_twice, banana.refused_goes_on) == (2000, True, True)
    assert (banana.answers, banana.qualities, banana.quality_of("auto")) == ("b64_json", ["low", "high"], "low")
    assert banana.quality_of("medium") is None
    assert banana.capabilities == ["quality", "stream", "edit", "references:16"]
    gemini, other = banana.routes
    assert (gemini.name, other.name, other.order, other.weight, other.timeout_seconds) == (
        "banana/1",
        "banana/2",
        2,
        3,
        30,
    )
    assert (gemini.calls_max, other.calls_max) == (1000, 7)
    assert (gemini.jobs_max, other.jobs_max) == (None, 5)
    assert gemini.key is not None
    assert gemini.key.get_secret_value() == "AIza-secret"
    assert other.headers["api-key"].get_secret_value() == "azure-secret"
    assert other.cost.of(Size(1024, 1024), "high") == 40_000
    assert (free.sizes, free.qualities, free.quality_of("high"), free.is_free) == ([], (), "auto", True)


def test_a_strict_catalogue_knows_no_built_in_names_and_says_what_there_is() -> None:
    catalogue = read(f"strict_names = true\n{WHOLE}")
    with pytest.raises(ModelNotFound, match="use banana or free/one, or leave model out"):
        catalogue.find("imagen-4")


@pytest.mark.parametrize(
    "name", ["gpt-image-2", "chatgpt-image-latest", "dall-e-2", "gemini-3-pro-image", "imagen-4.0"]
)
def test_names_of_unmodified_clients_mean_the_default_model(name: str) -> None:
    assert read(WHOLE).find(name).name == "banana"


def test_a_name_with_a_dot_that_lacks_its_quotes_is_told_so_and_with_them_it_is_read() -> None:
    route = '[[models.{name}.routes]]\nprovider = "stub"\n'
    with pytest.raises(FileMistakes) as raised:
        read(route.format(name="gemini-2.5"))
    sentence = "line 1: models.gemini-2.5 is not a known field; a name with a dot is written in quotes"
    assert sentence in raised.value.sentences
    assert read(route.format(name='"gemini-2.5"')).find(None).name == "gemini-2.5"


@pytest.mark.parametrize("name", ["", "Banana", "gpt-4o", "gemini-2.5-pro", "banana ", "dall-e-4"])
def test_any_other_name_is_no_model(name: str) -> None:
    with pytest.raises(ModelNotFound):
        read(WHOLE).find(name)


MISTAKES = {
    "no TOML": ("default = ", "it is no TOML"),
    "a field that there is not": ('colour = "red"', "colour is not a known field"),
    "no default": ('default = "banana"\n', "default is missing"),
    "a default that there is not": ('default = "apple"', "default names no model; there are banana, free/one"),
    "a currency in small letters": ('currency = "usd"', "currency must be three capital letters"),
    "no currency": ('currency = "USD"\n', "currency is missing, and there are prices"),
    "an alias twice": ('aliases = ["free/one"]', "models.banana.aliases holds free/one, which is a name of free/one"),
    "a price that is a number": ("price = 0.05", "models.banana.price must be a decimal in quotes"),
    "a price with a comma": ('price = "0,05"', "models.banana.price must be a decimal"),
    "a price below a millionth": ('price = "0.0000001"', "models.banana.price must be a decimal"),
    "a negative price": ('price = "-1"', "models.banana.price must be a decimal of 0 or more"),
    "a price of an unknown class": ('price = { "3K" = "1" }', "models.banana.price has the key '3K'"),
    "prices of two kinds": ('price = { "1K" = "1", low = "1" }', "models.banana.price must have keys of one kind"),
    "no price for a size": ('price = { "1K" = "1" }', "models.banana.price has no amount for 2K"),
    "no price for a quality": (
        'price = { "1K/low" = "1", "2K/high" = "1" }',
        "models.banana.price has no amount for 1K/high",
    ),
    "a cost by quality alone": (
        'price = "0.05"',
        "models.banana.routes.2.cost is by quality, so the model's price must",
    ),
    "an unknown provider": ('provider = "bing"', "models.banana.routes.1.provider"),
    "a key itself": ('key = "AIza-secret-itself"', "models.banana.routes.1.key must be the name of a variable"),
    "a key that is not set": ('key = "NO_SUCH_KEY"', "models.banana.routes.1.key names NO_SUCH_KEY, which is not set"),
    "a header that is not set": (
        'headers = { "api-key" = "NO_SUCH_KEY" }',
        "models.banana.routes.2.headers names NO_SUCH_KEY, which is not set",
    ),
    "a plain URL": ('base_url = "http://images.example.com"', "models.banana.routes.2.base_url must begin with https"),
    "a size that is none": (
        'sizes = { "1024x" = "1:1/1K" }',
        "models.banana.routes.1.sizes entry 1 must look like 1536x1024=3:2/1K",
    ),
    "an unknown capability": ('capabilities = ["fly"]', "models.banana.routes.1 has a capability that there is not"),
    "too many references": ('capabilities = ["references:17"]', "models.banana.routes.1 has a capability"),
    "a price of images that cannot go in": (
        'capabilities = ["quality"]',
        "models.banana.input_price is there, but no route has the capability edit",
    ),
    "a weight of nothing": ("weight = 0", "models.banana.routes.2.weight must be greater than or equal to 1"),
    "a text for a number": ('calls_max = "7"', "models.banana.routes.2.calls_max must be a whole number"),
    "no job at a time": ("jobs_max = 0", "models.banana.routes.2.jobs_max must be greater than or equal to 1"),
    "a stub with a key": ('provider = "stub"\nkey = "AZURE_KEY"', "has key, but the stub takes none"),
}
"""What is written in place of the line that begins alike, and the sentence."""


@pytest.mark.parametrize(("line", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_sentence_with_its_line_and_field(line: str, sentence: str) -> None:
    key = line.partition("=")[0].strip()
    lines = WHOLE.splitlines()
    if line.endswith("\n"):
        where = next(n for n, each in enumerate(lines) if each.startswith(key))
        lines[where] = ""
    elif "\n" in line:
        where = len(lines) - 1
        lines[where] = line
    elif any(each.startswith(f"{key} ") for each in lines):
        where = next(n for n, each in enumerate(lines) if each.startswith(f"{key} "))
        lines[where] = line
    else:
        lines.insert(0, line)
    with pytest.raises(FileMistakes) as raised:
        read("\n".join(lines))
    assert any(sentence in each for each in raised.value.sentences), raised.value.sentences
    assert all(secret not in str(raised.value) for secret in KEYS.values())


def test_a_sentence_names_the_line() -> None:
    with pytest.raises(FileMistakes) as raised:
        read(WHOLE.replace('base_url = "https://', 'base_url = "ftp://'))
    number = next(n for n, line in enumerate(WHOLE.splitlines(), 1) if line.startswith("base_url"))
    reason = "must begin with https:// and a host, unless it is on this machine"
    assert raised.value.sentences == [f"line {number}: models.banana.routes.2.base_url {reason}"]


@pytest.mark.parametrize(
    ("size", "name"),
    [((1024, 1024), "1K"), ((1536, 1024), "1K"), ((1920, 1080), "2K"), ((2048, 2048), "2K"), ((3840, 2160), "4K")],
)
def test_size_classes_go_by_pixels(size: tuple[int, int], name: str) -> None:
    assert size_class(Size(*size)) == name


def test_amounts_are_exact_to_a_millionth() -> None:
    assert read_prices("0.000001").of(Size(64, 64), "auto") == 1
    assert read_prices("123456789.123456").of(Size(64, 64), "auto") == 123_456_789_123_456


@pytest.mark.parametrize(
    ("millionths", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (50_000, "0.05"),
        (100_000, "0.1"),
        (999_999, "0.999999"),
        (1_000_000, "1"),
        (10_000_000, "10"),
        (1_500_000, "1.5"),
        (123_456_789_123_456, "123456789.123456"),
        (-50_000, "-0.05"),
    ],
)
def test_an_amount_is_written_with_as_few_digits_as_it_needs_and_read_back_as_it_was(
    millionths: int, text: str
) -> None:
    assert format_amount(millionths) == text
    assert read_amount(text.removeprefix("-")) == abs(millionths)


@pytest.mark.parametrize(
    "text", ["", ".5", "5.", "1e3", "+1", "-1", " 1", "1\n", "1_000", "0x1", "٣", "0.0000001", "1234567890", "NaN"]
)
def test_what_is_no_plain_decimal_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="must be a decimal"):
        read_amount(text)


EACH_FORM: Sequence[tuple[str | dict[str, str], int, int | None, int | None, int | None]] = [
    ("0.05", 50_000, 50_000, 50_000, 50_000),
    ({"1K": "0.02", "2K": "0.04"}, 20_000, 20_000, 40_000, 40_000),
    ({"low": "0.01", "high": "0.2"}, 10_000, 200_000, 10_000, 200_000),
    ({"1K/low": "0.01", "1K/high": "0.2", "2K/low": "0.02"}, 10_000, 200_000, 20_000, None),
]


@pytest.mark.parametrize(("written", "small_low", "small_high", "large_low", "large_high"), EACH_FORM)
def test_each_form_of_a_price_has_its_amount_by_size_and_quality(
    written: str | dict[str, str], small_low: int, small_high: int, large_low: int, large_high: int | None
) -> None:
    prices, small, large = read_prices(written), Size(1024, 1024), Size(2048, 2048)
    assert [prices.of(size, quality) for size in (small, large) for quality in ("low", "high")] == [
        *(small_low, small_high),
        *(large_low, large_high),
    ]
    assert prices.written == written

"""The documentation is true: every setting, error code and route stands in it, and nothing else does."""

import re
from pathlib import Path

import pytest
from app import cli, main
from app.core.errors import ApiError
from app.core.settings import Settings
from fastapi.routing import APIRoute, iter_route_contexts
from tests.providers.failures import FAILURES

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "api.md").read_text()


def subclasses(cls: type[ApiError]) -> set[type[ApiError]]:
    return {cls}.union(*(subclasses(each) for each in cls.__subclasses__()))


def routes(settings: Settings) -> set[str]:
    contexts = iter_route_contexts(main.create_app(settings).routes)
    shown = [each for each in contexts if isinstance(each.original_route, APIRoute) and each.include_in_schema]
    return {f"{method} {each.path}" for each in shown for method in each.methods or ()}


def test_every_error_code_stands_in_the_reference_with_its_status() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", REFERENCE, re.MULTILINE))
    answered = {error.code: str(error.status) for error in subclasses(ApiError) - {ApiError}}
    abstract = {"unauthorized", "conflict"}  # only their subclasses are raised
    assert told == {code: status for code, status in answered.items() if code not in abstract}


def test_every_route_stands_in_the_reference(settings: Settings) -> None:
    told = set(re.findall(r"^#+ `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)`", REFERENCE, re.MULTILINE))
    assert told == routes(settings)


@pytest.mark.parametrize("page", ["docs/operations.md", ".env.example"])
def test_every_setting_stands_in_the_operators_pages(page: str) -> None:
    told = set(re.findall(r"^(?:#|\| `)([A-Z][A-Z0-9_]+)(?:=|` \|)", (ROOT / page).read_text(), re.MULTILINE))
    assert told == {name.upper() for name in Settings.model_fields}


def test_every_default_in_the_example_is_the_default() -> None:
    told = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    keys = {"SECRET_KEY", "METRICS_TOKEN", "GEMINI_API_KEY", "OPENAI_API_KEY", "S3_SECRET_ACCESS_KEY"}
    empty = {*keys, "LIMIT_PROCESSES", "IMAGE_RETENTION_DAYS", "S3_REDIRECT_SECONDS"}
    examples = {"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "TRUSTED_PROXIES", *empty}  # their default is nothing
    for name, field in Settings.model_fields.items():
        if name.upper() not in examples:
            assert told[name.upper()] == str(field.default)


def test_what_each_failure_of_a_provider_costs_stands_in_the_operators_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    told = operations.partition("### What a failure costs\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| .* \| \d \| .*$", told, re.MULTILINE) == [failure.row for failure in FAILURES]


def test_every_command_stands_in_the_operators_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    for command in cli.main.commands:
        assert f"nanobanana {command}" in operations


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=str), ids=lambda page: page.name
)
def test_no_link_between_the_pages_is_broken(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target

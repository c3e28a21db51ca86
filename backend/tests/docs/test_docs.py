"""The documentation is true: every setting, error code and route stands in it, and nothing else does."""

import re
from pathlib import Path

import pytest
from app import cli, main
from app.core import locations
from app.core.errors import ApiError
from app.core.settings import Settings, load_settings
from fastapi.routing import APIRoute, iter_route_contexts
from tests.docs.settings_pages import ROOT, settings_pages

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


def test_the_pages_say_of_the_settings_what_their_fields_say() -> None:
    for page, text in settings_pages().items():
        assert page.read_text() == text, f"{page.name} is not what the fields make it: run make settings-docs"


@pytest.mark.parametrize("page", ["docs/operations.md", ".env.example"])
def test_every_setting_stands_once_in_the_operators_pages(page: str) -> None:
    told = re.findall(r"^(?:#|\| `)([A-Z][A-Z0-9_]+)(?:=|` \|)", (ROOT / page).read_text(), re.MULTILINE)
    assert sorted(told) == sorted(name.upper() for name in Settings.model_fields)


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_example_with_every_line_in_use_is_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(locations, "CHECKOUT", tmp_path)
    defaults = load_settings()
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z])", "", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert "\nPORT=8000\n" in (tmp_path / ".env").read_text()
    assert load_settings() == defaults


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

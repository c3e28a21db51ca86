"""The documentation lists exactly the settings, error codes and routes that exist."""

import re
from pathlib import Path

import pytest
from app import cli, main
from app.core.errors import ApiError
from app.core.settings import Settings
from fastapi.routing import APIRoute, iter_route_contexts
from tests.clients import report
from tests.clients.cases import CASES
from tests.clients.environments import LOCKED
from tests.docs.settings_pages import ROOT, settings_pages
from tests.ha import report as failovers
from tests.ha.cluster import WAYS
from tests.ha.faults import FAULTS
from tests.providers.failures import FAILURES

REFERENCE = (ROOT / "docs" / "api.md").read_text()


def subclasses(cls: type[ApiError]) -> set[type[ApiError]]:
    return {cls}.union(*(subclasses(each) for each in cls.__subclasses__()))


def routes(settings: Settings) -> set[str]:
    contexts = iter_route_contexts(main.create_app(settings).routes)
    shown = [each for each in contexts if isinstance(each.original_route, APIRoute) and each.include_in_schema]
    return {f"{method} {each.path_format}" for each in shown for method in each.methods or ()}


def test_every_error_code_stands_in_the_reference_with_its_status() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", REFERENCE, re.MULTILINE))
    answered = {error.code: str(error.status) for error in subclasses(ApiError) - {ApiError}}
    abstract = {"unauthorized", "conflict"}  # only their subclasses are raised
    assert documented == {code: status for code, status in answered.items() if code not in abstract}


def test_every_route_stands_in_the_reference(settings: Settings) -> None:
    documented = set(re.findall(r"^#+ `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)`", REFERENCE, re.MULTILINE))
    assert documented == routes(settings)


def test_the_pages_say_of_the_settings_what_their_fields_say() -> None:
    for page, text in settings_pages().items():
        assert page.read_text() == text, f"{page.name} is not what the fields make it: run make settings-docs"


@pytest.mark.parametrize("page", ["docs/operations.md", ".env.example"])
def test_every_setting_stands_once_in_the_operators_pages(page: str) -> None:
    told = re.findall(r"^(?:#|\| `)([A-Z][A-Z0-9_]+)(?:=|` \|)", (ROOT / page).read_text(), re.MULTILINE)
    assert sorted(told) == sorted(name.upper() for name in Settings.model_fields)


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_what_each_failure_of_a_provider_costs_stands_in_the_operators_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    told = operations.partition("### What a failure costs\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| .* \| \d \| .*$", told, re.MULTILINE) == [failure.row for failure in FAILURES]


def test_every_command_stands_in_the_operators_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    for command in cli.COMMANDS:
        assert f"nanobanana {command}" in operations


def test_the_table_of_clients_has_the_calls_of_their_tests() -> None:
    assert report.rows() == [(client.name, client.version, call.name) for client, call in CASES]


def test_the_table_of_failovers_has_what_their_tests_do_and_no_loss() -> None:
    assert [row[:2] for row in failovers.rows()] == [(fault.name, way) for fault in FAULTS for way in WAYS]
    assert {row[6:] for row in failovers.rows()} == {("0", "0", "0")}


def test_no_lock_names_an_address() -> None:
    tests = [*LOCKED.rglob("*.txt"), *LOCKED.rglob("*.json"), *ROOT.glob("backend/tests/ha/locked/*.txt")]
    locks = [*ROOT.glob("backend/requirements*.txt"), *tests]
    assert [lock.name for lock in locks if "://" in lock.read_text()] == []
    assert {"requirements.txt", "package-lock.json", "patroni.txt"} <= {lock.name for lock in locks}


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=str), ids=lambda page: page.name
)
def test_no_link_between_pages_is_broken(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target

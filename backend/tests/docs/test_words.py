"""The code speaks the field's words: names that only this project would understand are gone from its identifiers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.settings_pages import ROOT

APP = ROOT / "backend" / "app"
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
OLD = {
    *("studio", "wish", "wishes"),
    *("door", "gate", "envelope", "exchange", "lean"),
    *("room", "crowded"),
    *("visitor", "draft", "refusable"),
    *("proof", "seed", "visit"),
    *("tell", "told", "tells", "guess", "learn", "persist", "develop"),
    *("elsewhere", "away"),
    *("picture", "pictures"),
}
"""Words of the old names, wherever they stand in an identifier."""
OLD_NAMES = {
    *("Order", "Entry", "Site", "Nothing", "Again", "Refusals", "Exchange"),
    *("look", "enforce", "_refusals", "rest_until", "find_elsewhere"),
}
"""Old names whose words are fine elsewhere: a cache has entries."""
STAND = {
    "app/models/usage.py": {"pictures"},  # the column, as it has been from the start
    "app/features/openai/schemas.py": {"seed"},  # the parameter, as OpenRouter's clients send it
    "app/migrations/versions/2026_11_23_let_requests_have_several_pictures_and_a_lease.py": {
        "2026_11_23_let_requests_have_several_pictures_and_a_lease"
    },
}


def _identifiers(tree: ast.AST) -> Iterator[str]:
    """Every name that the module binds: modules that it imports from stand in their own files."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case ast.alias(asname=str(name)):
                yield name


def _old_names(path: Path) -> set[str]:
    names = {path.stem, *_identifiers(ast.parse(path.read_text()))}
    stand = STAND.get(str(path.relative_to(APP.parent)), set())
    return {name for name in names - stand if name in OLD_NAMES or {word.lower() for word in WORDS.findall(name)} & OLD}


def test_no_identifier_of_the_application_is_an_old_name() -> None:
    found = {str(path.relative_to(APP)): names for path in sorted(APP.rglob("*.py")) if (names := _old_names(path))}
    assert found == {}


def test_old_names_are_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    for line in ("class Studio: pass", "def tell_replay(): pass", "_crowded = 1", "async def f(wish): pass"):
        module.write_text(line)
        names = set(_identifiers(ast.parse(module.read_text())))
        assert any({word.lower() for word in WORDS.findall(name)} & OLD for name in names), line


def test_pages_and_the_reference_call_an_image_an_image() -> None:
    templates = sorted((APP / "console" / "templates").glob("*.html"))
    assert templates
    for path in [*templates, ROOT / "docs" / "api.md"]:
        text = path.read_text().replace('class="picture"', "")  # the element in which an image is shown
        assert re.findall(r"\bpictures?\b", text, re.IGNORECASE) == [], path.name

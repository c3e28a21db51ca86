"""Every line that the program logs, as its source has it: event, level and fields."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from app.core.log_requests import NAMES

APP = Path(__file__).parents[2] / "app"
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
OF_A_RESPONSE = ("status", "media_type", "bytes", "kind", "encoding")
SPREAD = {"response.description": OF_A_RESPONSE, "found.description": ("image_kind", "image_bytes")}
"""The fields of a description that a call passes on."""


class Event(NamedTuple):
    """A line: `level` and `fields` are those of all its calls."""

    level: str
    fields: frozenset[str]


def events() -> dict[str, Event]:
    """Every event by name."""
    found = {
        "request": Event("INFO", frozenset(NAMES) - {"level"} | {"status", "ms"}),
        "log_lines_dropped": Event("WARNING", frozenset({"lines"})),
    }
    for path in APP.rglob("*.py"):
        for name, event in _events_of(ast.parse(path.read_text())):
            before = found.get(name, event)
            found[name] = Event(event.level, before.fields | event.fields)
    return found


def _events_of(tree: ast.Module) -> Iterator[tuple[str, Event]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=attr)) if attr in LEVELS:
                fields = frozenset(_fields(node, is_exception=attr == "exception"))
                for name in _names(node.args[0], tree):
                    yield name, Event(LEVELS[attr], fields)


def _names(event: ast.expr, tree: ast.Module) -> Iterator[str]:
    """The constant; all that is assigned to the variable; or all that the parameter of this name is given."""
    if isinstance(event, ast.Name):
        assigned = [each.value for each in ast.walk(tree) if isinstance(each, ast.Assign) and _is(each, event.id)]
        given = assigned or list(_given(event.id))
        assert given, event.id
        for value in given:
            yield from (str(each.value) for each in ast.walk(value) if isinstance(each, ast.Constant))
    else:
        assert isinstance(event, ast.Constant), ast.unparse(event)
        yield str(event.value)


def _given(parameter: str) -> Iterator[ast.expr]:
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == parameter and isinstance(node.value, ast.Constant):
                yield node.value


def _is(assignment: ast.Assign, name: str) -> bool:
    return [ast.unparse(target) for target in assignment.targets] == [name]


def _fields(call: ast.Call, *, is_exception: bool) -> Iterator[str]:
    if is_exception:
        yield "exception"
    for keyword in call.keywords:
        if keyword.arg is None:
            yield from SPREAD[ast.unparse(keyword.value)]
        elif keyword.arg != "every_time":
            yield "exception" if keyword.arg == "exc_info" else keyword.arg

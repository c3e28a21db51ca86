"""No amount of money is ever a float: not in a row, an argument, a result or a body, and not for a moment."""

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import app
import pytest
from pydantic import BaseModel

APP = Path(app.__file__).parent
PLACES = ("billing", "models/billing.py", "features/billing", "catalogue/prices.py", "cli/billing*.py")


def _files() -> Iterator[Path]:
    for place in PLACES:
        for found in APP.glob(place):
            yield from [found] if found.is_file() else found.rglob("*.py")


FILES = {str(path.relative_to(APP)): path for path in _files()}
SECONDS = "seconds"
"""What the name of a float ends with, since it is a time."""


def _module(path: Path) -> ModuleType:
    return importlib.import_module(".".join(["app", *path.relative_to(APP).with_suffix("").parts]))


def _types(hint: Any) -> Iterator[Any]:
    yield hint
    for each in hint if isinstance(hint, list) else get_args(hint):
        yield from _types(each)


def _hints(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The names of all arguments, results and fields of the module's functions and classes, with their types."""
    for each in vars(module).values():
        if getattr(each, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(each):
            yield from get_type_hints(each).items()
            for member in vars(each).values():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if inspect.isfunction(function):
                    yield from get_type_hints(function).items()
        elif inspect.isfunction(each):
            yield from get_type_hints(each).items()


def test_the_walk_sees_rows_dataclasses_and_bodies() -> None:
    balance, state, schemas = (
        _module(FILES[f"{name}.py"]) for name in ("models/billing", "billing/balance", "features/billing/schemas")
    )
    assert {"credit", "held", "charged"} <= {name for name, _ in _hints(balance)}
    assert dataclasses.is_dataclass(state.BalanceState)
    assert issubclass(schemas.BillingPublic, BaseModel)
    assert {"available", "spent"} <= {name for name, _ in _hints(state)} & {name for name, _ in _hints(schemas)}


@pytest.mark.parametrize("name", FILES)
def test_nothing_near_money_is_a_float(name: str) -> None:
    hints = _hints(_module(FILES[name]))
    floats = [name for name, hint in hints if float in _types(hint)]
    assert [each for each in floats if not each.endswith(SECONDS)] == []
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), ast.unparse(node)
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), ast.unparse(node)
        assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in {"float", "round"}), ast.unparse(node)

"""The settings in words, made from their fields: for `.env.example`, `nanobanana settings` and docs/operations.md."""

import textwrap
from collections.abc import Iterable
from inspect import getdoc
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.core.settings import Settings

_WIDTH = 120
_HEAD = """\
The settings of NanoBanana. Save this as .env in the root of the checkout, or without a checkout in the folder in which
nanobanana is started, and uncomment what you want to change. The environment wins over .env. What is commented out here
is the default, and an empty value means the default too. White space at the ends of a value is cut. Each secret can
stand in a file of its own: SECRET_KEY_FILE=/run/secrets/secret_key in place of SECRET_KEY, and so for every other."""


def env_example() -> str:
    """Every setting as a line `#NAME=default` of a .env file, below its meaning as a comment."""
    blocks = [_comment(_HEAD)]
    for heading, fields in _sections():
        blocks += [_comment(heading)] if heading else []
        blocks += [f"{_comment(_meaning(field))}#{name.upper()}={_default(field)}\n" for name, field in fields.items()]
    return "\n".join(blocks)


def settings_tables() -> str:
    """Every setting as a row of a Markdown table, a table for each class of settings, below the class's docstring."""
    return "\n\n".join(text for heading, fields in _sections() for text in (heading, _table(fields)) if text) + "\n"


def _sections() -> Iterable[tuple[str, dict[str, FieldInfo]]]:
    bases = [base for base in Settings.__bases__ if issubclass(base, BaseModel)]
    inherited = {name for base in bases for name in base.model_fields}
    yield "", {name: field for name, field in Settings.model_fields.items() if name not in inherited}
    for base in bases:
        yield getdoc(base) or "", dict(base.model_fields)


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        default = f"`{_default(field)}`" if _default(field) else ""
        rows.append(f"| `{name.upper()}` | {default} | {_meaning(field)} |")
    return "\n".join(rows)


def _comment(text: str) -> str:
    plain = text.replace("`", "")
    wrapped = textwrap.wrap(plain, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in wrapped)


def _meaning(field: FieldInfo) -> str:
    return " ".join(text for text in (field.description, _allowed(field)) if text)


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"Allowed: {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."
    least = [each.ge for each in field.metadata if isinstance(each, Ge)]
    most = [each.le for each in field.metadata if isinstance(each, Le)]
    return f"Allowed: {least[0]} to {most[0]}." if least and most else ""


def _default(field: FieldInfo) -> str:
    """The default as it would be written into .env; nothing where it depends on other things or means `not set`."""
    return "" if field.default_factory or field.default in {None, ()} else str(field.default)

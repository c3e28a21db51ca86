"""How commands print rows: as they come, so that any number of them needs no memory."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from functools import wraps
from itertools import chain, islice
from typing import Literal

import click

from app.console.csv_lines import csv_lines
from app.core.schemas import format_time

Form = Literal["table", "csv", "json"]
Row = Mapping[str, object]


def as_json(command: Callable[..., None]) -> Callable[..., None]:
    """The option `--json` of a command that prints rows, passed to it as `form`."""
    return click.option("--json", "form", flag_value="json", default="table", help="One JSON object a line.")(command)


def as_csv_or_json(command: Callable[..., None]) -> Callable[..., None]:
    """The options `--csv` and `--json` likewise, of which a call may have one."""

    @click.option("--csv", "is_csv", is_flag=True, help="Comma-separated, with a line of names.")
    @click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
    @wraps(command)
    def with_form(*, is_csv: bool, is_json: bool, **others: object) -> None:
        if is_csv and is_json:
            raise click.UsageError("Name --csv or --json, not both.")
        command(form="csv" if is_csv else "json" if is_json else "table", **others)

    return with_form


def print_rows(rows: Iterable[Row], widths: Mapping[str, int], *, form: Form) -> None:
    """Prints the columns that `widths` names, each at least so wide in a table, below a line with their names; as JSON
    all columns, an object a line. Nothing is printed where the first row cannot be read.
    """
    rows = iter(rows)
    rows = chain([*islice(rows, 1)], rows)
    if form == "json":
        for row in rows:
            click.echo(json.dumps({name: _plain(value) for name, value in row.items()}, ensure_ascii=False))
        return
    line = _csv_line if form == "csv" else lambda cells: _table_line(cells, widths)
    click.echo(line(list(widths)))
    for row in rows:
        click.echo(line([_plain(row[name]) for name in widths]))


def print_facts(facts: Row) -> None:
    """Prints a line for each fact, with its name."""
    for name, value in facts.items():
        click.echo(f"{name}: {_text(_plain(value))}")


def _csv_line(cells: Iterable[object]) -> str:
    return csv_lines([cells]).rstrip("\r\n")


def _table_line(cells: Iterable[object], widths: Mapping[str, int]) -> str:
    return "  ".join(_text(cell).ljust(width) for cell, width in zip(cells, widths.values(), strict=True)).rstrip()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in {None, ""} else str(value)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return format_time(value)
    return str(value) if isinstance(value, date) else value

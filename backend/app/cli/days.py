"""Days that an operator names, as `2026-11-26`."""

from datetime import date, datetime
from typing import Any

import click


class _Day(click.DateTime):
    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        found: datetime = super().convert(value, param, ctx)
        if found.date() == date.max:
            self.fail(f"{date.max} is too late: no day comes after it.", param, ctx)
        return found


DAY = _Day()
"""A UTC day of a report, which has a next one: where that begins, the day ends."""

"""Days and months of UTC, as an operator names them."""

import re
from datetime import UTC, datetime

import click


class _Date(click.ParamType[datetime]):
    def __init__(self, name: str, *, shape: str, form: str, example: str, last: str) -> None:
        self.name, self._shape, self._form, self._example, self._last = name, shape, form, example, last

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment at which it begins, in UTC. A next one comes after it: where that begins, it ends."""
        if not re.fullmatch(self._shape, value, re.ASCII):
            self.fail(f"must be a {self.name} such as {self._example}", param, ctx)
        if value == self._last:
            self.fail(f"{value} is too late: no {self.name} comes after it.", param, ctx)
        try:
            return datetime.strptime(value, self._form).replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"there is no {value}", param, ctx)


DAY = _Date("day", shape=r"\d{4}-\d\d-\d\d", form="%Y-%m-%d", example="2026-11-30", last="9999-12-31")
MONTH = _Date("month", shape=r"\d{4}-\d\d", form="%Y-%m", example="2026-11", last="9999-12")

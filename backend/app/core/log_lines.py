"""A log line as JSON for programs, and as text for people."""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_PLAIN = "\x1b[0m"
_ENDS_A_VALUE = re.compile(r"[\s\"=]")
_TIME_OF_DAY = slice(len("2026-01-01T"), len("2026-01-01T00:00:00.000"))

Fields = Mapping[str, Any]


def json_line(fields: Fields) -> str:
    """One JSON object, in ASCII."""
    return json.dumps(fields, default=repr) + "\n"


def text_line(fields: Fields) -> str:
    """Time (UTC), level, event and `name=value` for every other field; the frames of a stack on lines of their own,
    indented. What cannot be printed is escaped, so that no value can look like a further line or field, or colour the
    terminal.
    """
    rest = dict(fields)
    stamp, level, event = (str(rest.pop(name, "")) for name in ("timestamp", "level", "event"))
    if rest.get("logger") == "nanobanana":
        del rest["logger"]
    exception = dict(rest.pop("exception", None) or {})
    frames = exception.pop("frames", ())
    named = [f"{name}={_value(value)}" for name, value in {**rest, **exception}.items() if value is not None]
    head = f"{time_of_day(stamp)} {level:8} {' '.join([_printable(event), *named])}"
    return "\n    at ".join([head, *map(_printable, frames)]) + "\n"


def coloured_text_line(fields: Fields) -> str:
    """The same, a warning in yellow and an error in red."""
    line, colour = text_line(fields), _COLOURS.get(str(fields.get("level")))
    return f"{colour}{line[:-1]}{_PLAIN}\n" if colour else line


def time_stamp() -> str:
    """Now, as every line has it: `2026-01-01T00:00:00.000000Z`."""
    nanoseconds = str(time.time_ns())  # its parts cost less as text than as numbers
    return f"{_to_the_second(nanoseconds[:-9])}.{nanoseconds[-9:-3]}Z"


def time_of_day(stamp: str) -> str:
    """The time of day in it, to the millisecond."""
    return stamp[_TIME_OF_DAY]


@lru_cache(maxsize=1)  # all lines of one second have the same
def _to_the_second(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return json.dumps(text) if isinstance(value, str) and _ENDS_A_VALUE.search(text) else _printable(text)


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
